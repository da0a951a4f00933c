// SPDX-License-Identifier: Apache-2.0
//
// Dependent active rows: the multiplier is not unique, and the derivative is that of any
// piece of the solution map whose active rows are independent. Rare, so scalar.
#pragma once

namespace cvxlayer {

/// Active rows of one instance, equilibrated, entry by entry and row by row. Allocates.
struct ActiveRows {
  int count = 0, num_columns;
  int *start, *column;  // entries start[i] to start[i + 1] belong to row i
  double* value;

  ActiveRows(int most_rows, int columns, int most_entries);
  ~ActiveRows();
  ActiveRows(const ActiveRows&) = delete;
  ActiveRows& operator=(const ActiveRows&) = delete;

  void add(int entry_column, double entry);  // to the row that is open
  void close_row();
};

/// Drop rows until the remaining ones are independent, keeping inequality multipliers ≥ 0.
///   is_equality  count;  multiplier  count, moved along combinations of rows that vanish
///   is_kept      count, written
/// Returns how many rows were dropped. Allocates.
int reduce_active_rows(const ActiveRows& rows, const bool* is_equality, double* multiplier,
                       bool* is_kept);

}  // namespace cvxlayer
