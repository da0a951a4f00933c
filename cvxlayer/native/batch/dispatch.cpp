// SPDX-License-Identifier: Apache-2.0
#include <cstdlib>
#include <cstring>

#include "kernels.hpp"

namespace cvxlayer {

#if defined(CVXLAYER_HAS_AVX512)
extern const Kernels kKernels_avx512_8, kKernels_avx512_4, kKernels_avx512_1;
#endif
#if defined(CVXLAYER_HAS_AVX2)
extern const Kernels kKernels_avx2_4, kKernels_avx2_1;
#endif
extern const Kernels kKernels_generic_2, kKernels_generic_1;

namespace {

/// CVXLAYER_INSTRUCTION_SET lowers the choice, to test on one machine what others run.
bool is_allowed(const char* isa) {
  const char* wanted = std::getenv("CVXLAYER_INSTRUCTION_SET");
  return wanted == nullptr || std::strcmp(wanted, isa) == 0;
}

#if defined(CVXLAYER_HAS_AVX512)
bool has_avx512() {
  return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512cd");
}
#endif

#if defined(CVXLAYER_HAS_AVX2)
bool has_avx2() {
  return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") &&
         __builtin_cpu_supports("bmi2");
}
#endif

struct Choice {
  const Kernels* const* kernels;
  int count;
};

Choice choose_kernels() {
#if defined(CVXLAYER_HAS_AVX512)
  static const Kernels* const avx512[] = {&kKernels_avx512_1, &kKernels_avx512_4,
                                          &kKernels_avx512_8};
  if (has_avx512() && is_allowed("avx512")) return {avx512, 3};
#endif
#if defined(CVXLAYER_HAS_AVX2)
  static const Kernels* const avx2[] = {&kKernels_avx2_1, &kKernels_avx2_4};
  if (has_avx2() && is_allowed("avx2")) return {avx2, 2};
#endif
  static const Kernels* const generic[] = {&kKernels_generic_1, &kKernels_generic_2};
  return {generic, 2};
}

}  // namespace

const Kernels* const* available_kernels(int* count) {
  static const Choice choice = choose_kernels();
  *count = choice.count;
  return choice.kernels;
}

}  // namespace cvxlayer
