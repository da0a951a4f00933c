// SPDX-License-Identifier: Apache-2.0
//
// The power cone K = {(x, y, z) : x^α y^ᾱ ≥ |z|, x, y ≥ 0} in lanes, ᾱ = 1 − α; the faces are
// those of three_dimensional.hpp, the projection is specified in cvxlayer/cones/power.py.
//
//     f*(y) = −log ψ − ᾱ log y₀ − α log y₁,   ψ = φ − y₂²,   φ = (y₀/α)^2α (y₁/ᾱ)^2ᾱ
#pragma once

#include "three_dimensional.hpp"

namespace cvxlayer::CVXLAYER_ISA {

template <class L>
struct Power {
  using V = typename L::V;
  using M = typename L::M;
  using O = Ops<L>;
  using E = Elementary<L>;

  // ------------------------------------------------------------------------------ barrier
  static void unit(double alpha, double* u) {
    u[0] = __builtin_sqrt(1.0 + alpha);
    u[1] = __builtin_sqrt(2.0 - alpha);
    u[2] = 0.0;
  }

  static constexpr double weight(double alpha, int row) {
    return row == 0 ? 1.0 - alpha : row == 1 ? alpha : 0.0;
  }

  static constexpr int sign[3] = {1, 1, 0}, dual_sign[3] = {1, 1, 0};

  static CVXLAYER_INLINE V margin(double alpha, const V* s, const V* ds, V& slope) {
    const V first = 1.0 / s[0], second = 1.0 / s[1];
    const V mean = inner_mean(alpha, s[0] * second, s[1]);
    slope = mean * (alpha * (ds[0] * first) + (1.0 - alpha) * (ds[1] * second)) -
            O::select(O::lt(s[2], V{}), -ds[2], ds[2]);
    return mean - O::abs(s[2]);
  }

  // K* is K with x/α and y/ᾱ in the place of x and y.
  static CVXLAYER_INLINE V dual_margin(double alpha, const V* y, const V* dy, V& slope) {
    const double first = 1.0 / alpha, second = 1.0 / (1.0 - alpha);
    const V u[3] = {y[0] * first, y[1] * second, y[2]};
    const V du[3] = {dy[0] * first, dy[1] * second, dy[2]};
    return margin(alpha, u, du, slope);
  }

  /// ∇φ = φ a with a = (2α/y₀, 2ᾱ/y₁, 0), ∇²φ = φ (aaᵀ − diag(a/y)).
  static void expand(double alpha, const V* y, BarrierTerms<L>& out) {
    for (int i = 0; i < 3; ++i) out.point[i] = y[i];
    out.inverse[0] = 1.0 / y[0];
    out.inverse[1] = 1.0 / y[1];
    const double beta = 1.0 - alpha;
    const V mean = inner_mean(alpha, y[0] * (beta / alpha) * out.inverse[1], y[1] * (1.0 / beta));
    out.inverse[2] = V{};
    out.level = mean;
    out.phi = mean * mean;
    out.psi = (mean - O::abs(y[2])) * (mean + O::abs(y[2]));
    const V a0 = 2.0 * alpha * out.inverse[0], a1 = 2.0 * (1.0 - alpha) * out.inverse[1];
    out.first[0] = out.phi * a0;
    out.first[1] = out.phi * a1;
    out.first[2] = -2.0 * y[2];
    out.second = Symmetric3<L>{};
    out.second.entry[0] = out.phi * a0 * (a0 - out.inverse[0]);
    out.second.entry[1] = out.phi * a0 * a1;
    out.second.entry[2] = out.phi * a1 * (a1 - out.inverse[1]);
    out.second.entry[5] = O::splat(-2.0);
  }

  /// ∇²f* = ggᵀ/g₀² + rest, where the rest is positive semidefinite and of moderate size near the
  /// boundary. With m = √φ, concave, and b = (α/y₀, ᾱ/y₁, 0), −log ψ = −log(m − |y₂|) −
  /// log(m + |y₂|), ∇m = mb and ∇²m = m (bbᵀ − diag(b/y)); g₀ = m − |y₂| and g is its gradient.
  static CVXLAYER_INLINE void split(double alpha, const BarrierTerms<L>& terms, V* g, V& size,
                                    Symmetric3<L>& rest) {
    const V mean = O::sqrt(terms.phi), height = O::abs(terms.point[2]), far = mean + height;
    const V one = O::splat(1.0), sign = O::select(O::lt(terms.point[2], V{}), -one, one);
    const V i0 = terms.inverse[0], i1 = terms.inverse[1];
    const V b0 = alpha * i0, b1 = (1.0 - alpha) * i1, inverse = 1.0 / far;
    size = terms.psi * inverse;
    g[0] = mean * b0;
    g[1] = mean * b1;
    g[2] = sign * inverse;
    rest = Symmetric3<L>{};
    const V other[3] = {g[0] * inverse, g[1] * inverse, g[2]};
    rest.add_outer(one, other);
    g[2] = -sign;
    const V bend = mean * (1.0 / size + inverse);  // of −∇²m/m
    rest.entry[0] += bend * b0 * (i0 - b0) + (1.0 - alpha) * i0 * i0;
    rest.entry[1] -= bend * b0 * b1;
    rest.entry[2] += bend * b1 * (i1 - b1) + alpha * i1 * i1;
  }

  static CVXLAYER_INLINE void third(double alpha, const BarrierTerms<L>& terms, const V* u,
                                    const V* v, V* out) {
    const V i0 = terms.inverse[0], i1 = terms.inverse[1];
    const double c0 = 2.0 * alpha, c1 = 2.0 * (1.0 - alpha);
    const V u0 = u[0] * i0, u1 = u[1] * i1, v0 = v[0] * i0, v1 = v[1] * i1;
    const V along_u = c0 * u0 + c1 * u1, along_v = c0 * v0 + c1 * v1;
    const V both = along_u * along_v - c0 * u0 * v0 - c1 * u1 * v1;
    out[0] = terms.phi * c0 * i0 * (both - along_u * v0 - along_v * u0 + 2.0 * u0 * v0);
    out[1] = terms.phi * c1 * i1 * (both - along_u * v1 - along_v * u1 + 2.0 * u1 * v1);
    out[2] = V{};
  }

  /// With ψ/φ = 1 − e^−ν at ỹ: s₀ỹ₀ = 2α t + ᾱ, s₁ỹ₁ = 2ᾱ t + α and s₂ỹ₂ = −2(t − 1), where
  /// 1/t = 1 − e^−ν, and φ(ỹ) s₂² = 4t (t − 1) is an equation for ν.
  static void conjugate_gradient(double alpha, const V* s, V* out, InnerPoint<L>& inner) {
    const double beta = 1.0 - alpha;
    // Far inside, e^−ν vanishes as s₂² does; only their quotient counts.
    const V size = O::max(O::abs(s[2]), kSmallestShare * O::min(s[0], s[1])), inverse = 1.0 / size;
    const V first = s[0] * inverse, second = s[1] * inverse;
    const V level = alpha * E::log(first) + beta * E::log(second), mean = size * E::exp(level);
    inner = {1.0 / s[0], 1.0 / s[1], mean, mean - O::abs(s[2])};
    const V e = E::exp(-shadow(alpha, 2.0 * level)), share = 1.0 - e, t = 1.0 / share;
    out[0] = -(2.0 * alpha * t + beta) * inner.first;
    out[1] = -(2.0 * beta * t + alpha) * inner.second;
    const V last = 2.0 * (e * inverse) * t;
    out[2] = O::select(O::lt(s[2], V{}), -last, last);
  }

  static InnerPoint<L> dual_inner(const V* y, const BarrierTerms<L>& terms) {
    return {terms.inverse[0], terms.inverse[1], terms.level, terms.level - O::abs(y[2])};
  }

  /// With the ratios r₀ and r₁ of two entries after and before, r the smaller, γ the exponent of
  /// the larger and d ≥ 0 their difference, r₀^α r₁^ᾱ ≥ r (r₀ + r₁ + γd)/(r₀ + r₁ − γd).
  static CVXLAYER_INLINE M stays_inside(double alpha, const InnerPoint<L>& inner, const V* u,
                                        const V* du, V length) {
    const V first = 1.0 + length * (du[0] * inner.first);
    const V second = 1.0 + length * (du[1] * inner.second);
    const M is_first = O::lt(second, first);
    const V exponent = O::select(is_first, O::splat(alpha), O::splat(1.0 - alpha));
    const V sum = first + second, bend = exponent * O::abs(first - second);
    const V height = O::abs(u[2] + length * du[2]);
    return O::gt(inner.level * O::min(first, second) * (sum + bend), height * (sum - bend));
  }
  static CVXLAYER_INLINE M dual_stays_inside(double alpha, const InnerPoint<L>& inner, const V* u,
                                             const V* du, V length) {
    return stays_inside(alpha, inner, u, du, length);
  }

  // --------------------------------------------------------------------------- projection
  static V guess(const V* s, const V* y) { return E::log(O::abs(s[2]) / O::abs(y[2])); }

  static Spectrum3<L> spectrum(double alpha, const V* point, const V* guess) {
    // The derivative is the same on a ray; products of four entries stay within range.
    const V largest = O::max(O::max(O::abs(point[0]), O::abs(point[1])), O::abs(point[2]));
    const V inverse = O::select(O::gt(largest, V{}), 1.0 / largest, V{});
    const V v[3] = {point[0] * inverse, point[1] * inverse, point[2] * inverse};
    const double beta = 1.0 - alpha;
    Regions at;
    const Nearest u = nearest(alpha, v, guess, at);
    Spectrum3<L> result;
    set_nearest(u, point, largest, at, result.nearest);
    // Close to the polar u is tiny, and where it is lost v may as well be in the polar.
    const V reach = O::max(O::max(u.x, u.y), u.rho), scale = 1.0 / reach;
    const M is_lost = O::le(reach, V{});
    const V x = u.x * scale, y = u.y * scale, rho = u.rho * scale, q = u.q * scale * scale;
    const V one = O::splat(1.0), sign = O::select(O::lt(v[2], V{}), -one, one);
    V along[3] = {x, y, sign * rho};
    // v − u is along (−αρ/X, −ᾱρ/Y, ±1); times X Y it stays finite.
    const V normal[3] = {-alpha * rho * y, -beta * rho * x, sign * x * y};
    const V kept = dot3(normal, normal), dropped = alpha * beta * q * dot3(along, along);
    result.root = u.sigma;
    set_curved<L>(along, normal, kept, dropped, result);
    const M is_polar = at.is_polar | is_lost;
    result.is_diagonal = at.is_inside | is_polar | at.is_on_edge;
    if (!O::any(result.is_diagonal)) return result;
    V edge[3];
    edge_spectrum(alpha, v, edge);
    for (int i = 0; i < 3; ++i) {
      const V outside = O::select(is_polar, one, edge[i]);
      result.diagonal[i] = O::select(at.is_inside, V{}, outside);
    }
    return result;
  }

  static void project(double alpha, const V* v, const V* guess, V& root, V* out) {
    Regions at;
    const Nearest u = nearest(alpha, v, guess, at);
    root = u.sigma;
    set_nearest(u, v, O::splat(1.0), at, out);
  }

  static Bend3<L> bend(double alpha, const V* point) {
    const double beta = 1.0 - alpha;
    const V largest = O::max(O::max(O::abs(point[0]), O::abs(point[1])), O::abs(point[2]));
    const V inverse = O::select(O::gt(largest, V{}), 1.0 / largest, V{});
    V v[3] = {point[0] * inverse, point[1] * inverse, point[2] * inverse};
    const Regions at = regions(alpha, v);
    M is_flat = at.is_inside | at.is_polar;
    if (alpha == 0.5) {  // a second-order cone, which has no edge
      const V tiny = kTinyShare * O::max(O::abs(v[0]), O::abs(v[1]));
      v[2] = O::select(at.is_on_edge, tiny, v[2]);
    } else {
      is_flat = is_flat | at.is_on_edge;
    }
    Regions unused;
    const Nearest u = nearest(alpha, v, nullptr, unused);
    const V reach = O::max(O::max(u.x, u.y), u.rho), one = O::splat(1.0);
    const V x = u.x / reach, y = u.y / reach, z = u.rho / reach;
    const V sign = O::select(O::lt(v[2], V{}), -one, one);
    BoundaryRay<L> out = {{x, y, sign * z}, {-alpha * z * y, -beta * z * x, sign * x * y}};
    const V unit =
        O::max(O::max(O::abs(out.normal[0]), O::abs(out.normal[1])), O::abs(out.normal[2]));
    for (int i = 0; i < 3; ++i) out.normal[i] /= unit;
    const V length = O::sqrt(dot3(out.ray, out.ray)), width = O::sqrt(dot3(out.normal, out.normal));
    // X − x is αq/X, and a sum where x is negative.
    const V lost[3] = {O::select(O::gt(v[0], V{}), alpha * u.q / u.x, u.x - v[0]),
                       O::select(O::gt(v[1], V{}), beta * u.q / u.y, u.y - v[1]),
                       O::abs(v[2]) - u.rho};
    out.kept = length * reach;
    out.dropped = O::sqrt(dot3(lost, lost));
    const V quotient = width / length;
    out.kept_rate = width * quotient;
    out.dropped_rate = alpha * beta * (x / unit) * (y / unit) * (z / unit) * length / quotient;
    const V *n = out.normal, skew = O::splat(beta - alpha);
    const V turn = beta * n[1] * n[1] - alpha * n[0] * n[0] + skew * n[2] * n[2];
    const V slope = skew + 3.0 * (beta * x * x - alpha * y * y) / (length * length) -
                    3.0 * turn / (width * width);
    out.bend = -sign * length * (width / unit) * slope;
    normalize3<L>(out.ray);
    normalize3<L>(out.normal);
    Bend3<L> result = out.second_derivative(is_flat);
    for (int i = 0; i < 3; ++i) result.lead[i] *= inverse;
    result.weight *= inverse;
    return result;
  }

 private:
  // Beyond, ρ or |z| − ρ is zero, to rounding and far more.
  static constexpr double kLargestSigma = 600.0, kSmallestShare = 1e-150;
  static constexpr double kTinyShare = 1e-60;  // next to nothing, but not when multiplied
  // Closer to zero, neither is small enough for rounding to move a point to another region.
  static constexpr double kNearbySigma = 25.0;
  static constexpr double kShadowShape = 0.12;

  struct Regions {
    M is_inside, is_polar, is_on_edge;
  };
  struct Nearest {
    V x, y, rho, q;  // X, Y, ρ and q = ρ(|z|−ρ)
    V sigma;
  };

  /// a^α b^ᾱ for positive a, b.
  static CVXLAYER_INLINE V weighted_mean(double alpha, V a, V b) {
    return E::exp(alpha * E::log(a) + (1.0 - alpha) * E::log(b));
  }

  /// The same from a/b and b, inside the cone: neither is zero or infinite.
  static CVXLAYER_INLINE V inner_mean(double alpha, V ratio, V b) {
    return b * E::exp(alpha * E::log(ratio));
  }

  /// ν > 0 with ν + 2α log(1 + ar) + 2ᾱ log(1 + br) = c, a = ᾱ/2α, b = α/2ᾱ and r = 1 − e^−ν.
  /// One step of sixth order from a quotient that is right to second order at 0 and to first at
  /// infinity, and to 1.7 % between, for every α. Derivatives of the left side are sums of powers
  /// Sₖ: 1 + S₁, −S₁ − S₂, S₁ + 3S₂ + 2S₃, … (Stirling's numbers, and factorials).
  static V shadow(double alpha, V c) {
    const double beta = 1.0 - alpha, a = 0.5 * beta / alpha, b = 0.5 * alpha / beta;
    const double bend = 0.125 + 0.25 * (alpha * a * a + beta * b * b);
    const double limit = 2.0 * (alpha * __builtin_log1p(a) + beta * __builtin_log1p(b));
    const double far = kShadowShape * limit;
    const V nu = c * (0.5 + c * (bend + far + kShadowShape * c)) /
                 (1.0 + c * (bend + 2.0 * far + kShadowShape * c));
    const V e = E::exp(-nu), r = 1.0 - e, first = 1.0 + a * r, second = 1.0 + b * r;
    const V value = nu + 2.0 * alpha * E::log(first) + 2.0 * beta * E::log(second) - c;
    const V inverse = 1.0 / (first * second);
    const V p = beta * e * second * inverse, q = alpha * e * first * inverse;
    const V p1 = (0.5 / alpha) * p, q1 = (0.5 / beta) * q;
    const V p2 = p * p1, q2 = q * q1, p3 = p2 * p1, q3 = q2 * q1, p4 = p3 * p1, q4 = q3 * q1;
    const V S1 = p + q, S2 = p2 + q2, S3 = p3 + q3, S4 = p4 + q4, S5 = p4 * p1 + q4 * q1;
    // Coefficients of the left side over its slope, and of the inverse series.
    const V scale = 1.0 / (1.0 + S1), x = value * scale;
    const V c2 = -0.5 * scale * (S1 + S2);
    const V c3 = (1.0 / 6.0) * scale * (S1 + 3.0 * S2 + 2.0 * S3);
    const V c4 = (-1.0 / 24.0) * scale * (S1 + 7.0 * S2 + 12.0 * S3 + 6.0 * S4);
    const V c5 = (1.0 / 120.0) * scale * (S1 + 15.0 * S2 + 50.0 * S3 + 60.0 * S4 + 24.0 * S5);
    const V d3 = 2.0 * c2 * c2 - c3, d4 = c2 * (5.0 * (c3 - c2 * c2)) - c4;
    const V d5 = c2 * (c2 * (14.0 * c2 * c2 - 21.0 * c3) + 6.0 * c4) + 3.0 * c3 * c3 - c5;
    return nu - x * (1.0 + x * (c2 + x * (d3 + x * (d5 * x - d4))));
  }

  static Regions regions(double alpha, const V* v) {
    const V x = v[0], y = v[1], z = O::abs(v[2]), zero{};
    const double beta = 1.0 - alpha;
    Regions at;
    // Means are what this costs, and most points need neither.
    at.is_inside = O::ge(x, zero) & O::ge(y, zero);
    if (O::any(at.is_inside)) at.is_inside = at.is_inside & O::ge(weighted_mean(alpha, x, y), z);
    at.is_polar = O::le(x, zero) & O::le(y, zero);
    if (O::any(at.is_polar)) {
      const V mean = weighted_mean(alpha, x * (-1.0 / alpha), y * (-1.0 / beta));
      at.is_polar = at.is_polar & O::ge(mean, z);
    }
    at.is_on_edge = O::le(z, kSmallestShare * O::max(O::abs(x), O::abs(y)));
    return at;
  }

  /// I − D in the limit z → 0 where one coordinate is not positive and the other is.
  static void edge_spectrum(double alpha, const V* v, V* out) {
    const M is_first = O::le(v[0], V{});
    const V one = O::splat(1.0);
    const V exponent = O::select(is_first, O::splat(alpha), O::splat(1.0 - alpha));
    const V negative = O::select(is_first, -v[0], -v[1]),
            positive = O::select(is_first, v[1], v[0]);
    const V middle =
        O::select(O::gt(positive, V{}), 2.0 * negative / (positive + 2.0 * negative), one);
    out[0] = O::select(O::gt(v[0], V{}), V{}, one);
    out[1] = O::select(O::gt(v[1], V{}), V{}, one);
    out[2] = O::select(O::lt(exponent, O::splat(0.5)), V{},
                       O::select(O::gt(exponent, O::splat(0.5)), one, middle));
  }

  /// Where v projects from the curved piece, and the region v lies in. A root tells that it is the
  /// curved one, as all conditions of optimality hold there; only other lanes need the tests.
  static Nearest nearest(double alpha, const V* v, const V* guess, Regions& at) {
    const V z = O::abs(v[2]);
    NearbyRoot<L> search{O::none(), V{}, O::splat(1.0), V{}};
    if (guess != nullptr) search = nearby_log_ratio(alpha, v[0], v[1], z, *guess);
    V sigma = search.root, e = search.kept * exp_of_last_step(0.5 * search.last_step);
    at = Regions{O::none(), O::none(), O::none()};
    const M others = ~search.found;
    if (O::any(others)) {
      const Regions found = regions(alpha, v);
      at = {found.is_inside & others, found.is_polar & others, found.is_on_edge & others};
      sigma = O::select(others, log_ratio(alpha, v[0], v[1], z), sigma);
      e = O::select(others, E::exp(0.5 * sigma), e);
    }
    const V inverse = 1.0 / e, root_q = z / (e + inverse);
    Nearest u;
    u.x = larger_root(v[0], __builtin_sqrt(alpha) * root_q);
    u.y = larger_root(v[1], __builtin_sqrt(1.0 - alpha) * root_q);
    u.rho = e * root_q;
    u.q = root_q * root_q;
    u.sigma = sigma;
    return u;
  }

  /// What v, times `scale`, projects to.
  static CVXLAYER_INLINE void set_nearest(const Nearest& u, const V* v, V scale, const Regions& at,
                                          V* out) {
    const V rho = scale * u.rho;
    const V curved[3] = {scale * u.x, scale * u.y, O::select(O::lt(v[2], V{}), -rho, rho)};
    const V edge[3] = {O::max(v[0], V{}), O::max(v[1], V{}), V{}};
    for (int i = 0; i < 3; ++i) {
      const V flat = O::select(at.is_on_edge, edge[i], curved[i]);
      out[i] = O::select(at.is_inside, v[i], O::select(at.is_polar, V{}, flat));
    }
  }

  /// The positive X with X (X − linear) = constant², without cancellation.
  static CVXLAYER_INLINE V larger_root(V linear, V constant) {
    const V distance = hypotenuse<L>(0.5 * linear, constant), half = 0.5 * O::abs(linear);
    return O::select(O::gt(linear, V{}), half + distance,
                     constant * (constant / (half + distance)));
  }

  /// √(1 + t²) and asinh t.
  static CVXLAYER_INLINE V root_of_one_plus_square(V t) {
    const V size = O::abs(t);
    return O::select(O::gt(size, O::splat(1e100)), size, O::sqrt(1.0 + size * size));
  }
  static CVXLAYER_INLINE V asinh(V t, V root) {
    const V size = O::abs(t), value = E::log1p(size + size * (size / (1.0 + root)));
    return O::select(O::lt(t, V{}), -value, value);
  }

  /// The root that `log_ratio` finds from about there; keeps e^(σ/2).
  static NearbyRoot<L> nearby_log_ratio(double alpha, V x, V y, V z, V guess) {
    const double beta = 1.0 - alpha, first = __builtin_sqrt(alpha), second = __builtin_sqrt(beta);
    const double offset = 2.0 * (alpha * __builtin_log(first) + beta * __builtin_log(second));
    const V inverse_z = 1.0 / z, a = x * (inverse_z / first), b = y * (inverse_z / second);
    const V bend_a = a * (1.0 + a * a) * alpha, bend_b = b * (1.0 + b * b) * beta;
    const auto balance = [=](V sigma, V& value, V& slope, V& curvature) {
      const V e = E::exp(0.5 * sigma), inverse = 1.0 / e;
      const V cosh = 0.5 * (e + inverse), sinh = 0.5 * (e - inverse);
      const V high = a * cosh, wide = b * cosh;
      const V root_a = O::sqrt(1.0 + high * high), root_b = O::sqrt(1.0 + wide * wide);
      const V part_a = E::log(O::abs(high) + root_a), part_b = E::log(O::abs(wide) + root_b);
      const V sum = alpha * O::select(O::lt(a, V{}), -part_a, part_a) +
                    beta * O::select(O::lt(b, V{}), -part_b, part_b);
      const V share = 1.0 / (root_a * root_b), i_a = root_b * share, i_b = root_a * share;
      value = sigma - 2.0 * sum - offset;
      slope = 1.0 - sinh * (alpha * a * i_a + beta * b * i_b);
      curvature = -0.5 * cosh * (bend_a * i_a * i_a * i_a + bend_b * i_b * i_b * i_b);
      return e;
    };
    NearbyRoot<L> at = find_root_nearby<L>(balance, guess, kNearbySigma);
    at.found = at.found & O::gt(z, kSmallestShare * O::max(O::abs(x), O::abs(y)));
    return at;
  }

  /// σ with ρ : (|z|−ρ) = e^σ : 1, the root of σ − 2α ξ − 2ᾱ η = α log α + ᾱ log ᾱ.
  static V log_ratio(double alpha, V x, V y, V z) {
    const double beta = 1.0 - alpha;
    const V a = x / (z * __builtin_sqrt(alpha)), b = y / (z * __builtin_sqrt(beta));
    const double offset = alpha * __builtin_log(alpha) + beta * __builtin_log(beta);
    const auto balance = [=](V sigma, V& value, V& slope) {
      const V e = E::exp(0.5 * sigma), inverse = 1.0 / e;
      const V cosh = 0.5 * (e + inverse), sinh = 0.5 * (e - inverse);
      const V root_a = root_of_one_plus_square(a * cosh);
      const V root_b = root_of_one_plus_square(b * cosh);
      const V sum = alpha * asinh(a * cosh, root_a) + beta * asinh(b * cosh, root_b);
      value = sigma - 2.0 * sum - offset;
      slope = 1.0 - alpha * (a * sinh / root_a) - beta * (b * sinh / root_b);
    };
    const V limit = O::splat(kLargestSigma);
    // Close to the boundary of K, and of the polar, the left side is constant but for e^∓σ.
    const V flat = 2.0 * (1.0 + alpha / (a * a) + beta / (b * b));
    const V size = 2.0 * (alpha * E::log(O::abs(x) / z) + beta * E::log(O::abs(y) / z));
    V start = V{};
    start = O::select(O::gt(a, V{}) & O::gt(b, V{}), -E::log(-size / flat), start);
    start = O::select(O::lt(a, V{}) & O::lt(b, V{}), E::log((2.0 * offset - size) / flat), start);
    start = O::select(O::is_finite(start), start, V{});
    start = O::min(O::max(start, -limit), limit);
    return find_root<L>(balance, start, -limit, limit);
  }
};

template <class L>
using PowerScaling = ThreeDimensionalScaling<L, Power>;
template <class L>
using PowerProjection = ThreeDimensionalProjection<L, Power>;

}  // namespace cvxlayer::CVXLAYER_ISA
