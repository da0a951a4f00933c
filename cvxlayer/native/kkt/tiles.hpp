// SPDX-License-Identifier: Apache-2.0
//
// Tiles of a product, subtracted where a panel wants them.
#pragma once

#include "../linalg/tiles.hpp"

namespace cvxlayer::CVXLAYER_ISA {

/// target[row[i] + column[j]] −= Σ_k l_i[k] · u_j[k].
template <int MR, int NR, class V>
inline void subtract_tile(V* target, const long* row, const int* column, const V* l, long ldl,
                          const V* u, long ldu, int depth) {
  V acc[MR][NR];
  multiply_tile<MR, NR>(l, ldl, u, ldu, depth, acc);
#pragma GCC unroll 4
  for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < NR; ++j) target[row[i] + column[j]] -= acc[i][j];
  }
}

// Blocks of an update: what they need of the columns, and four rows, fits into the first cache.
constexpr int kTilesPerBlock = CVXLAYER_VECTOR_BYTES < 64 ? 2 : 1;
constexpr int kBlockColumns = kTilesPerBlock * kTileColumns, kBlockDepth = 64;
constexpr long kBlockEntries = static_cast<long>(kBlockColumns) * kBlockDepth;

/// MR rows of an update, one tile after another.
template <int MR, class V>
inline void subtract_rows(V* target, const long* row, const int* column, int num_columns,
                          const V* l, long ldl, const V* u, int depth) {
  int j = 0;
  for (; j + kTileColumns <= num_columns; j += kTileColumns) {
    subtract_tile<MR, kTileColumns>(target, row, column + j, l, ldl, u + j * depth, depth, depth);
  }
  switch (num_columns - j) {
    case 3:
      subtract_tile<MR, 3>(target, row, column + j, l, ldl, u + j * depth, depth, depth);
      break;
    case 2:
      subtract_tile<MR, 2>(target, row, column + j, l, ldl, u + j * depth, depth, depth);
      break;
    case 1:
      subtract_tile<MR, 1>(target, row, column + j, l, ldl, u + j * depth, depth, depth);
      break;
    default:
      break;
  }
}

/// target[row[i] + column[j]] −= Σ_k l_i[k] · u_j[k] for all rows but their entries j > i, some of
/// which are changed as well.
template <class V>
inline void subtract_lower(V* target, const long* row, const int* column, int num_rows,
                           int num_columns, const V* l, long ldl, const V* u, int depth) {
  int i = 0;
  for (; i + 4 <= num_rows; i += 4) {
    const int count = i + 4 < num_columns ? i + 4 : num_columns;
    subtract_rows<4>(target, row + i, column, count, l + i * ldl, ldl, u, depth);
  }
  switch (num_rows - i) {
    case 3:
      subtract_rows<3>(target, row + i, column, num_columns, l + i * ldl, ldl, u, depth);
      break;
    case 2:
      subtract_rows<2>(target, row + i, column, num_columns, l + i * ldl, ldl, u, depth);
      break;
    case 1:
      subtract_rows<1>(target, row + i, column, num_columns, l + i * ldl, ldl, u, depth);
      break;
    default:
      break;
  }
}

}  // namespace cvxlayer::CVXLAYER_ISA
