// SPDX-License-Identifier: Apache-2.0
#define CVXLAYER_ISA isa_generic
#include "lane_kernels.hpp"

namespace cvxlayer {

extern const Kernels kKernels_generic_2 = isa_generic::LaneKernels<isa_generic::Lanes<2>>::table("generic");
extern const Kernels kKernels_generic_1 = isa_generic::LaneKernels<isa_generic::Lanes<1>>::table("generic");

}  // namespace cvxlayer
