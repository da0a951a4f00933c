// SPDX-License-Identifier: Apache-2.0
//
// How far one instance of several is from optimal.
#pragma once

#include "../linalg/lanes.hpp"

namespace cvxlayer::CVXLAYER_ISA {

// Not __builtin_fmax, which calls the C library.
CVXLAYER_INLINE double larger(double a, double b) { return a < b ? b : a; }

/// Residuals of one instance in the user's units.
struct LaneResiduals {
  double primal, dual, gap;
  bool meet_tolerance;
};

}  // namespace cvxlayer::CVXLAYER_ISA
