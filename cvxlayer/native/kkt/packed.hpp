// SPDX-License-Identifier: Apache-2.0
//
// Panels of a single instance. It has no lanes to fill, so its vectors run along the rows of a
// panel, which is copied for that: chunks of kWide rows, each column by column.
#pragma once

#include "../linalg/transpose.hpp"
#include "../linalg/wide.hpp"

namespace cvxlayer::CVXLAYER_ISA {

constexpr int kStrip = 4;  // columns updated at a time
typedef double StripEntries __attribute__((vector_size(8 * kStrip), aligned(8), may_alias));

struct PackedPanel {
  double* start;
  int width;  // columns; a chunk holds kWide times as many numbers

  static long size(int num_rows, int width) {
    return static_cast<long>((num_rows + kWide - 1) / kWide) * kWide * width;
  }
  CVXLAYER_INLINE double& at(int i, int k) const {
    return start[static_cast<long>(i - i % kWide) * width + static_cast<long>(k) * kWide +
                 i % kWide];
  }
  CVXLAYER_INLINE Wide& column(int i, int k) const {
    return *reinterpret_cast<Wide*>(start + static_cast<long>(i) * width +
                                    static_cast<long>(k) * kWide);
  }

  /// Copy a row-major panel of leading dimension `lead` in (`packs`) or out.
  template <bool packs, class Row>
  void copy(Row* rows, int num_rows, long lead) const {
    int i = 0;
    for (; i + kWide <= num_rows; i += kWide, rows += kWide * lead) {
      int k = 0;
      for (; k + kWide <= width; k += kWide) {
        Wide square[kWide];
#pragma GCC unroll 8
        for (int r = 0; r < kWide; ++r) {
          square[r] = packs ? *reinterpret_cast<const WideUnaligned*>(rows + r * lead + k)
                            : column(i, k + r);
        }
        transpose<Lanes<kWide>>(square);
#pragma GCC unroll 8
        for (int r = 0; r < kWide; ++r) {
          if constexpr (packs) {
            column(i, k + r) = square[r];
          } else {
            *reinterpret_cast<WideUnaligned*>(rows + r * lead + k) = square[r];
          }
        }
      }
      copy_entries<packs>(rows, i, i + kWide, k, lead);
    }
    copy_entries<packs>(rows, i, num_rows, 0, lead);
  }

 private:
  /// Columns from `first` on of rows begin, …, end − 1 of one chunk.
  template <bool packs, class Row>
  CVXLAYER_INLINE void copy_entries(Row* rows, int begin, int end, int first, long lead) const {
    for (int i = begin; i < end; ++i, rows += lead) {
      for (int k = first; k < width; ++k) {
        if constexpr (packs) {
          at(i, k) = rows[k];
        } else {
          rows[k] = at(i, k);
        }
      }
    }
  }
};

/// sum[c][j] = Σ_k l_k · u_kj over C chunks of rows from row i, a multiple of kWide; `u` holds
/// kStrip numbers for each k.
template <int C, int NR>
CVXLAYER_INLINE void multiply_chunks(const PackedPanel& l, int i, const double* u, int depth,
                                     Wide (&sum)[C][NR]) {
#pragma GCC unroll 4
  for (int c = 0; c < C; ++c) {
#pragma GCC unroll 4
    for (int j = 0; j < NR; ++j) sum[c][j] = Wide{};
  }
  for (int k = 0; k < depth; ++k) {
    Wide rows[C];
#pragma GCC unroll 4
    for (int c = 0; c < C; ++c) rows[c] = l.column(i + c * kWide, k);
#pragma GCC unroll 4
    for (int j = 0; j < NR; ++j) {
      const double right = u[k * kStrip + j];
#pragma GCC unroll 4
      for (int c = 0; c < C; ++c) sum[c][j] += rows[c] * right;
    }
  }
}

/// Columns first, …, first + NR − 1 of the panel itself, rows from i on, lose their product
/// with the columns before.
template <int NR>
struct OwnColumns {
  const PackedPanel& panel;
  int first;

  template <int C>
  CVXLAYER_INLINE void subtract(const Wide (&sum)[C][NR], int i) const {
    for (int c = 0; c < C; ++c) {
      for (int j = 0; j < NR; ++j) panel.column(i + c * kWide, first + j) -= sum[c][j];
    }
  }
};

/// Entry (i, j) of the update goes to target[row[i] + column[j]], for begin ≤ i < end.
template <int NR>
struct OtherPanel {
  double* target;
  const long* row;
  const int* column;
  int begin, end;

  template <int C>
  CVXLAYER_INLINE void subtract(const Wide (&sum)[C][NR], int i) const {
    alignas(64) double value[NR][C * kWide];
    for (int j = 0; j < NR; ++j) {
      for (int c = 0; c < C; ++c) *reinterpret_cast<Wide*>(&value[j][c * kWide]) = sum[c][j];
    }
    const int first = begin > i ? begin : i;
    const int last = end < i + C * kWide ? end : i + C * kWide;
    for (int r = first; r < last; ++r) {
      double* entries = target + row[r];
#pragma GCC unroll 4
      for (int j = 0; j < NR; ++j) entries[column[j]] -= value[j][r - i];
    }
  }
};

template <int C, int NR, class Target>
CVXLAYER_INLINE void subtract_chunks(const Target& target, const PackedPanel& l, int i,
                                     const double* u, int depth) {
  Wide sum[C][NR];
  multiply_chunks<C, NR>(l, i, u, depth, sum);
  target.subtract(sum, i);
}

/// One strip of an update, from the chunk of row `begin` to row `end`.
template <int NR, class Target>
void subtract_packed(const Target& target, const PackedPanel& l, int begin, int end,
                     const double* u, int depth) {
  int i = begin - begin % kWide;
  for (; i + 2 * kWide < end; i += 3 * kWide) subtract_chunks<3, NR>(target, l, i, u, depth);
  if (i + kWide < end) {
    subtract_chunks<2, NR>(target, l, i, u, depth);
  } else if (i < end) {
    subtract_chunks<1, NR>(target, l, i, u, depth);
  }
}

}  // namespace cvxlayer::CVXLAYER_ISA
