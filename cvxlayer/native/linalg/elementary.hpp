// SPDX-License-Identifier: Apache-2.0
//
// Logarithm and exponential in lanes, to about one unit in the last place, written out so that
// they use the vectors of the instruction set; a single lane calls the C library.
#pragma once

#include "lanes.hpp"

namespace cvxlayer::CVXLAYER_ISA {

template <class L>
struct Elementary {
  using V = typename L::V;
  using M = typename L::M;
  using O = Ops<L>;

  /// log x; −∞ at 0, NaN below.
  static CVXLAYER_INLINE V log(V x) {
    if constexpr (L::width == 1) {
      return __builtin_log(x);
    } else {
      return log_in_lanes(x);
    }
  }

  /// log(1 + x) for x > −1, with all digits near 0.
  static CVXLAYER_INLINE V log1p(V x) {
    if constexpr (L::width == 1) {
      return __builtin_log1p(x);
    } else {
      // What rounding took from 1 + x is put back to first order.
      const V sum = 1.0 + x;
      const V lost = O::select(O::gt(x, O::splat(1.0)), 1.0 - (sum - x), x - (sum - 1.0));
      return log_in_lanes(sum) + lost / sum;
    }
  }

  /// eˣ; 0 below −708, where results are denormal.
  static CVXLAYER_INLINE V exp(V x) {
    if constexpr (L::width == 1) {
      return __builtin_exp(x);
    } else {
      return exp_in_lanes(x);
    }
  }

 private:
  static constexpr double kLn2High = 0x1.62e42feep-1, kLn2Low = 0x1.a39ef35793c76p-33;

  /// x = 2ᵏ m with m in [√½, √2); with f = m − 1 and s = f/(2 + f),
  /// log m = log((1 + s)/(1 − s)) = f − s (f − R), R = 2s²/3 + 2s⁴/5 + ….
  static CVXLAYER_INLINE V log_in_lanes(V x) {
    typedef std::uint64_t U __attribute__((vector_size(8 * L::width)));
    constexpr std::uint64_t kRootHalf = 0x3FE6A09E667F3BCD, kBias = 1024ull << 52;
    const M is_denormal = O::lt(x, O::splat(0x1p-1022));
    const U bits = (U)O::select(is_denormal, x * 0x1p54, x);
    const U exponent = (bits - kRootHalf + kBias) >> 52;
    const U mantissa = bits - (exponent << 52) + kBias;
    // An integer below 2⁵² is the difference of two doubles.
    V k = (V)(exponent | 0x4330000000000000ull) - (0x1p52 + 1024.0);
    k = O::select(is_denormal, k - 54.0, k);
    const V f = (V)mantissa - 1.0;
    const V s = f / (2.0 + f), z = s * s;
    V R = O::splat(2.0 / 21.0);
    for (int i = 19; i >= 3; i -= 2) R = R * z + 2.0 / i;
    R *= z;
    const V result = k * kLn2High + (f - (s * (f - R) - k * kLn2Low));
    const V infinity = O::splat(__builtin_inf());
    const V beyond = O::select(O::ge(x, V{}), O::select(O::gt(x, V{}), x, -infinity), infinity - x);
    const M is_ordinary = O::gt(x, V{}) & O::lt(x, infinity);
    return O::select(is_ordinary, result, O::select(O::lt(x, V{}), beyond - beyond, beyond));
  }

  /// x = k log 2 + r with |r| ≤ ½ log 2, and a Taylor polynomial in r.
  static CVXLAYER_INLINE V exp_in_lanes(V x) {
    constexpr double kInverseLn2 = 0x1.71547652b82fep0, kMagic = 0x1.8p52;
    constexpr double kFactorials[] = {6227020800.0, 479001600.0, 39916800.0, 3628800.0,
                                      362880.0,     40320.0,     5040.0,     720.0,
                                      120.0,        24.0,        6.0,        2.0};
    const V clamped = O::min(O::max(x, O::splat(-708.0)), O::splat(710.0));
    // Adding 1.5·2⁵² rounds to an integer, which then stands in the low bits.
    const V rounded = clamped * kInverseLn2 + kMagic;
    const V k = rounded - kMagic;
    const V r = (clamped - k * kLn2High) - k * kLn2Low;
    V sum = O::splat(1.0 / kFactorials[0]);
    for (int i = 1; i < 12; ++i) sum = sum * r + 1.0 / kFactorials[i];
    sum = sum * r * r + r + 1.0;
    // 2ᵏ⁻¹, as 2ᵏ may be beyond the largest double.
    const V half = (V)(((M)rounded << 52) + static_cast<std::int64_t>(1022ull << 52));
    const V result = sum * half * 2.0;
    const V low = O::select(O::lt(x, O::splat(-708.0)), V{}, result);
    const V high = O::select(O::gt(x, O::splat(709.782712893384)), O::splat(__builtin_inf()), low);
    return O::select(O::is_nan(x), x, high);
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
