// SPDX-License-Identifier: Apache-2.0
//
// Dependent active rows: the multiplier is not unique, and the derivative is that of any
// piece of the solution map whose active rows are independent. Rare, so dense and scalar.
#pragma once

namespace cvxlayer {

/// Drop rows until the remaining ones are independent, keeping inequality multipliers ≥ 0.
///   rows         count × n, row-major, equilibrated
///   is_equality  count;  multiplier  count, moved along null directions of rowsᵀ
///   is_kept      count, written
/// Returns how many rows were dropped. Allocates.
int reduce_active_rows(int count, int n, const double* rows, const bool* is_equality,
                       double* multiplier, bool* is_kept);

}  // namespace cvxlayer
