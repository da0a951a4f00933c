// SPDX-License-Identifier: Apache-2.0
//
// Symbolic LDLᵀ of a quasidefinite matrix: ordering, elimination tree, supernodes and the
// schedule of updates. Done once per sparsity structure; the numbers come in factor.hpp.
#pragma once

#include <cstdint>
#include <vector>

namespace cvxlayer {

/// A set of consecutive pivots stored as one row-major panel of leading dimension `lead`.
/// A dense supernode stores its width × width diagonal block first (upper part unused), then
/// `num_below` rows. A diagonal supernode, a group of leaves with the same structure and no
/// coupling among them, stores one row with its pivots, then `num_below` rows.
struct Supernode {
  int first;
  int width;
  int num_below;
  int lead;    // width, or more where rows would compete for the same places in a cache
  int below;   // offset into `below_rows`
  long panel;  // offset into the factor storage, in entries
  int segment_begin, segment_end;
  bool is_diagonal;
  long borrowed = -1;  // the rows below are those of A from this entry on, if it is not negative

  int head_rows() const { return is_diagonal ? 1 : width; }
  long size() const { return static_cast<long>(lead) * (head_rows() + num_below); }
};

/// The part of a supernode's update that lands in one ancestor: its below-rows
/// [begin, end) are pivots of `target`, and row `begin + i` of the source sits in panel row
/// `relative[relative_offset + i]` of the target.
struct Segment {
  int target;
  int begin, end;
  int relative_offset;
};

/// Plain pointers into a `Symbolic`, for lane code.
struct SymbolicView {
  int dim;
  int num_nodes;
  const Supernode* nodes;
  const int* below_rows;
  const Segment* segments;
  const int* relative;
  const int* position;      // original index → pivot position
  const signed char* sign;  // by pivot position
  long storage;             // entries of all panels
  long scratch;             // entries of the update buffer

  /// The supernode in whose panel an entry of the storage lies.
  const Supernode& node_at(long entry) const {
    int below = 0, above = num_nodes;
    while (above - below > 1) {
      const int middle = (below + above) / 2;
      (nodes[middle].panel <= entry ? below : above) = middle;
    }
    return nodes[below];
  }
};

struct PermutedPattern;
struct AssemblyNodes;

class Symbolic {
 public:
  /// Analyze a symmetric pattern given by its entries (row[k], col[k]), any triangle, the
  /// diagonal implied. `sign[i]` is the sign of pivot i (+1 or −1). Indices with `is_late`
  /// have a zero diagonal block and are eliminated after at least one of their neighbors.
  Symbolic(int dim, const std::vector<int>& row, const std::vector<int>& col,
           const std::vector<signed char>& sign, const std::vector<bool>& is_late);

  /// Two dense supernodes: `num_positive` pivots, then `num_negative` that they all meet.
  Symbolic(int num_positive, int num_negative);

  /// Offset into the factor storage of the entry (i, j), original indices; it must be in
  /// the pattern.
  long entry(int i, int j) const;
  SymbolicView view() const;
  /// The rows below a diagonal supernode are entries of A, in order.
  void borrow_rows(int node, long first_entry) { nodes_[node].borrowed = first_entry; }
  double multiply_adds() const { return multiply_adds_; }
  long storage() const { return storage_; }

 private:
  void place_nodes(const PermutedPattern& pattern, const AssemblyNodes& found);
  void find_rows(const PermutedPattern& pattern, const std::vector<int>& pivots,
                 const std::vector<int>& label);
  void build_segments();
  void place(Supernode& node);

  int dim_;
  std::vector<signed char> sign_;
  std::vector<int> position_;
  std::vector<Supernode> nodes_;
  std::vector<int> node_of_;
  std::vector<int> below_rows_;
  std::vector<Segment> segments_;
  std::vector<int> relative_;
  long storage_ = 0;
  long scratch_ = 0;
  double multiply_adds_ = 0;
};

}  // namespace cvxlayer
