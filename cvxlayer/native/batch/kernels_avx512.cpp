// SPDX-License-Identifier: Apache-2.0
#define CVXLAYER_ISA isa_avx512
#define CVXLAYER_VECTOR_BYTES 64
#include "lane_kernels.hpp"

namespace cvxlayer {

extern const Kernels kKernels_avx512_8 =
    isa_avx512::LaneKernels<isa_avx512::Lanes<8>>::table("avx512");
extern const Kernels kKernels_avx512_4 =
    isa_avx512::LaneKernels<isa_avx512::Lanes<4>>::table("avx512");

}  // namespace cvxlayer
