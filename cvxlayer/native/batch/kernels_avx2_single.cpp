// SPDX-License-Identifier: Apache-2.0
#define CVXLAYER_ISA isa_avx2_single
#define CVXLAYER_VECTOR_BYTES 32
#include "lane_kernels.hpp"

namespace cvxlayer {

extern const Kernels kKernels_avx2_1 =
    isa_avx2_single::LaneKernels<isa_avx2_single::Lanes<1>>::table("avx2");

}  // namespace cvxlayer
