// SPDX-License-Identifier: Apache-2.0
//
// Lane types: one `V` holds the same scalar of `W` instances, and all engine arithmetic is
// written on `V`. Included only by the translation units of batch/, each compiled for one
// instruction set inside its own namespace CVXLAYER_ISA, so that the linker can never hand
// code for a wider set to a narrower machine. For the same reason lane code uses no std
// templates.
#pragma once

#ifndef CVXLAYER_ISA
#error "lane headers are compiled per instruction set; define CVXLAYER_ISA"
#endif

#include <cstddef>
#include <cstdint>

#ifdef __AVX__
#include <immintrin.h>
#endif

#define CVXLAYER_INLINE inline __attribute__((always_inline))

namespace cvxlayer::CVXLAYER_ISA {

template <int W>
struct Lanes {
  typedef double V __attribute__((vector_size(8 * W)));
  typedef std::int64_t M __attribute__((vector_size(8 * W)));  // 0 or all ones per lane
  typedef double Unaligned __attribute__((vector_size(8 * W), aligned(8), may_alias));
  static constexpr int width = W;
};

// GCC has no arithmetic mode for one-element vectors; the scalar engine is plain doubles.
template <>
struct Lanes<1> {
  typedef double V;
  typedef std::int64_t M;
  static constexpr int width = 1;
};

CVXLAYER_INLINE double clamp(double value, double least, double most) {
  return value < least ? least : value > most ? most : value;
}

template <class L>
struct Ops {
  using V = typename L::V;
  using M = typename L::M;
  static constexpr int W = L::width;

  static CVXLAYER_INLINE V splat(double value) {
    if constexpr (W == 1) {
      return value;
    } else {
      return V{} + value;
    }
  }
  /// entry(lane) in every lane; in registers, where numbers that are `set` pass through memory.
  template <class Entry>
  static CVXLAYER_INLINE V gather(const Entry& entry) {
    if constexpr (W == 1) return entry(0);
    if constexpr (W == 2) return V{entry(0), entry(1)};
    if constexpr (W == 4) return V{entry(0), entry(1), entry(2), entry(3)};
    if constexpr (W == 8) {
      return V{entry(0), entry(1), entry(2), entry(3), entry(4), entry(5), entry(6), entry(7)};
    }
  }
  static CVXLAYER_INLINE double get(const V& v, int lane) {
    return reinterpret_cast<const double*>(&v)[lane];
  }
  static CVXLAYER_INLINE void set(V& v, int lane, double value) {
    reinterpret_cast<double*>(&v)[lane] = value;
  }
  static CVXLAYER_INLINE bool get_mask(const M& m, int lane) {
    return reinterpret_cast<const std::int64_t*>(&m)[lane] != 0;
  }
  static CVXLAYER_INLINE void set_mask(M& m, int lane, bool value) {
    reinterpret_cast<std::int64_t*>(&m)[lane] = value ? -1 : 0;
  }
  static CVXLAYER_INLINE M none() { return M{}; }
  static CVXLAYER_INLINE M lt(V a, V b) {
    if constexpr (W == 1) {
      return a < b ? -1 : 0;
    } else {
      return a < b;
    }
  }
  static CVXLAYER_INLINE M le(V a, V b) {
    if constexpr (W == 1) {
      return a <= b ? -1 : 0;
    } else {
      return a <= b;
    }
  }
  static CVXLAYER_INLINE M gt(V a, V b) { return lt(b, a); }
  static CVXLAYER_INLINE M ge(V a, V b) { return le(b, a); }
  static CVXLAYER_INLINE V select(M m, V a, V b) { return m ? a : b; }
  static CVXLAYER_INLINE V max(V a, V b) { return select(lt(a, b), b, a); }
  static CVXLAYER_INLINE V min(V a, V b) { return select(lt(b, a), b, a); }
  static CVXLAYER_INLINE V abs(V a) {
    if constexpr (W == 1) {
      return __builtin_fabs(a);
    } else {
      return (V)((M)a & 0x7fffffffffffffff);
    }
  }
  static CVXLAYER_INLINE V sqrt(V a) {
    if constexpr (W == 1) {
      return __builtin_sqrt(a);
    } else {
      V r;
      for (int i = 0; i < W; ++i) r[i] = __builtin_sqrt(a[i]);
      return r;
    }
  }
  /// Whether any lane is set. Lane by lane, compilers take a dozen instructions for it.
  static CVXLAYER_INLINE bool any(M m) {
#ifdef __AVX512F__
    if constexpr (W == 8) return _mm512_test_epi64_mask((__m512i)m, (__m512i)m) != 0;
#endif
#ifdef __AVX__
    if constexpr (W == 4) return _mm256_testz_si256((__m256i)m, (__m256i)m) == 0;
#endif
    bool r = false;
    for (int i = 0; i < W; ++i) r |= get_mask(m, i);
    return r;
  }
  static CVXLAYER_INLINE M is_nan(V a) { return ~le(a, a); }
  /// True where the value is neither NaN nor infinite.
  static CVXLAYER_INLINE M is_finite(V a) { return le(abs(a), splat(1.7976931348623157e308)); }
};

}  // namespace cvxlayer::CVXLAYER_ISA
