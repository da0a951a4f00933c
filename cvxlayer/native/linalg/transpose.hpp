// SPDX-License-Identifier: Apache-2.0
//
// Squares of W × W numbers, transposed in registers.
#pragma once

#include "lanes.hpp"

namespace cvxlayer::CVXLAYER_ISA {

/// Swap the off-diagonal squares of side `step` inside each square of side 2 · step.
template <class L, int step>
CVXLAYER_INLINE void transpose_step(typename L::V (&row)[L::width]) {
  typename L::M low, high;
  for (int k = 0; k < L::width; ++k) {
    const bool right = (k & step) != 0;
    low[k] = right ? L::width + k - step : k;
    high[k] = right ? L::width + k : k + step;
  }
#pragma GCC unroll 8
  for (int i = 0; i < L::width; ++i) {
    if ((i & step) != 0) continue;
    const typename L::V above = row[i], below = row[i + step];
    row[i] = __builtin_shuffle(above, below, low);
    row[i + step] = __builtin_shuffle(above, below, high);
  }
}

template <class L>
CVXLAYER_INLINE void transpose(typename L::V (&row)[L::width]) {
  if constexpr (L::width >= 8) transpose_step<L, 4>(row);
  if constexpr (L::width >= 4) transpose_step<L, 2>(row);
  transpose_step<L, 1>(row);
}

}  // namespace cvxlayer::CVXLAYER_ISA
