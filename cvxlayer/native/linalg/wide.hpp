// SPDX-License-Identifier: Apache-2.0
//
// Whole vectors of the numbers of a single instance, which has no lanes to fill them.
#pragma once

#include "lanes.hpp"

namespace cvxlayer::CVXLAYER_ISA {

constexpr int kWide = CVXLAYER_VECTOR_BYTES / 8;
typedef double Wide __attribute__((vector_size(CVXLAYER_VECTOR_BYTES)));
typedef double WideUnaligned
    __attribute__((vector_size(CVXLAYER_VECTOR_BYTES), aligned(8), may_alias));

}  // namespace cvxlayer::CVXLAYER_ISA
