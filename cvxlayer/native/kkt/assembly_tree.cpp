// SPDX-License-Identifier: Apache-2.0
#include "assembly_tree.hpp"

#include <algorithm>
#include <cstdint>

namespace cvxlayer {

namespace {

// What a node costs beside its arithmetic, in multiply-adds; what each stored number costs
// in the triangular solves; what scattering one number of an update costs.
constexpr double kPerNode = 80.0, kPerEntry = 6.0, kPerScatter = 3.0;

/// The cost of a dense node in one factorization and the solves with it.
double cost_of(double width, double below) {
  const double factorization = width * width * (width / 6 + 0.5 * below);
  const double update = 0.5 * below * below * (width + kPerScatter);
  return kPerNode + kPerEntry * width * (0.5 * width + below) + factorization + update;
}

std::uint64_t mix(int row) {
  std::uint64_t bits = (static_cast<std::uint64_t>(row) + 1) * 0x9E3779B97F4A7C15ULL;
  return bits ^ (bits >> 31);
}

/// Nodes while they grow: chains of pivots, and the tree they form.
class Growth {
 public:
  Growth(const PermutedPattern& pattern, const EliminationTree& tree)
      : pattern_(pattern),
        tree_(tree),
        node_of_(pattern.dim(), -1),
        next_pivot_(pattern.dim(), -1),
        mark_(pattern.dim(), -1) {
    nodes_.reserve(pattern.dim());
    group_leaves();
    follow_chains();
    link();
    for (const int node : bottom_up_) merge_children(node);
  }

  AssemblyNodes finish() const;

 private:
  struct Node {
    int first, last;  // chain of pivots
    int width, below;
    int first_child = -1, next_sibling = -1;
    bool is_diagonal = false, is_merged = false;
  };

  int add_node(int pivot) {
    Node node{};
    node.first = node.last = pivot;
    node.width = 1;
    node.below = tree_.count[pivot];
    nodes_.push_back(node);
    return node_of_[pivot] = static_cast<int>(nodes_.size()) - 1;
  }

  void append(int node, int pivot) {
    next_pivot_[nodes_[node].last] = pivot;
    nodes_[node].last = pivot;
    nodes_[node].below = tree_.count[pivot];
    ++nodes_[node].width;
    node_of_[pivot] = node;
  }

  void group_leaves();
  void follow_chains();
  void link();
  void merge_children(int node);
  bool has_same_structure(int pivot, int marked) const;

  const PermutedPattern& pattern_;
  const EliminationTree& tree_;
  std::vector<Node> nodes_;
  std::vector<int> node_of_, next_pivot_, mark_;
  std::vector<int> bottom_up_;  // dense nodes, children first
  std::vector<int> candidates_;
};

/// Leaves of the tree with equal structure form one diagonal node.
void Growth::group_leaves() {
  const int dim = pattern_.dim();
  std::vector<bool> has_child(dim, false);
  for (const int parent : tree_.parent) {
    if (parent >= 0) has_child[parent] = true;
  }
  std::vector<std::pair<std::uint64_t, int>> leaves;
  for (int j = 0; j < dim; ++j) {
    if (has_child[j] || tree_.count[j] == 0) continue;
    std::uint64_t hash = 0;
    for (int k = pattern_.lower_start[j]; k < pattern_.lower_start[j + 1]; ++k) {
      hash += mix(pattern_.lower[k]);
    }
    leaves.emplace_back(hash, j);
  }
  std::sort(leaves.begin(), leaves.end());
  for (size_t begin = 0; begin < leaves.size();) {
    const int first = leaves[begin].second;
    for (int k = pattern_.lower_start[first]; k < pattern_.lower_start[first + 1]; ++k) {
      mark_[pattern_.lower[k]] = first;
    }
    size_t end = begin + 1;
    while (end < leaves.size() && leaves[end].first == leaves[begin].first &&
           has_same_structure(leaves[end].second, first)) {
      ++end;
    }
    if (end - begin > 1) {
      const int node = add_node(first);
      nodes_[node].is_diagonal = true;
      for (size_t k = begin + 1; k < end; ++k) append(node, leaves[k].second);
    }
    begin = end;
  }
}

/// Whether the structure of a leaf is that of `marked`, whose rows carry its mark.
bool Growth::has_same_structure(int pivot, int marked) const {
  if (tree_.count[pivot] != tree_.count[marked]) return false;
  for (int k = pattern_.lower_start[pivot]; k < pattern_.lower_start[pivot + 1]; ++k) {
    if (mark_[pattern_.lower[k]] != marked) return false;
  }
  return true;
}

/// A pivot whose column is that of a child without its first row joins the child's node.
void Growth::follow_chains() {
  std::vector<int> heir(pattern_.dim(), -1);  // node that a pivot may join
  for (int j = 0; j < pattern_.dim(); ++j) {
    if (node_of_[j] >= 0) continue;
    if (heir[j] < 0) {
      add_node(j);
    } else {
      append(heir[j], j);
    }
    const int parent = tree_.parent[j];
    if (parent >= 0 && tree_.count[parent] == tree_.count[j] - 1) heir[parent] = node_of_[j];
  }
}

void Growth::link() {
  std::vector<int> node_at(pattern_.dim(), -1);  // by last pivot, which is after its children's
  for (size_t k = 0; k < nodes_.size(); ++k) node_at[nodes_[k].last] = static_cast<int>(k);
  for (const int node : node_at) {
    if (node < 0) continue;
    if (!nodes_[node].is_diagonal) bottom_up_.push_back(node);
    const int parent = tree_.parent[nodes_[node].last];
    if (parent < 0) continue;
    Node& above = nodes_[node_of_[parent]];
    nodes_[node].next_sibling = above.first_child;
    above.first_child = node;
  }
}

/// Merge children where the zeros this stores cost less than a node does, those with the
/// longest columns first.
void Growth::merge_children(int node) {
  Node& parent = nodes_[node];
  candidates_.clear();
  for (int child = parent.first_child; child >= 0; child = nodes_[child].next_sibling) {
    candidates_.push_back(child);
  }
  std::stable_sort(candidates_.begin(), candidates_.end(),
                   [&](int a, int b) { return nodes_[a].below > nodes_[b].below; });
  int kept = -1;
  for (const int c : candidates_) {
    Node& child = nodes_[c];
    const double separate = cost_of(parent.width, parent.below) + cost_of(child.width, child.below);
    if (child.is_diagonal || cost_of(parent.width + child.width, parent.below) > separate) {
      child.next_sibling = kept;
      kept = c;
      continue;
    }
    next_pivot_[child.last] = parent.first;
    parent.first = child.first;
    parent.width += child.width;
    child.is_merged = true;
    for (int grandchild = child.first_child; grandchild >= 0;) {
      const int next = nodes_[grandchild].next_sibling;
      nodes_[grandchild].next_sibling = kept;
      kept = grandchild;
      grandchild = next;
    }
  }
  parent.first_child = kept;
}

AssemblyNodes Growth::finish() const {
  AssemblyNodes found;
  found.start.push_back(0);
  found.pivots.reserve(pattern_.dim());
  std::vector<bool> is_child(nodes_.size(), false);
  std::vector<int> next_child(nodes_.size()), stack;
  for (size_t k = 0; k < nodes_.size(); ++k) {
    next_child[k] = nodes_[k].first_child;
    if (nodes_[k].is_merged) continue;
    for (int c = nodes_[k].first_child; c >= 0; c = nodes_[c].next_sibling) is_child[c] = true;
  }
  for (size_t root = 0; root < nodes_.size(); ++root) {
    if (nodes_[root].is_merged || is_child[root]) continue;
    stack.push_back(static_cast<int>(root));
    while (!stack.empty()) {
      const int node = stack.back(), child = next_child[node];
      if (child >= 0) {
        next_child[node] = nodes_[child].next_sibling;
        stack.push_back(child);
        continue;
      }
      stack.pop_back();
      for (int pivot = nodes_[node].first; pivot >= 0; pivot = next_pivot_[pivot]) {
        found.pivots.push_back(pivot);
        if (pivot == nodes_[node].last) break;
      }
      found.start.push_back(static_cast<int>(found.pivots.size()));
      found.num_below.push_back(nodes_[node].below);
      found.is_diagonal.push_back(nodes_[node].is_diagonal);
    }
  }
  return found;
}

}  // namespace

PermutedPattern::PermutedPattern(const Graph& graph, const std::vector<int>& order,
                                 const std::vector<int>& position) {
  const int dim = graph.dim();
  lower_start.reserve(dim + 1);
  upper_start.reserve(dim + 1);
  lower.reserve(graph.neighbor.size() / 2);
  upper.reserve(graph.neighbor.size() / 2);
  for (int j = 0; j < dim; ++j) {
    lower_start.push_back(static_cast<int>(lower.size()));
    upper_start.push_back(static_cast<int>(upper.size()));
    for (int k = graph.start[order[j]]; k < graph.start[order[j] + 1]; ++k) {
      const int i = position[graph.neighbor[k]];
      (i > j ? lower : upper).push_back(i);
    }
  }
  lower_start.push_back(static_cast<int>(lower.size()));
  upper_start.push_back(static_cast<int>(upper.size()));
}

EliminationTree::EliminationTree(const PermutedPattern& pattern) {
  const int dim = pattern.dim();
  parent.assign(dim, -1);
  count.assign(dim, 0);
  std::vector<int> mark(dim, -1), ancestor(dim, -1);
  for (int i = 0; i < dim; ++i) {
    for (int k = pattern.upper_start[i]; k < pattern.upper_start[i + 1]; ++k) {
      for (int j = pattern.upper[k]; j >= 0 && j < i;) {
        const int above = ancestor[j];
        ancestor[j] = i;
        if (above < 0) parent[j] = i;
        j = above;
      }
    }
  }
  // Row i of the factor: the paths from its entries up to i, each pivot met once.
  for (int i = 0; i < dim; ++i) {
    mark[i] = i;
    for (int k = pattern.upper_start[i]; k < pattern.upper_start[i + 1]; ++k) {
      for (int j = pattern.upper[k]; mark[j] != i; j = parent[j]) {
        ++count[j];
        mark[j] = i;
      }
    }
  }
}

double EliminationTree::multiply_adds() const {
  double sum = 0.0;
  for (const int below : count) sum += 0.5 * below * (below + 3.0);
  return sum;
}

AssemblyNodes find_nodes(const PermutedPattern& pattern, const EliminationTree& tree) {
  return Growth(pattern, tree).finish();
}

}  // namespace cvxlayer
