// SPDX-License-Identifier: Apache-2.0
#define CVXLAYER_ISA isa_avx2
#include "lane_kernels.hpp"

namespace cvxlayer {

extern const Kernels kKernels_avx2_4 = isa_avx2::LaneKernels<isa_avx2::Lanes<4>>::table("avx2");
extern const Kernels kKernels_avx2_1 = isa_avx2::LaneKernels<isa_avx2::Lanes<1>>::table("avx2");

}  // namespace cvxlayer
