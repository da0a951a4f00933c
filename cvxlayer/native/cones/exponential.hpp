// SPDX-License-Identifier: Apache-2.0
//
// The exponential cone K = cl{(r, s, t) : s > 0, s·exp(r/s) ≤ t} in lanes; the faces are those
// of three_dimensional.hpp, the projection is specified in cvxlayer/cones/exponential.py.
//
//     f*(y) = −log ψ − log(−y₀) − log y₂,   ψ = y₁ − y₀ − y₀ log(−y₂/y₀)
#pragma once

#include "three_dimensional.hpp"

namespace cvxlayer::CVXLAYER_ISA {

template <class L>
struct Exponential {
  using V = typename L::V;
  using M = typename L::M;
  using O = Ops<L>;
  using E = Elementary<L>;

  // ------------------------------------------------------------------------------ barrier
  static void unit(double /*parameter*/, double* u) {
    u[0] = -1.051383945322714;
    u[1] = 0.556409619469370;
    u[2] = 1.258967884768947;
  }

  static constexpr double weight(double /*parameter*/, int row) { return row == 1 ? 0.0 : 1.0; }

  static constexpr int sign[3] = {0, 1, 1}, dual_sign[3] = {-1, 0, 1};

  static CVXLAYER_INLINE V margin(double /*parameter*/, const V* s, const V* ds, V& slope) {
    const V ratio = s[2] / s[1], l = E::log(ratio);
    slope = ds[1] * (l - 1.0) + ds[2] / ratio - ds[0];
    return s[1] * l - s[0];
  }

  static CVXLAYER_INLINE V dual_margin(double /*parameter*/, const V* y, const V* dy, V& slope) {
    const V ratio = -y[2] / y[0], l = E::log(ratio);
    slope = dy[1] - dy[0] * l + dy[2] / ratio;
    return y[1] - y[0] - y[0] * l;
  }

  /// ∇ψ = (−log(−y₂/y₀), 1, −y₀/y₂) and ∇²ψ = y₀ rrᵀ with r = (−1/y₀, 0, 1/y₂).
  static void expand(double /*parameter*/, const V* y, BarrierTerms<L>& out) {
    out.inverse[0] = 1.0 / y[0];
    out.inverse[1] = V{};
    out.inverse[2] = 1.0 / y[2];
    const V l = E::log(-y[2] * out.inverse[0]);
    for (int i = 0; i < 3; ++i) out.point[i] = y[i];
    out.psi = y[1] - y[0] - y[0] * l;
    out.phi = V{};
    out.level = l;
    out.first[0] = -l;
    out.first[1] = O::splat(1.0);
    out.first[2] = -y[0] * out.inverse[2];
    const V r[3] = {-out.inverse[0], V{}, out.inverse[2]};
    out.second = Symmetric3<L>{};
    out.second.add_outer(y[0], r);
  }

  /// ∇²f* = ggᵀ/g₀² + rest, where the rest is positive semidefinite and of moderate size near the
  /// boundary: g = ∇ψ, g₀ = ψ.
  static CVXLAYER_INLINE void split(double /*parameter*/, const BarrierTerms<L>& terms, V* g,
                                    V& size, Symmetric3<L>& rest) {
    const V inverse = 1.0 / terms.psi;
    size = terms.psi;
    for (int i = 0; i < 3; ++i) g[i] = terms.first[i];
    for (int k = 0; k < 6; ++k) rest.entry[k] = -inverse * terms.second.entry[k];
    rest.entry[0] += terms.inverse[0] * terms.inverse[0];
    rest.entry[5] += terms.inverse[2] * terms.inverse[2];
  }

  static CVXLAYER_INLINE void third(double /*parameter*/, const BarrierTerms<L>& terms, const V* u,
                                    const V* v, V* out) {
    const V a = terms.inverse[0], c = terms.inverse[2];
    const V ru = c * u[2] - a * u[0], rv = c * v[2] - a * v[0];
    out[0] = ru * rv + a * (rv * u[0] + ru * v[0]);
    out[1] = V{};
    out[2] = -terms.point[0] * c * c * (rv * u[2] + ru * v[2]);
  }

  /// With c = log(s₂/s₁) − s₀/s₁ and δ + log(1 + δ) = c:
  /// ∇f = (1/(δ s₁), (1 − s₀/s₁)/(δ s₁) − 2/s₁, −(1 + δ)/(δ s₂)).
  static void conjugate_gradient(double /*parameter*/, const V* s, V* out, InnerPoint<L>& inner) {
    const V inverse = 1.0 / s[1], ratio = s[0] * inverse, level = E::log(s[2] * inverse);
    inner = {inverse, 1.0 / s[2], level, s[1] * level - s[0]};
    const V delta = wright(level - ratio), share = 1.0 / delta;
    const V head = inverse * share;
    out[0] = head;
    out[1] = head * (1.0 - ratio) - 2.0 * inverse;
    out[2] = -(1.0 + share) * inner.second;
  }

  static InnerPoint<L> dual_inner(const V* /*y*/, const BarrierTerms<L>& terms) {
    return {terms.inverse[0], terms.inverse[2], terms.level, terms.psi};
  }

  static CVXLAYER_INLINE M stays_inside(double /*parameter*/, const InnerPoint<L>& inner,
                                        const V* s, const V* ds, V length) {
    const V first = 1.0 + length * (ds[1] * inner.first);
    const V second = 1.0 + length * (ds[2] * inner.second);
    return is_positive(s[1] + length * ds[1], inner.level, -(s[0] + length * ds[0]), first, second);
  }
  static CVXLAYER_INLINE M dual_stays_inside(double /*parameter*/, const InnerPoint<L>& inner,
                                             const V* y, const V* dy, V length) {
    const V first = 1.0 + length * (dy[0] * inner.first);
    const V second = 1.0 + length * (dy[2] * inner.second);
    const V weight = -(y[0] + length * dy[0]);
    return is_positive(weight, inner.level, y[1] + length * dy[1] + weight, first, second);
  }

  // --------------------------------------------------------------------------- projection
  static V guess(const V* s, const V* /*y*/) { return s[0] / s[1]; }

  static Spectrum3<L> spectrum(double /*parameter*/, const V* v, const V* guess) {
    Regions at;
    Nearest u = nearest(v, guess, at);
    Spectrum3<L> result;
    set_nearest(u, v, at, result.nearest);
    // Rays and normals come scaled by e^−|ρ| where ρ > 0, hence the two cases.
    const M is_right = O::gt(u.rho, V{});
    const V one = O::splat(1.0);
    const V kept = u.beta * O::select(is_right, u.e, one) * dot3(u.normal, u.normal);
    const V dropped = u.lambda * O::select(is_right, one, u.e) * dot3(u.ray, u.ray);
    result.root = u.rho;
    set_curved<L>(u.ray, u.normal, kept, dropped, result);
    result.is_diagonal = at.is_inside | at.is_polar | at.is_on_face;
    const V face[3] = {V{}, one, O::select(O::gt(v[2], V{}), V{}, one)};
    for (int i = 0; i < 3; ++i) {
      const V outside = O::select(at.is_polar, one, face[i]);
      result.diagonal[i] = O::select(at.is_inside, V{}, outside);
    }
    return result;
  }

  static void project(double /*parameter*/, const V* v, const V* guess, V& root, V* out) {
    Regions at;
    const Nearest u = nearest(v, guess, at);
    root = u.rho;
    set_nearest(u, v, at, out);
  }

  static Bend3<L> bend(double /*parameter*/, const V* v) {
    const Regions at = regions(v);
    const V rho = ratio(v);
    BoundaryRay<L> out;
    frame(rho, E::exp(-O::abs(rho)), out.ray, out.normal);
    const V shrunk = out.ray[1], grown = out.ray[2];
    const V length = O::sqrt(dot3(out.ray, out.ray)), width = O::sqrt(dot3(out.normal, out.normal));
    out.kept = length * coefficient(v, out.ray);
    out.dropped = width * coefficient(v, out.normal);
    const V quotient = width / length, share = grown / width;
    out.kept_rate = shrunk * width * quotient;
    out.dropped_rate = grown * length / quotient;
    const V turn = (rho * shrunk * shrunk + grown * grown) / (length * length);
    out.bend = length * width * (1.0 + 3.0 * turn - 3.0 * omega(rho) * share * share);
    normalize3<L>(out.ray);
    normalize3<L>(out.normal);
    return out.second_derivative(at.is_inside | at.is_polar | at.is_on_face);
  }

 private:
  /// True only if weight·(level + log(second/first)) + rest > 0, for positive weight and ratios:
  /// x (6 + 3x)/(6 + 6x + x²) ≤ log(1 + x) ≤ x (6 + x)/(6 + 4x) for x ≥ 0.
  static CVXLAYER_INLINE M is_positive(V weight, V level, V rest, V first, V second) {
    const M grows = O::lt(first, second);
    const V base = O::min(first, second), rise = O::abs(second - first);
    const V numerator = rise * O::select(grows, 6.0 * base + 3.0 * rise, -6.0 * base - rise);
    const V denominator = O::select(grows, 6.0 * base * (base + rise) + rise * rise,
                                    base * (6.0 * base + 4.0 * rise));
    return O::gt((weight * level + rest) * denominator + weight * numerator, V{});
  }

  // Beyond, v is on the piece where s = 0 or where t = 0, to rounding and far more.
  static constexpr double kLargestRatio = 1e150;
  // A root from nearby is one of a point that is certainly on the curved piece: it is no further
  // from zero, and more than this share of the point lies on either side.
  static constexpr double kNearbyRatio = 100.0, kCertainShare = 1e-11;
  static constexpr int kWrightSteps = 2;

  struct Regions {
    M is_inside, is_polar, is_on_face;
  };
  struct Nearest {
    V rho, e, ray[3], normal[3], beta, lambda;  // v = β·ray + λ·normal, e = e^−|ρ|
  };

  /// The root of δ + log(1 + δ) = c > 0. Source: Fritsch, Shafer & Crowley, Algorithm 443 (1973),
  /// of fourth order, in the difference δ from 1 so that small ones keep their digits.
  static V wright(V c) {
    // Right to third order at 0 and to first at infinity: from there two steps reach rounding.
    V delta = c * (8.0 + 5.0 * c) / (16.0 + 6.0 * c);
    for (int step = 0; step < kWrightSteps; ++step) {
      const V w = 1.0 + delta, r = c - delta - E::log(w), above = 1.0 + w;
      const V t = above * (above + r * (2.0 / 3.0));
      delta += (w * r) * (t - 0.5 * r) / (above * (t - r));
    }
    return delta;
  }

  static Regions regions(const V* v) {
    const V r = v[0], s = v[1], t = v[2], zero{};
    const M is_zero_s = O::le(s, zero) & O::ge(s, zero),
            is_zero_r = O::le(r, zero) & O::ge(r, zero);
    Regions at;
    at.is_inside = (O::gt(s, zero) & O::le(s * E::exp(r / s), t)) |
                   (is_zero_s & O::le(r, zero) & O::ge(t, zero));
    at.is_polar = (O::gt(r, zero) & O::le(r * E::exp(s / r - 1.0), -t)) |
                  (is_zero_r & O::le(s, zero) & O::le(t, zero));
    at.is_on_face = O::le(r, zero) & O::le(s, zero);
    return at;
  }

  /// p = (ρ, 1, e^ρ) and n = (e^ρ, (1−ρ) e^ρ, −1), times e^−ρ where ρ > 0; e = e^−|ρ|.
  static CVXLAYER_INLINE void frame(V rho, V e, V* ray, V* normal) {
    const M is_right = O::gt(rho, V{});
    const V one = O::splat(1.0);
    const V shrunk = O::select(is_right, e, one), grown = O::select(is_right, one, e);
    ray[0] = rho * shrunk;
    ray[1] = shrunk;
    ray[2] = grown;
    normal[0] = grown;
    normal[1] = (1.0 - rho) * grown;
    normal[2] = -shrunk;
  }

  static CVXLAYER_INLINE V coefficient(const V* v, const V* direction) {
    return O::max(dot3(v, direction), V{}) / dot3(direction, direction);
  }

  static CVXLAYER_INLINE V omega(V rho) { return rho * rho - rho + 1.0; }

  /// The multiples of ray and normal that v is the sum of if it projects onto the curved piece, and
  /// the region v lies in. If both are positive v does so; only other lanes need the tests.
  static Nearest nearest(const V* v, const V* guess, Regions& at) {
    Nearest u;
    M found = O::none();
    if (guess != nullptr) {
      const NearbyRoot<L> search = find_root_nearby<L>(
          [v](V rho, V& value, V& slope, V& curvature) {
            return balance(v, rho, value, slope, curvature);
          },
          *guess, kNearbyRatio);
      u.rho = search.root;
      const V before = u.rho - search.last_step;
      u.e = search.kept * exp_of_last_step(O::abs(before) - O::abs(u.rho));
      find_parts(v, u);
      const V least = kCertainShare * (O::max(O::max(O::abs(v[0]), O::abs(v[1])), O::abs(v[2])));
      found = search.found & O::gt(u.beta * largest_of(u.ray), least) &
              O::gt(u.lambda * largest_of(u.normal), least);
    }
    at = Regions{O::none(), O::none(), O::none()};
    const M others = ~found;
    if (!O::any(others)) return u;
    const Regions tested = regions(v);
    at = {tested.is_inside & others, tested.is_polar & others, tested.is_on_face & others};
    u.rho = O::select(others, ratio(v), u.rho);
    u.e = O::select(others, E::exp(-O::abs(u.rho)), u.e);
    find_parts(v, u);
    return u;
  }

  static CVXLAYER_INLINE void find_parts(const V* v, Nearest& u) {
    frame(u.rho, u.e, u.ray, u.normal);
    u.beta = coefficient(v, u.ray);
    u.lambda = coefficient(v, u.normal);
  }

  static CVXLAYER_INLINE V largest_of(const V* u) {
    return O::max(O::max(O::abs(u[0]), O::abs(u[1])), O::abs(u[2]));
  }

  /// What v projects to.
  static CVXLAYER_INLINE void set_nearest(const Nearest& u, const V* v, const Regions& at, V* out) {
    const V face[3] = {O::min(v[0], V{}), V{}, O::max(v[2], V{})};
    for (int i = 0; i < 3; ++i) {
      const V flat = O::select(at.is_on_face, face[i], u.ray[i] * u.beta);
      out[i] = O::select(at.is_inside, v[i], O::select(at.is_polar, V{}, flat));
    }
  }

  /// The equation for ρ, times e^−|ρ| where ρ > 0; returns e^−|ρ|.
  static CVXLAYER_INLINE V balance(const V* v, V rho, V& value, V& slope, V& curvature) {
    const V r = v[0], s = v[1], t = v[2], e = E::exp(-O::abs(rho)), squared = e * e, te = t * e;
    const V A = (rho - 1.0) * r + s, B = r - rho * s, w = omega(rho), linear = 2.0 * rho - 1.0;
    const M is_right = O::gt(rho, V{});
    value = O::select(is_right, A - B * squared, A * squared - B) - w * te;
    slope = O::select(is_right, r + (s + 2.0 * B) * squared - (linear - w) * te,
                      (r + 2.0 * A) * squared + s - (linear + w) * te);
    curvature = O::select(is_right, (2.0 * (linear - 1.0) - w) * te - 4.0 * (s + B) * squared,
                          4.0 * (r + A) * squared - (2.0 * (linear + 1.0) + w) * te);
    return e;
  }

  static V ratio(const V* v) {
    V low, high;
    bracket(v, low, high);
    return find_root<L>(
        [v](V rho, V& value, V& slope) {
          V unused;
          balance(v, rho, value, slope, unused);
        },
        0.5 * (low + high), low, high);
  }

  static void bracket(const V* v, V& low, V& high) {
    const V r = v[0], s = v[1], t = v[2], zero{}, one = O::splat(1.0);
    const V largest = O::splat(kLargestRatio);
    const M above = O::gt(t, zero), below = O::lt(t, zero);
    const M has_r = O::gt(r, zero), has_s = O::gt(s, zero);
    low = O::select(has_r, 1.0 - s / r, -largest);
    high = O::select(has_s, r / s, largest);
    low = O::select(above, O::max(low, E::log(t / reach(s, r))), low);
    high = O::select(below, O::min(high, E::log(reach(r, s) / -t)), high);
    V bound = O::select(O::ge(low, O::splat(2.0)), omega(low) * E::exp(-O::abs(low)), one);
    V excess = bound * (O::max(t, zero) / r + E::exp(-O::max(low, zero)));
    high = O::select(has_r, O::min(high, O::max(zero, 1.0 - s / r + excess)), high);
    bound =
        O::select(O::le(high, O::splat(-1.0)), omega(high) * E::exp(-O::abs(high)), O::splat(1.11));
    excess = bound * (E::exp(O::min(high, zero)) + O::max(-t, zero) / s);
    low = O::select(has_s, O::max(low, O::min(zero, r / s - excess)), low);
    high = O::min(O::max(high, -largest), largest);
    low = O::min(O::min(O::max(low, -largest), largest), high);
  }

  /// w + √(w² + max(across, 0)²), without cancellation where w < 0.
  static CVXLAYER_INLINE V reach(V along, V across) {
    const V beyond = O::max(across, V{}), distance = hypotenuse<L>(along, beyond);
    return O::select(O::gt(along, V{}), along + distance, beyond * (beyond / (distance - along)));
  }
};

template <class L>
using ExponentialScaling = ThreeDimensionalScaling<L, Exponential>;
template <class L>
using ExponentialProjection = ThreeDimensionalProjection<L, Exponential>;

}  // namespace cvxlayer::CVXLAYER_ISA
