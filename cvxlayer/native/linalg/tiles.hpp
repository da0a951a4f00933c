// SPDX-License-Identifier: Apache-2.0
//
// Register tiles: the inner loop of every dense product.
#pragma once

#include "wide.hpp"

namespace cvxlayer::CVXLAYER_ISA {

// Columns of a tile of four rows: with what is multiplied, sixteen registers hold three.
constexpr int kTileColumns = CVXLAYER_VECTOR_BYTES < 64 ? 3 : 4;

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
    for (int j = 0; j < NR; ++j)
      right[j] = *reinterpret_cast<const WideUnaligned*>(u + j * ldu + k);
#pragma GCC unroll 4
    for (int i = 0; i < MR; ++i) {
      const Wide left = *reinterpret_cast<const WideUnaligned*>(l + i * ldl + k);
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

}  // namespace cvxlayer::CVXLAYER_ISA
