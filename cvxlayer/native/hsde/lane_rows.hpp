// SPDX-License-Identifier: Apache-2.0
//
// Between the caller's arrays, one row per instance, and lanes: W rows at a time, transposed in
// squares where the numbers of a row lie side by side.
#pragma once

#include "../linalg/transpose.hpp"
#include "instances.hpp"

namespace cvxlayer::CVXLAYER_ISA {

/// The rows that fill the lanes: first, …, first + count − 1; spare lanes repeat the first.
template <int W>
struct LaneRows {
  long row[W];

  LaneRows() = default;
  LaneRows(long first, int count) {
    for (int lane = 0; lane < W; ++lane) row[lane] = first + (lane < count ? lane : 0);
  }
};

/// take(k, value) for k < length: entry k of the row of each lane. Some are taken twice.
template <class L, class Take>
CVXLAYER_INLINE void load_rows(const Rows<const double>& rows, const LaneRows<L::width>& lanes,
                               int length, const Take& take) {
  using V = typename L::V;
  constexpr int W = L::width;
  if (rows.is_shared() || W == 1) {
    const double* from = rows.start + lanes.row[0] * rows.row_stride;
    for (int k = 0; k < length; ++k) take(k, Ops<L>::splat(from[k * rows.stride]));
    return;
  }
  if constexpr (W > 1) {
    const double* from[W];
    for (int r = 0; r < W; ++r) from[r] = rows.start + lanes.row[r] * rows.row_stride;
    if (rows.stride != 1 || length < W) {
      for (int k = 0; k < length; ++k) {
        take(k, Ops<L>::gather([&](int r) { return from[r][k * rows.stride]; }));
      }
      return;
    }
    for (int begin = 0; begin < length; begin += W) {
      // What is left is the end of a square that overlaps the last one.
      const int k = begin + W <= length ? begin : length - W;
      V square[W];
#pragma GCC unroll 8
      for (int r = 0; r < W; ++r) {
        square[r] = *reinterpret_cast<const typename L::Unaligned*>(from[r] + k);
      }
      transpose<L>(square);
#pragma GCC unroll 8
      for (int r = 0; r < W; ++r) take(k + r, square[r]);
    }
  }
}

/// Write give(k) for k < length into the rows first, …, first + count − 1. Some are asked for
/// twice.
template <class L, class Give>
CVXLAYER_INLINE void store_rows(const Rows<double>& rows, long first, int count, int length,
                                const Give& give) {
  using V = typename L::V;
  constexpr int W = L::width;
  if constexpr (W > 1) {
    if (rows.stride == 1 && length >= W) {
      // Spare lanes write where the first one does, before it.
      const LaneRows<W> lanes(first, count);
      double* to[W];
      for (int r = 0; r < W; ++r) to[r] = rows.start + lanes.row[r] * rows.row_stride;
      for (int begin = 0; begin < length; begin += W) {
        const int k = begin + W <= length ? begin : length - W;
        V square[W];
#pragma GCC unroll 8
        for (int r = 0; r < W; ++r) square[r] = give(k + r);
        transpose<L>(square);
#pragma GCC unroll 8
        for (int r = W - 1; r >= 0; --r) {
          *reinterpret_cast<typename L::Unaligned*>(to[r] + k) = square[r];
        }
      }
      return;
    }
  }
  double* to = rows.start + first * rows.row_stride;
  for (int k = 0; k < length; ++k) {
    const V value = give(k);
    for (int r = 0; r < count; ++r) {
      to[r * rows.row_stride + k * rows.stride] = Ops<L>::get(value, r);
    }
  }
}

}  // namespace cvxlayer::CVXLAYER_ISA
