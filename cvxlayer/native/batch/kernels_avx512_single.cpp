// SPDX-License-Identifier: Apache-2.0
#define CVXLAYER_ISA isa_avx512_single
#define CVXLAYER_VECTOR_BYTES 64
#include "lane_kernels.hpp"

namespace cvxlayer {

extern const Kernels kKernels_avx512_1 =
    isa_avx512_single::LaneKernels<isa_avx512_single::Lanes<1>>::table("avx512");

}  // namespace cvxlayer
