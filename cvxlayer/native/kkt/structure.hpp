// SPDX-License-Identifier: Apache-2.0
//
// Everything the engine derives from the structure of a batch: row lists, presolve of
// singleton rows, and where each number goes in the two KKT matrices (solve and adjoint).
#pragma once

#include <memory>
#include <vector>

#include "../cones/kind.hpp"
#include "folded.hpp"
#include "symbolic.hpp"

namespace cvxlayer {

/// Entries source, source + 1, … of P or A that go to evenly spaced places.
struct EntryRun {
  long target, stride;
  int source, count;
};

/// Linear rows that are the pivots of one diagonal supernode and lie side by side in A: what the
/// k-th row below has in pivot i is entry first_entry[k] + i. None if `count` is 0.
struct DenseRows {
  int node, count;
  const int* first_entry;
};

/// Where the entries of one KKT matrix go in the storage of its factor.
struct KktPlan {
  SymbolicView symbolic;
  const int* variable_position;   // n pivot positions, −1 for variables of folded cones
  const int* row_position;        // m pivot positions, −1 for rows eliminated by hand
  const long* P_entry;            // nnz(P)
  const long* A_entry;            // nnz(A), −1 where the entry does not stand alone
  const long* variable_diagonal;  // n, −1 for variables of folded cones
  const long* row_diagonal;       // m, −1 for rows eliminated by hand
  const long* block;              // lower triangles of the blocks of curved cones, row by row
  const long* mixed_entry;        // per curved cone: column by column of its union
  // P_entry and A_entry once more, as runs; and what none of the above assigns, to be cleared.
  const EntryRun *P_run, *A_run, *clear_run;
  int num_P_runs, num_A_runs, num_clear_runs;
  // The first of A's: what supernodes can borrow, then up to what a factorization leaves as it is.
  int num_borrowed_A_runs, num_kept_A_runs;
  const long* condensed_entry;  // per condensed cone: pairs (i, j ≥ i) of its columns
  // Per bordered cone, its stiff row before its soft one: pivot positions, diagonals, and the
  // entries of both in each column of its union.
  const int* border_position;
  const long *border_diagonal, *border_entry;
  const int* folded_index;  // per curved cone: which of the folded ones it is, or −1
  int num_folded;
  const FoldedCone* folded;
  const FoldedEntry* folded_entry;
  const FoldedTerm* folded_term;
  // The first supernodes, which hold P and A and no H, and the entries of the others. Both 0 where
  // nothing is kept from one iteration to the next.
  int num_fixed;
  long num_varying_entries;
  DenseRows dense_rows;  // worth telling active rows from others
  // A_entry of linear rows once more, as runs; the first of them do not belong to those.
  const EntryRun* rooted_run;
  int num_other_rooted_runs, num_rooted_runs;
};

/// Where the entries of P alone go in the storage of a factor, to test whether it is positive
/// semidefinite.
struct ConvexityPlan {
  SymbolicView symbolic;
  const long *entry, *diagonal;  // nnz(P), n
};

/// Plain pointers into a `Structure`, for lane code.
struct StructureView {
  int n, m, num_zero, num_linear, num_cones, degree;
  bool is_symmetric;        // all cones are
  const CurvedCone* cones;  // num_cones of them
  bool has_condensed;
  // Bordered cones, the rows of all of them, and the columns of their unions.
  int num_bordered, num_bordered_rows, num_bordered_columns;
  const int *P_start, *P_row;                     // upper triangle, CSC
  const int *A_start, *A_row;                     // CSC
  const int *P_column, *A_column;                 // of each entry
  const int *row_start, *row_column, *row_entry;  // CSR of A: column and index into the CSC values
  int num_P, num_A;
  bool is_P_full, is_A_full;  // no entry is missing, so none has to be looked up
  // Rows with one entry, eliminated by hand: those of inequalities, then of bordered cones.
  int num_singletons, num_linear_singletons;
  const int *singleton_row, *singleton_column, *singleton_entry;
  // Union of the columns in the rows of each curved cone; for column c of cone k and local row
  // a, `mixed_source` is the index of that entry of A or −1. Cone after cone, like
  // KktPlan::mixed_entry; `mixed_start` counts columns.
  const int *mixed_start, *mixed_column, *mixed_source;
  // Condensed cones have no sources but terms, column by column; see ConeColumns. So have
  // bordered ones, whose `term_row` counts from the first row of the cone.
  const int *term_start, *term_row, *term_column, *term_entry;
  KktPlan solve, adjoint;
  bool has_range_space;  // and where it has, a second plan for the solve
  KktPlan range_space;
  bool tests_convexity;  // P may be indefinite
  ConvexityPlan convexity;
};

class Structure {
 public:
  /// `cones` without their `start`, which follows from their sizes. Second-order cones of more
  /// than `largest_block` rows are bordered. With `is_convex`, P is known to be positive
  /// semidefinite.
  Structure(int n, int num_zero, int num_nonnegative, std::vector<CurvedCone> cones,
            std::vector<int> P_start, std::vector<int> P_row, std::vector<int> A_start,
            std::vector<int> A_row, int largest_block, bool is_convex);

  Structure(const Structure&) = delete;
  Structure& operator=(const Structure&) = delete;

  const StructureView& view() const { return view_; }
  int n() const { return n_; }
  int m() const { return m_; }
  const Symbolic& solve_symbolic() const { return *solve_.symbolic; }
  const Symbolic& adjoint_symbolic() const { return *adjoint().symbolic; }

 private:
  struct Plan {
    std::unique_ptr<Symbolic> symbolic;
    std::vector<int> variable_position, row_position;
    std::vector<long> P_entry, A_entry, variable_diagonal, row_diagonal, block, mixed_entry,
        condensed_entry, border_diagonal, border_entry;
    std::vector<int> border_position;
    std::vector<EntryRun> P_run, A_run, clear_run;
    int num_borrowed_A_runs = 0, num_kept_A_runs = 0;
    std::vector<int> folded_index;
    std::vector<FoldedCone> folded;
    std::vector<FoldedEntry> folded_entry;
    std::vector<FoldedTerm> folded_term;
    int num_fixed = 0;
    int dense_node = -1;
    std::vector<int> dense_entry;  // the first of each row below
    std::vector<EntryRun> rooted_run;
    int num_other_rooted_runs = 0;
  };
  /// Indices in a KKT matrix, −1 for what is eliminated by hand.
  struct Numbering {
    std::vector<int> variable, row;
    std::vector<int> border;  // the stiff row of each bordered cone; the soft one follows
    int size = 0;
  };

  void build_rows();
  void find_singletons();
  void build_mixed();
  void build_terms(const CurvedCone& cone);
  void build_union(const CurvedCone& cone);
  void choose_folded(Plan& plan) const;
  Numbering number(const Plan& plan) const;
  void add_folded_terms(Plan& plan, const Numbering& index) const;
  void build_plan(Plan& plan, bool mixes_cone_rows) const;
  bool is_P_full() const { return static_cast<long>(P_row_.size()) == n_ * (n_ + 1L) / 2; }
  void build_range_space();
  void place_entries(Plan& plan, const Numbering& index, bool mixes_cone_rows) const;
  void add_entries(const Plan& plan, const Numbering& index, std::vector<int>& row,
                   std::vector<int>& col, bool mixes_cone_rows) const;
  std::unique_ptr<Symbolic> analyze(const Plan& plan, const Numbering& index,
                                    bool mixes_cone_rows) const;
  void place_cones(Plan& plan, const Numbering& index, bool mixes_cone_rows) const;
  /// For each entry of the factor, whether products are added to what is written there.
  static std::vector<bool> find_sums(const Plan& plan);
  void find_dense_rows(Plan& plan) const;
  void build_rooted_runs(Plan& plan) const;
  void build_runs(Plan& plan) const;
  void build_convexity();
  /// body(i, j) for every pair of columns of a condensed cone, as in KktPlan::condensed_entry.
  template <class Body>
  void for_each_pair(size_t cone, const Body& body) const {
    for (int i = mixed_start_[cone]; i < mixed_start_[cone + 1]; ++i) {
      for (int j = i; j < mixed_start_[cone + 1]; ++j) body(mixed_column_[i], mixed_column_[j]);
    }
  }
  /// Whether the entry of A in this row and column has a place of its own in the matrix.
  bool stands_alone(const Numbering& index, int row, int column, bool mixes_cone_rows) const {
    return index.row[row] >= 0 && index.variable[column] >= 0 &&
           !(mixes_cone_rows && is_in_block_[row]);
  }
  /// For each variable, whether P does not know it and but one row of cones that are not linear.
  std::vector<bool> find_terms() const;
  /// body(place, row, entry, partner) for the entries of `FoldedEntry`; place is that of the row in
  /// M, partner the index in the matrix.
  template <class Body>
  void for_each_folded_entry(const FoldedCone& cone, const Numbering& index,
                             const Body& body) const {
    for (int place = 0; place < 2; ++place) {
      const int a = cone.other_rows[place];
      for (int t = row_start_[cone.start + a]; t < row_start_[cone.start + a + 1]; ++t) {
        body(place, a, row_entry_[t], index.variable[row_column_[t]]);
      }
    }
    for (int k = A_start_[cone.own_variable]; k < A_start_[cone.own_variable + 1]; ++k) {
      if (k != cone.own_entry) body(2, 3, k, index.row[A_row_[k]]);
    }
  }
  const Plan& adjoint() const { return has_blocks_ ? adjoint_ : solve_; }
  KktPlan plan_view(const Plan& plan) const;
  void build_view();

  int n_, m_, num_zero_, num_linear_;
  std::vector<CurvedCone> cones_;
  std::vector<int> P_start_, P_row_, A_start_, A_row_, P_column_, A_column_;
  std::vector<int> row_start_, row_column_, row_entry_;
  std::vector<bool> is_eliminated_;  // rows of no KKT matrix: singletons, condensed cones
  std::vector<bool> is_in_block_;    // row → whether its cone has a block
  bool has_blocks_ = false;
  std::vector<int> singleton_row_, singleton_column_, singleton_entry_;
  std::vector<int> mixed_start_, mixed_column_, mixed_source_;
  std::vector<int> term_start_, term_row_, term_column_, term_entry_;
  Plan solve_, adjoint_, range_space_;
  std::unique_ptr<Symbolic> convexity_;  // null where P is not tested
  std::vector<long> convexity_entry_, convexity_diagonal_;
  StructureView view_{};
};

}  // namespace cvxlayer
