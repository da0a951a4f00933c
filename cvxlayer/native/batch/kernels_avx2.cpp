// SPDX-License-Identifier: Apache-2.0
#define CVXLAYER_ISA isa_avx2
#define CVXLAYER_VECTOR_BYTES 32
#include "lane_kernels.hpp"

namespace cvxlayer {

extern const Kernels kKernels_avx2_4 = isa_avx2::LaneKernels<isa_avx2::Lanes<4>>::table("avx2");

}  // namespace cvxlayer
