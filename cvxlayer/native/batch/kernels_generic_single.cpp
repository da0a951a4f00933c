// SPDX-License-Identifier: Apache-2.0
#define CVXLAYER_ISA isa_generic_single
#define CVXLAYER_VECTOR_BYTES 16
#include "lane_kernels.hpp"

namespace cvxlayer {

extern const Kernels kKernels_generic_1 =
    isa_generic_single::LaneKernels<isa_generic_single::Lanes<1>>::table("generic");

}  // namespace cvxlayer
