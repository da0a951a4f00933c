// SPDX-License-Identifier: Apache-2.0
//
// What a large second-order cone tells the KKT matrix, see kkt/border.hpp.
#pragma once

#include "../linalg/lanes.hpp"

namespace cvxlayer::CVXLAYER_ISA {

/// The numbers of one cone. With r the right-hand side of its rows, ξ their solution and t that
/// of the stiff border, its unknowns are
/// ξ + e (keep_stiff eᵀξ + give_stiff t) + f (keep_soft fᵀξ + take_soft fᵀr).
template <class V>
struct BorderNumbers {
  V diagonal, inverse, couple;              // h̃, 1/h̃ and g
  V pivot_stiff, couple_stiff, side_stiff;  // −pivot; factors of eᵀA and of eᵀr
  V pivot_soft, couple_soft, side_soft;     // pivot; factors of fᵀA and of fᵀr
  V keep_stiff, give_stiff, keep_soft, take_soft;
};

}  // namespace cvxlayer::CVXLAYER_ISA
