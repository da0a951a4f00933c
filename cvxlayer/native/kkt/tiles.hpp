// SPDX-License-Identifier: Apache-2.0
//
// Register tiles: products of a few rows with a few rows, in lanes.
#pragma once

#include "../linalg/lanes.hpp"

namespace cvxlayer::CVXLAYER_ISA {

/// acc[i][j] = Σ_k l_i[k] · u_j[k], an MR × NR register tile.
///   l  rows i at stride ldl;  u  rows j at stride ldu;  depth  number of terms
template <int MR, int NR, class V>
CVXLAYER_INLINE void multiply_tile(const V* l, long ldl, const V* u, long ldu, int depth,
                                   V (&acc)[MR][NR]) {
#pragma GCC unroll 4
  for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < NR; ++j) acc[i][j] = V{};
  }
  for (int k = 0; k < depth; ++k) {
    V right[NR];
#pragma GCC unroll 4
    for (int j = 0; j < NR; ++j) right[j] = u[j * ldu + k];
#pragma GCC unroll 4
    for (int i = 0; i < MR; ++i) {
      const V left = l[i * ldl + k];
#pragma GCC unroll 4
      for (int j = 0; j < NR; ++j) acc[i][j] += left * right[j];
    }
  }
}

/// One instance has no lanes to fill, so its vectors run along the depth.
template <int MR, int NR>
CVXLAYER_INLINE void multiply_tile(const double* l, long ldl, const double* u, long ldu, int depth,
                                   double (&acc)[MR][NR]) {
  typedef double Wide __attribute__((vector_size(CVXLAYER_VECTOR_BYTES), aligned(8), may_alias));
  constexpr int kWide = CVXLAYER_VECTOR_BYTES / 8;
  Wide partial[MR][NR];
#pragma GCC unroll 4
  for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < NR; ++j) partial[i][j] = Wide{};
  }
  int k = 0;
  for (; k + kWide <= depth; k += kWide) {
    Wide right[NR];
#pragma GCC unroll 4
    for (int j = 0; j < NR; ++j) right[j] = *reinterpret_cast<const Wide*>(u + j * ldu + k);
#pragma GCC unroll 4
    for (int i = 0; i < MR; ++i) {
      const Wide left = *reinterpret_cast<const Wide*>(l + i * ldl + k);
#pragma GCC unroll 4
      for (int j = 0; j < NR; ++j) partial[i][j] += left * right[j];
    }
  }
#pragma GCC unroll 4
  for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < NR; ++j) {
      double sum = 0.0;
      for (int c = 0; c < kWide; ++c) sum += partial[i][j][c];
      for (int c = k; c < depth; ++c) sum += l[i * ldl + c] * u[j * ldu + c];
      acc[i][j] = sum;
    }
  }
}

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
