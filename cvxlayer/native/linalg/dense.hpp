// SPDX-License-Identifier: Apache-2.0
//
// Dense square matrices in lanes, row-major, small enough to stay in cache.
#pragma once

#include "tiles.hpp"

namespace cvxlayer::CVXLAYER_ISA {

template <class L>
struct Dense {
  using V = typename L::V;
  using O = Ops<L>;

  /// out = X Yᵀ, all k × k.
  static void multiply(const V* x, const V* y, int k, V* out) { strips<false>(x, y, k, out); }

  /// out = X Yᵀ where that is symmetric: half the work.
  static void multiply_symmetric(const V* x, const V* y, int k, V* out) {
    strips<true>(x, y, k, out);
  }

  /// out = B X Bᵀ for symmetric X; `work` holds k² numbers, out may be x.
  static void congruence(const V* b, const V* x, int k, V* work, V* out) {
    multiply(b, x, k, work);
    multiply_symmetric(work, b, k, out);
  }

  static void transpose(const V* x, int k, V* out) {
    for (int i = 0; i < k; ++i) {
      for (int j = 0; j < k; ++j) out[j * k + i] = x[i * k + j];
    }
  }

  /// X ← its Cholesky factor, from the lower triangle; zero above. A lane whose matrix is not
  /// positive definite turns NaN.
  static void cholesky(V* x, int k) {
    for (int j = 0; j < k; ++j) {
      const V* pivot_row = x + j * k;
      V diagonal = x[j * k + j];
      V inner[1][1];
      multiply_tile<1, 1>(pivot_row, k, pivot_row, k, j, inner);
      diagonal = O::sqrt(diagonal - inner[0][0]);
      const V inverse = 1.0 / diagonal;
      int i = j + 1;
      for (; i + 4 <= k; i += 4) eliminate<4>(x, i, j, k, inverse);
      for (; i < k; ++i) eliminate<1>(x, i, j, k, inverse);
      x[j * k + j] = diagonal;
      for (int above = j + 1; above < k; ++above) x[j * k + above] = V{};
    }
  }

  /// out = X u for a window of `rows` rows and as many columns.
  static void multiply_vector(const V* x, int stride, const V* u, int rows, V* out) {
    int i = 0;
    for (; i + 4 <= rows; i += 4) {
      V acc[4][1];
      multiply_tile<4, 1>(x + i * stride, stride, u, 0, rows, acc);
      for (int a = 0; a < 4; ++a) out[i + a] = acc[a][0];
    }
    for (; i < rows; ++i) {
      V acc[1][1];
      multiply_tile<1, 1>(x + i * stride, stride, u, 0, rows, acc);
      out[i] = acc[0][0];
    }
  }

 private:
  template <int MR>
  static CVXLAYER_INLINE void eliminate(V* x, int i, int j, int k, V inverse) {
    V acc[MR][1];
    multiply_tile<MR, 1>(x + i * k, k, x + j * k, k, j, acc);
    for (int a = 0; a < MR; ++a) x[(i + a) * k + j] = (x[(i + a) * k + j] - acc[a][0]) * inverse;
  }

  template <bool symmetric>
  static void strips(const V* x, const V* y, int k, V* out) {
    int j = 0;
    for (; j + kTileColumns <= k; j += kTileColumns) {
      strip<kTileColumns, symmetric>(x, y, k, j, out);
    }
    switch (k - j) {
      case 3:
        return strip<3, symmetric>(x, y, k, j, out);
      case 2:
        return strip<2, symmetric>(x, y, k, j, out);
      case 1:
        return strip<1, symmetric>(x, y, k, j, out);
      default:
        return;
    }
  }

  template <int NR, bool symmetric>
  static void strip(const V* x, const V* y, int k, int j, V* out) {
    int i = symmetric ? j : 0;
    for (; i + 4 <= k; i += 4) tile<4, NR, symmetric>(x, y, k, i, j, out);
    switch (k - i) {
      case 3:
        return tile<3, NR, symmetric>(x, y, k, i, j, out);
      case 2:
        return tile<2, NR, symmetric>(x, y, k, i, j, out);
      case 1:
        return tile<1, NR, symmetric>(x, y, k, i, j, out);
      default:
        return;
    }
  }

  template <int MR, int NR, bool symmetric>
  static CVXLAYER_INLINE void tile(const V* x, const V* y, int k, int i, int j, V* out) {
    V acc[MR][NR];
    multiply_tile<MR, NR>(x + i * k, k, y + j * k, k, k, acc);
    for (int a = 0; a < MR; ++a) {
      for (int b = 0; b < NR; ++b) {
        out[(i + a) * k + j + b] = acc[a][b];
        if constexpr (symmetric) out[(j + b) * k + i + a] = acc[a][b];
      }
    }
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
