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

template <int NR, class V>
inline void subtract_rows(V* target, const long* row, const int* column, int num_rows, const V* l,
                          long ldl, const V* u, long ldu, int depth) {
  int i = 0;
  for (; i + 4 <= num_rows; i += 4) {
    subtract_tile<4, NR>(target, row + i, column, l + i * ldl, ldl, u, ldu, depth);
  }
  switch (num_rows - i) {
    case 3:
      subtract_tile<3, NR>(target, row + i, column, l + i * ldl, ldl, u, ldu, depth);
      break;
    case 2:
      subtract_tile<2, NR>(target, row + i, column, l + i * ldl, ldl, u, ldu, depth);
      break;
    case 1:
      subtract_tile<1, NR>(target, row + i, column, l + i * ldl, ldl, u, ldu, depth);
      break;
    default:
      break;
  }
}

/// The four-column strip of an update; `num_columns` ≤ 4.
template <class V>
inline void subtract_strip(V* target, const long* row, const int* column, int num_rows,
                           int num_columns, const V* l, long ldl, const V* u, long ldu, int depth) {
  switch (num_columns) {
    case 4:
      subtract_rows<4>(target, row, column, num_rows, l, ldl, u, ldu, depth);
      break;
    case 3:
      subtract_rows<3>(target, row, column, num_rows, l, ldl, u, ldu, depth);
      break;
    case 2:
      subtract_rows<2>(target, row, column, num_rows, l, ldl, u, ldu, depth);
      break;
    case 1:
      subtract_rows<1>(target, row, column, num_rows, l, ldl, u, ldu, depth);
      break;
    default:
      break;
  }
}

}  // namespace cvxlayer::CVXLAYER_ISA
