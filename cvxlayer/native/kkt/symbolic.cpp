// SPDX-License-Identifier: Apache-2.0
#include "symbolic.hpp"

#include <algorithm>
#include <cassert>
#include <numeric>

#include "assembly_tree.hpp"

namespace cvxlayer {

namespace {

// Up to this dimension both kinds of degree are tried, and the cheaper order is kept.
constexpr int kMostForTwoOrders = 500;

// Rows a large power of two apart lie in the same few sets of a cache.
constexpr int kUnluckyWidth = 16, kLeastUnlucky = 32;

int leading_dimension(int width) {
  return width >= kLeastUnlucky && width % kUnluckyWidth == 0 ? width + 1 : width;
}

struct Candidate {
  std::vector<int> order, position;
  PermutedPattern pattern;
  EliminationTree tree;

  Candidate(const Graph& graph, const std::vector<bool>& is_late, DegreeKind kind)
      : order(order_by_minimum_degree(graph, is_late, kind)),
        position(invert(order)),
        pattern(graph, order, position),
        tree(pattern) {}

  static std::vector<int> invert(const std::vector<int>& order) {
    std::vector<int> position(order.size());
    for (size_t k = 0; k < order.size(); ++k) position[order[k]] = static_cast<int>(k);
    return position;
  }
};

Candidate best_order(const Graph& graph, const std::vector<bool>& is_late) {
  Candidate best(graph, is_late, DegreeKind::kExternal);
  if (graph.dim() > kMostForTwoOrders) return best;
  Candidate other(graph, is_late, DegreeKind::kTrue);
  return other.tree.multiply_adds() < best.tree.multiply_adds() ? other : best;
}

}  // namespace

Symbolic::Symbolic(int dim, const std::vector<int>& row, const std::vector<int>& col,
                   const std::vector<signed char>& sign, const std::vector<bool>& is_late)
    : dim_(dim), sign_(dim) {
  const Candidate best = best_order(Graph(dim, row, col), is_late);
  position_ = best.position;
  AssemblyNodes found = find_nodes(best.pattern, best.tree);
  // Leaves of the same structure may go in any order; that of the matrix is how they are stored.
  for (int k = 0; k < found.count(); ++k) {
    if (!found.is_diagonal[k]) continue;
    std::sort(found.pivots.begin() + found.start[k], found.pivots.begin() + found.start[k + 1],
              [&](int i, int j) { return best.order[i] < best.order[j]; });
  }
  place_nodes(best.pattern, found);
  build_segments();
  for (int i = 0; i < dim; ++i) sign_[position_[i]] = sign[i];
}

Symbolic::Symbolic(int num_positive, int num_negative)
    : dim_(num_positive + num_negative), sign_(dim_, 1), position_(dim_), node_of_(dim_, 0) {
  std::fill(sign_.begin() + num_positive, sign_.end(), static_cast<signed char>(-1));
  std::fill(node_of_.begin() + num_positive, node_of_.end(), 1);
  std::iota(position_.begin(), position_.end(), 0);
  below_rows_.assign(position_.begin() + num_positive, position_.end());
  nodes_.resize(2);
  nodes_[0].width = num_positive;
  nodes_[0].num_below = num_negative;
  nodes_[1].first = num_positive;
  nodes_[1].width = num_negative;
  nodes_[1].below = num_negative;
  for (Supernode& node : nodes_) place(node);
  build_segments();
}

/// Give a node its place, and count what it costs.
void Symbolic::place(Supernode& node) {
  node.lead = node.is_diagonal ? node.width : leading_dimension(node.width);
  node.panel = storage_;
  storage_ += node.size();
  scratch_ = std::max<long>(scratch_, 4L * node.width);
  const double w = node.width, h = node.num_below;
  multiply_adds_ += 0.5 * w * h * h + (node.is_diagonal ? w * h : w * w * (w / 6 + 0.5 * h));
}

void Symbolic::place_nodes(const PermutedPattern& pattern, const AssemblyNodes& found) {
  std::vector<int> label(dim_);
  for (int k = 0; k < dim_; ++k) label[found.pivots[k]] = k;
  for (int& position : position_) position = label[position];
  node_of_.resize(dim_);
  nodes_.reserve(found.count());
  for (int k = 0; k < found.count(); ++k) {
    Supernode node{};
    node.first = found.start[k];
    node.width = found.start[k + 1] - node.first;
    node.num_below = found.num_below[k];
    node.is_diagonal = found.is_diagonal[k];
    place(node);
    for (int j = node.first; j < node.first + node.width; ++j) node_of_[j] = k;
    nodes_.push_back(node);
  }
  find_rows(pattern, found.pivots, label);
}

/// The rows below each node: those of its own entries and of its children.
void Symbolic::find_rows(const PermutedPattern& pattern, const std::vector<int>& pivots,
                         const std::vector<int>& label) {
  std::vector<int> mark(dim_, -1), first_child(nodes_.size(), -1), sibling(nodes_.size(), -1);
  for (size_t k = 0; k < nodes_.size(); ++k) {
    Supernode& node = nodes_[k];
    const int end = node.first + node.width;
    node.below = static_cast<int>(below_rows_.size());
    auto add = [&](int i) {
      if (i < end || mark[i] == static_cast<int>(k)) return;
      mark[i] = static_cast<int>(k);
      below_rows_.push_back(i);
    };
    for (int j = node.first; j < end; ++j) {
      const int pivot = pivots[j];
      for (int t = pattern.lower_start[pivot]; t < pattern.lower_start[pivot + 1]; ++t) {
        add(label[pattern.lower[t]]);
      }
      if (node.is_diagonal) break;
    }
    for (int c = first_child[k]; c >= 0; c = sibling[c]) {
      const int begin = nodes_[c].below;
      for (int t = begin; t < begin + nodes_[c].num_below; ++t) add(below_rows_[t]);
    }
    assert(static_cast<int>(below_rows_.size()) == node.below + node.num_below);
    if (node.num_below == 0) continue;
    std::sort(below_rows_.begin() + node.below, below_rows_.end());
    const int parent = node_of_[below_rows_[node.below]];
    sibling[k] = first_child[parent];
    first_child[parent] = static_cast<int>(k);
  }
}
void Symbolic::build_segments() {
  for (Supernode& node : nodes_) {
    node.segment_begin = static_cast<int>(segments_.size());
    const int* rows = below_rows_.data() + node.below;
    for (int begin = 0; begin < node.num_below;) {
      const int target = node_of_[rows[begin]];
      const Supernode& into = nodes_[target];
      int end = begin;
      while (end < node.num_below && node_of_[rows[end]] == target) ++end;
      segments_.push_back({target, begin, end, static_cast<int>(relative_.size())});
      const int* target_rows = below_rows_.data() + into.below;
      int cursor = 0;
      for (int i = begin; i < node.num_below; ++i) {
        if (rows[i] < into.first + into.width) {
          relative_.push_back(rows[i] - into.first);
          continue;
        }
        while (target_rows[cursor] != rows[i]) ++cursor;
        relative_.push_back(into.width + cursor);
      }
      begin = end;
    }
    node.segment_end = static_cast<int>(segments_.size());
  }
}

long Symbolic::entry(int i, int j) const {
  int row = position_[i], column = position_[j];
  if (row < column) std::swap(row, column);
  const Supernode& node = nodes_[node_of_[column]];
  const int local = column - node.first;
  if (node.is_diagonal && row == column) return node.panel + local;
  if (row < node.first + node.width) {
    assert(!node.is_diagonal);
    return node.panel + static_cast<long>(row - node.first) * node.lead + local;
  }
  const int* begin = below_rows_.data() + node.below;
  const int* found = std::lower_bound(begin, begin + node.num_below, row);
  assert(found != begin + node.num_below && *found == row);
  return node.panel + (node.head_rows() + (found - begin)) * static_cast<long>(node.lead) + local;
}

SymbolicView Symbolic::view() const {
  return {dim_,
          static_cast<int>(nodes_.size()),
          nodes_.data(),
          below_rows_.data(),
          segments_.data(),
          relative_.data(),
          position_.data(),
          sign_.data(),
          storage_,
          scratch_};
}

}  // namespace cvxlayer
