// SPDX-License-Identifier: Apache-2.0
//
// Which pivots of a symmetric factorization are eliminated together: elimination tree, chains
// of equal structure, groups of leaves, and merges where a few stored zeros are cheaper.
#pragma once

#include <vector>

#include "ordering.hpp"

namespace cvxlayer {

/// The pattern of a permuted matrix: `lower` of pivot j are the rows below it, `upper` those
/// before it.
struct PermutedPattern {
  std::vector<int> lower_start, lower, upper_start, upper;

  /// `order[k]` is the index eliminated at step k, `position` its inverse.
  PermutedPattern(const Graph& graph, const std::vector<int>& order,
                  const std::vector<int>& position);
  int dim() const { return static_cast<int>(lower_start.size()) - 1; }
};

/// Elimination tree (Liu, SIAM J. Matrix Anal. Appl. 11, 1990), and the entries below the
/// diagonal of each column of the factor.
struct EliminationTree {
  std::vector<int> parent, count;

  explicit EliminationTree(const PermutedPattern& pattern);
  /// Of one factorization, column by column.
  double multiply_adds() const;
};

/// Pivots eliminated together, all nodes in postorder.
struct AssemblyNodes {
  std::vector<int> pivots;  // of node k: pivots[start[k] … start[k + 1])
  std::vector<int> start;
  std::vector<int> num_below;
  std::vector<bool> is_diagonal;  // leaves with the same structure, not coupled
  int count() const { return static_cast<int>(num_below.size()); }
};

AssemblyNodes find_nodes(const PermutedPattern& pattern, const EliminationTree& tree);

}  // namespace cvxlayer
