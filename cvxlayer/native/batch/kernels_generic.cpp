// SPDX-License-Identifier: Apache-2.0
#define CVXLAYER_ISA isa_generic
#define CVXLAYER_VECTOR_BYTES 16
#include "lane_kernels.hpp"

namespace cvxlayer {

extern const Kernels kKernels_generic_2 =
    isa_generic::LaneKernels<isa_generic::Lanes<2>>::table("generic");

}  // namespace cvxlayer
