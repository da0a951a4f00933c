// SPDX-License-Identifier: Apache-2.0
//
// The order of elimination: approximate minimum degree on the quotient graph, in which some
// pivots have to wait for a neighbor.
#pragma once

#include <vector>

namespace cvxlayer {

/// A symmetric pattern without its diagonal: the neighbors of i are
/// neighbor[start[i] … start[i + 1]).
struct Graph {
  std::vector<int> start, neighbor;

  /// From entries (row[k], col[k]) of any triangle; an entry that is given twice counts once.
  Graph(int dim, const std::vector<int>& row, const std::vector<int>& col);
  int dim() const { return static_cast<int>(start.size()) - 1; }
};

/// Indices with the same neighbors are counted as one. Their degree is either that of the
/// group to the outside, better where the graph is sparse, or that of one of them, better where
/// a few dense blocks are all there is.
enum class DegreeKind { kExternal, kTrue };

/// The indices in the order of their elimination. An index with `is_late` follows at least
/// one of its neighbors, where it has any.
std::vector<int> order_by_minimum_degree(const Graph& graph, const std::vector<bool>& is_late,
                                         DegreeKind kind);

}  // namespace cvxlayer
