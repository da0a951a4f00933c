// SPDX-License-Identifier: Apache-2.0
#include "kernels.hpp"

namespace cvxlayer {

#if defined(__x86_64__)
extern const Kernels kKernels_avx512_8, kKernels_avx512_4, kKernels_avx512_1;
extern const Kernels kKernels_avx2_4, kKernels_avx2_1;
#endif
extern const Kernels kKernels_generic_2, kKernels_generic_1;

const Kernels* const* available_kernels(int* count) {
#if defined(__x86_64__)
  static const Kernels* const avx512[] = {&kKernels_avx512_1, &kKernels_avx512_4,
                                          &kKernels_avx512_8};
  static const Kernels* const avx2[] = {&kKernels_avx2_1, &kKernels_avx2_4};
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512cd")) {
    *count = 3;
    return avx512;
  }
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
      __builtin_cpu_supports("bmi2")) {
    *count = 2;
    return avx2;
  }
#endif
  static const Kernels* const generic[] = {&kKernels_generic_1, &kKernels_generic_2};
  *count = 2;
  return generic;
}

}  // namespace cvxlayer
