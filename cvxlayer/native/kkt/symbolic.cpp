// SPDX-License-Identifier: Apache-2.0
#include "symbolic.hpp"

#include <Eigen/OrderingMethods>
#include <Eigen/SparseCore>
#include <algorithm>
#include <cassert>
#include <map>
#include <numeric>

namespace cvxlayer {

namespace {

// A child is merged into its parent when the explicit zeros this stores are few: at most
// this share of the merged panel, or this many entries.
constexpr double kMergeShare = 0.12;
constexpr long kMergeEntries = 12;

/// Postorder of the forest `parent`, the child with the longest column last so that it can
/// share a supernode with its parent.
std::vector<int> postorder(const std::vector<int>& parent,
                           const std::vector<std::vector<int>>& columns) {
  const int n = static_cast<int>(parent.size());
  std::vector<std::vector<int>> children(n + 1);
  for (int j = 0; j < n; ++j) children[parent[j] < 0 ? n : parent[j]].push_back(j);
  for (auto& list : children) {
    std::stable_sort(list.begin(), list.end(),
                     [&](int a, int b) { return columns[a].size() < columns[b].size(); });
  }
  std::vector<int> order;
  order.reserve(n);
  std::vector<std::pair<int, size_t>> stack{{n, 0}};
  while (!stack.empty()) {
    auto& [node, next] = stack.back();
    if (next < children[node].size()) {
      const int child = children[node][next++];
      stack.emplace_back(child, 0);
    } else {
      if (node != n) order.push_back(node);
      stack.pop_back();
    }
  }
  return order;
}

}  // namespace

Symbolic::Symbolic(int dim, const std::vector<int>& row, const std::vector<int>& col,
                   const std::vector<signed char>& sign, const std::vector<bool>& is_late)
    : dim_(dim), sign_(dim) {
  order(row, col, is_late);
  build_columns(row, col);
  find_supernodes();
  merge_supernodes();
  build_segments();
  for (int i = 0; i < dim; ++i) sign_[position_[i]] = sign[i];
}

void Symbolic::order(const std::vector<int>& row, const std::vector<int>& col,
                     const std::vector<bool>& is_late) {
  std::vector<Eigen::Triplet<double>> triplets;
  for (size_t k = 0; k < row.size(); ++k) {
    triplets.emplace_back(row[k], col[k], 1.0);
    triplets.emplace_back(col[k], row[k], 1.0);
  }
  for (int i = 0; i < dim_; ++i) triplets.emplace_back(i, i, 1.0);
  Eigen::SparseMatrix<double> matrix(dim_, dim_);
  matrix.setFromTriplets(triplets.begin(), triplets.end());
  Eigen::PermutationMatrix<Eigen::Dynamic, Eigen::Dynamic, int> permutation;
  Eigen::AMDOrdering<int>()(matrix, permutation);
  position_.assign(dim_, 0);
  for (int k = 0; k < dim_; ++k) position_[permutation.indices()[k]] = k;

  // An equality row has only −δ as its pivot: eliminated first, it would put 1/δ into the rows
  // of its variables and cancel their digits. Right after its first variable it does not, and
  // the fill is nearly the same.
  std::vector<std::pair<int, int>> keys(dim_);
  for (int i = 0; i < dim_; ++i) keys[i] = {2 * position_[i], i};
  std::vector<int> first_neighbor(dim_, dim_);
  for (size_t k = 0; k < row.size(); ++k) {
    if (row[k] == col[k]) continue;
    if (is_late[row[k]] && !is_late[col[k]]) {
      first_neighbor[row[k]] = std::min(first_neighbor[row[k]], position_[col[k]]);
    }
    if (is_late[col[k]] && !is_late[row[k]]) {
      first_neighbor[col[k]] = std::min(first_neighbor[col[k]], position_[row[k]]);
    }
  }
  for (int i = 0; i < dim_; ++i) {
    if (is_late[i] && first_neighbor[i] < dim_ && first_neighbor[i] > position_[i]) {
      keys[i].first = 2 * first_neighbor[i] + 1;
    }
  }
  std::stable_sort(keys.begin(), keys.end());
  for (int k = 0; k < dim_; ++k) position_[keys[k].second] = k;
}

void Symbolic::build_columns(const std::vector<int>& row, const std::vector<int>& col) {
  std::vector<std::vector<int>> entries(dim_);
  for (size_t k = 0; k < row.size(); ++k) {
    const int i = position_[row[k]], j = position_[col[k]];
    if (i != j) entries[std::min(i, j)].push_back(std::max(i, j));
  }
  columns_.assign(dim_, {});
  std::vector<int> parent(dim_, -1), mark(dim_, -1);
  std::vector<std::vector<int>> children(dim_);
  for (int j = 0; j < dim_; ++j) {
    auto& rows = columns_[j];
    mark[j] = j;
    auto add = [&](const std::vector<int>& list) {
      for (int i : list) {
        if (mark[i] != j) {
          mark[i] = j;
          rows.push_back(i);
        }
      }
    };
    add(entries[j]);
    for (int child : children[j]) add(columns_[child]);
    std::sort(rows.begin(), rows.end());
    if (!rows.empty()) {
      parent[j] = rows.front();
      children[parent[j]].push_back(j);
    }
  }

  // Leaves with equal structure form diagonal supernodes, numbered first; everything else
  // follows in postorder. Both are topological, so the fill does not change.
  std::map<std::vector<int>, std::vector<int>> leaves;
  for (int j = 0; j < dim_; ++j) {
    if (children[j].empty()) leaves[columns_[j]].push_back(j);
  }
  std::vector<int> group(dim_, -1), sequence;
  int num_groups = 0;
  for (const auto& [structure, members] : leaves) {
    if (members.size() < 2) continue;
    for (int j : members) {
      group[j] = num_groups;
      sequence.push_back(j);
    }
    ++num_groups;
  }
  for (int j : postorder(parent, columns_)) {
    if (group[j] < 0) sequence.push_back(j);
  }
  std::vector<int> label(dim_);
  for (int k = 0; k < dim_; ++k) label[sequence[k]] = k;
  std::vector<std::vector<int>> relabeled(dim_);
  leaf_group_.assign(dim_, -1);
  for (int j = 0; j < dim_; ++j) {
    auto& rows = relabeled[label[j]];
    rows = std::move(columns_[j]);
    for (int& i : rows) i = label[i];
    std::sort(rows.begin(), rows.end());
    leaf_group_[label[j]] = group[j];
  }
  columns_ = std::move(relabeled);
  for (int& p : position_) p = label[p];
}

void Symbolic::find_supernodes() {
  nodes_.clear();
  for (int j = 0; j < dim_;) {
    Supernode node{};
    node.first = j;
    node.width = 1;
    if (leaf_group_[j] >= 0) {
      while (j + node.width < dim_ && leaf_group_[j + node.width] == leaf_group_[j]) ++node.width;
      node.is_diagonal = true;
    } else {
      while (j + node.width < dim_) {
        const auto& last = columns_[j + node.width - 1];
        if (last.empty() || last.front() != j + node.width ||
            last.size() != columns_[j + node.width].size() + 1) {
          break;
        }
        ++node.width;
      }
    }
    nodes_.push_back(node);
    j += node.width;
  }
}

void Symbolic::merge_supernodes() {
  // Merge a node into its parent when it ends where the parent begins and little is wasted.
  std::vector<Supernode> merged;
  for (Supernode node : nodes_) {
    while (!merged.empty() && !node.is_diagonal && !merged.back().is_diagonal) {
      const Supernode& child = merged.back();
      const auto& child_rows = columns_[child.first + child.width - 1];
      if (child.first + child.width != node.first || child_rows.empty() ||
          child_rows.front() >= node.first + node.width) {
        break;
      }
      const long below = static_cast<long>(columns_[node.first + node.width - 1].size());
      const long zeros = child.width * (node.width + below - static_cast<long>(child_rows.size()));
      const long width = child.width + node.width;
      const double entries = static_cast<double>(width) * below + 0.5 * width * width;
      if (zeros > kMergeEntries && zeros > kMergeShare * entries) break;
      node.first = child.first;
      node.width = static_cast<int>(width);
      merged.pop_back();
    }
    merged.push_back(node);
  }
  nodes_ = std::move(merged);
  node_of_.assign(dim_, -1);
  storage_ = 0;
  multiply_adds_ = 0;
  for (size_t k = 0; k < nodes_.size(); ++k) {
    Supernode& node = nodes_[k];
    const auto& below = columns_[node.first + node.width - 1];
    node.num_below = static_cast<int>(below.size());
    node.below = static_cast<int>(below_rows_.size());
    below_rows_.insert(below_rows_.end(), below.begin(), below.end());
    node.panel = storage_;
    storage_ += static_cast<long>(node.width) * (node.head_rows() + node.num_below);
    for (int j = node.first; j < node.first + node.width; ++j) node_of_[j] = static_cast<int>(k);
    const double w = node.width, h = node.num_below;
    multiply_adds_ += 0.5 * w * h * h + (node.is_diagonal ? w * h : w * w * (w / 6 + 0.5 * h));
    scratch_ = std::max<long>(scratch_, 4L * node.width);
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
    return node.panel + static_cast<long>(row - node.first) * node.width + local;
  }
  const int* begin = below_rows_.data() + node.below;
  const int* found = std::lower_bound(begin, begin + node.num_below, row);
  assert(found != begin + node.num_below && *found == row);
  return node.panel + (node.head_rows() + (found - begin)) * static_cast<long>(node.width) + local;
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
