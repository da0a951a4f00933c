// SPDX-License-Identifier: Apache-2.0
//
// What the exponential and the power cone share in lanes: both faces, written on what sets them
// apart. Their dual barrier is
//
//     f*(y) = −log ψ(y) − Σ wᵢ log |yᵢ|,    ν = 3
//
// and a cone is a struct of static functions on the V's of three rows, and on its parameter:
//   unit(u)                    the point with s = y = u = −∇f*(u)
//   sign, dual_sign            signs that rows have inside the cone and its dual, 0 for any
//   margin(s, ds, slope), …    with these signs: concave, positive inside the cone or its dual;
//                              and its derivative along ds
//   weight(row)                wᵢ
//   expand(y, terms)           ψ and its first two derivatives
//   split(terms, g, g₀, rest)  ∇²f* = ggᵀ/g₀² + rest, for the central path
//   third(terms, u, v, out)    ∇³ψ[u, v]
//   conjugate_gradient(s, out, inner)  ∇f(s) = −ỹ where s = −∇f*(ỹ), and what is known of s
//   dual_inner(y, terms)       the same of y
//   stays_inside(inner, …), dual_…  true only if u + a du is inside, told without logarithms
//   spectrum(v, guess)         of the derivative of the projection, where v lies, and its
//   projection project(v, guess, root, out)  onto the cone itself, and the root of the equation in
//   one unknown
//                              that it comes from; `guess` is null or about this root
//   guess(s, y)                the root at v = s − y, for a pair that is nearly complementary
//   bend(v)                    of the projection, its second derivative
// Sources: Dahl & Andersen, A primal-dual interior-point algorithm for nonsymmetric
// exponential-cone optimization (2022); Goulart & Chen, Clarabel (arXiv:2405.12762); for the
// projection docs/derivations/derivative.md.
#pragma once

#include "../linalg/elementary.hpp"
#include "kind.hpp"
#include "root_finding.hpp"

namespace cvxlayer::CVXLAYER_ISA {

// A step may use up this much of a coordinate that has a sign.
constexpr double kSignFraction = 0.999;
// Outside the cone by less than this share of the way from where a step begins, the chord from
// there is taken: no nearer to the boundary, which is worth an iteration in ten (0.05 to 0.5 do).
constexpr double kAtBoundary = 0.15;
constexpr int kMaxBoundarySteps = 30;
// Closer to the central path than this, the update of the Hessian is 0/0.
constexpr double kCentral = 1e-8, kFlatUpdate = 1e-15;
constexpr int kProjectionState3 = 25;  // numbers of a projection; of the central path, the most

/// A symmetric 3 × 3 matrix: its lower triangle, row by row.
template <class L>
struct Symmetric3 {
  using V = typename L::V;
  using M = typename L::M;
  using O = Ops<L>;
  V entry[6];

  CVXLAYER_INLINE void multiply(const V* u, V* out) const {
    const V *e = entry, a = u[0], b = u[1], c = u[2];
    out[0] = e[0] * a + e[1] * b + e[3] * c;
    out[1] = e[1] * a + e[2] * b + e[4] * c;
    out[2] = e[3] * a + e[4] * b + e[5] * c;
  }
  CVXLAYER_INLINE void add_outer(V scale, const V* u) {
    for (int i = 0, k = 0; i < 3; ++i) {
      for (int j = 0; j <= i; ++j, ++k) entry[k] += scale * u[i] * u[j];
    }
  }
  CVXLAYER_INLINE V frobenius_norm() const {
    const V* e = entry;
    const V off = e[1] * e[1] + e[3] * e[3] + e[4] * e[4];
    return O::sqrt(e[0] * e[0] + e[2] * e[2] + e[5] * e[5] + 2.0 * off);
  }
  /// out = inverse times u by Cholesky; 0 where a pivot is not positive.
  CVXLAYER_INLINE void solve(const V* u, V* out) const {
    const V* e = entry;
    const V d0 = e[0], i0 = 1.0 / d0, l10 = e[1] * i0, l20 = e[3] * i0;
    const V d1 = e[2] - l10 * e[1], i1 = 1.0 / d1;
    const V c21 = e[4] - l20 * e[1], l21 = c21 * i1, d2 = e[5] - l20 * e[3] - l21 * c21;
    const V b1 = u[1] - l10 * u[0], b2 = u[2] - l20 * u[0] - l21 * b1;
    const M is_definite = O::gt(d0, V{}) & O::gt(d1, V{}) & O::gt(d2, V{});
    const V z = b2 / d2, y = b1 * i1 - l21 * z, x = u[0] * i0 - l10 * y - l20 * z;
    out[0] = O::select(is_definite, x, V{});
    out[1] = O::select(is_definite, y, V{});
    out[2] = O::select(is_definite, z, V{});
  }
};

template <class V>
CVXLAYER_INLINE V dot3(const V* a, const V* b) {
  return a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
}

template <class V>
CVXLAYER_INLINE void cross3(const V* a, const V* b, V* out) {
  const V x = a[1] * b[2] - a[2] * b[1], y = a[2] * b[0] - a[0] * b[2];
  out[2] = a[0] * b[1] - a[1] * b[0];
  out[0] = x;
  out[1] = y;
}

/// Times one over the norm; a zero stays. Squares of the smallest numbers would be lost.
template <class L>
CVXLAYER_INLINE void normalize3(typename L::V* a) {
  using O = Ops<L>;
  using V = typename L::V;
  const V size = O::max(O::max(O::abs(a[0]), O::abs(a[1])), O::abs(a[2]));
  const V inverse = 1.0 / O::max(size, O::splat(0x1p-1022));
  for (int i = 0; i < 3; ++i) a[i] *= inverse;
  const V norm = O::sqrt(dot3(a, a));
  const V scale = O::select(O::gt(norm, V{}), 1.0 / norm, V{});
  for (int i = 0; i < 3; ++i) a[i] *= scale;
}

/// √(a² + b²) without overflow.
template <class L>
CVXLAYER_INLINE typename L::V hypotenuse(typename L::V a, typename L::V b) {
  using O = Ops<L>;
  using V = typename L::V;
  const V large = O::max(O::abs(a), O::abs(b)), small = O::min(O::abs(a), O::abs(b));
  const V ratio = O::select(O::gt(large, V{}), small / large, V{});
  return large * O::sqrt(1.0 + ratio * ratio);
}

/// What is known of the dual barrier at one point.
template <class L>
struct BarrierTerms {
  using V = typename L::V;
  V point[3];    // y
  V inverse[3];  // 1/y where wᵢ > 0
  V psi, phi;    // ψ, and what `third` needs besides
  V inverse_psi;
  V level;               // what ψ is made of: a mean, or a logarithm
  V first[3];            // ∇ψ
  Symmetric3<L> second;  // ∇²ψ
};

/// What is known of a point inside the cone or its dual: the inverses of the two entries whose
/// ratio counts, the mean of them or the logarithm that the margin is made of, and the margin.
template <class L>
struct InnerPoint {
  typename L::V first, second, level, margin;
};

/// The derivative of a projection onto the cone, I − D on the unit vectors `normal` (1) and
/// `tangent` (`dropped`), or else diagonal; see cvxlayer/cones/three_dimensional.py.
template <class L>
struct Spectrum3 {
  using V = typename L::V;
  V normal[3], tangent[3], dropped;
  V root;        // of the equation in one unknown that all this comes from
  V nearest[3];  // the projection
  typename L::M is_diagonal;
  V diagonal[3];  // of I − D there
};

/// The second derivative of a projection onto the cone, w⊗c⊗c + c⊗w⊗c + c⊗c⊗w − weight c⊗c⊗c.
template <class L>
struct Bend3 {
  using V = typename L::V;
  V lead[3], across[3], weight;  // w, c

  void apply(const V* p, const V* q, V* out) const {
    const V lead_p = dot3(lead, p), lead_q = dot3(lead, q);
    const V across_p = dot3(across, p), across_q = dot3(across, q);
    const V both = across_p * across_q;
    const V share = lead_p * across_q + lead_q * across_p - weight * both;
    for (int i = 0; i < 3; ++i) out[i] = both * lead[i] + share * across[i];
  }
};

/// The ray onto which v projects and how the boundary bends there; see `BoundaryRay` in
/// cvxlayer/cones/three_dimensional.py.
template <class L>
struct BoundaryRay {
  using V = typename L::V;
  using O = Ops<L>;
  V ray[3], normal[3];  // of length one
  V kept, dropped, kept_rate, dropped_rate, bend;

  Bend3<L> second_derivative(typename L::M is_flat) const {
    const V total = kept * kept_rate + dropped * dropped_rate;
    const auto is_curved = O::gt(total, V{}) & ~is_flat;
    const V theta = kept * (kept_rate / total), rest = dropped * (dropped_rate / total);
    const V along_ray = kept_rate / total * rest, along_normal = theta * (dropped_rate / total);
    Bend3<L> result;
    cross3(normal, ray, result.across);
    for (int i = 0; i < 3; ++i) {
      const V lead = along_ray * ray[i] - along_normal * normal[i];
      result.lead[i] = O::select(is_curved, lead, V{});
      result.across[i] = O::select(is_curved, result.across[i], V{});
    }
    result.weight = O::select(is_curved, theta * rest * (bend / total), V{});
    return result;
  }
};

/// The scaling of one cone; the contract is in curved.hpp.
///
/// H is the matrix of the BFGS update of μ∇²f*(y) with H y = s and H ỹ = s̃, where s̃ = −∇f*(y)
/// and ỹ = −∇f(s) are the shadow iterates; μ∇²f*(y) itself close to the central path.
template <class L, template <class> class Cone>
struct ThreeDimensionalScaling {
  using V = typename L::V;
  using M = typename L::M;
  using O = Ops<L>;
  using K = Cone<L>;

  struct State {
    Symmetric3<L> H, hessian;
    V gradient[3];
    BarrierTerms<L> terms;
    InnerPoint<L> inner, dual_inner;  // s and y
  };

  const CurvedCone& cone;
  V *state, *scratch;

  static long state_size() { return static_cast<long>(sizeof(State) / sizeof(V)); }
  static long scratch_size() { return 0; }

  void set_unit(V* u, int lane) const {
    double unit[3];
    K::unit(cone.parameter, unit);
    for (int i = 0; i < 3; ++i) O::set(u[i], lane, unit[i]);
  }

  void update(const V* s, const V* y) const {
    State& at = here();
    K::expand(cone.parameter, y, at.terms);
    differentiate_barrier(cone.parameter, at);
    V conjugate[3];  // −ỹ
    K::conjugate_gradient(cone.parameter, s, conjugate, at.inner);
    at.dual_inner = K::dual_inner(y, at.terms);
    update_hessian(s, y, conjugate, at);
  }

  /// The lower triangle of H, row by row.
  const V* block() const { return here().H.entry; }
  template <class Write>
  CVXLAYER_INLINE void write_block(const Write& write) const {
    const V* h = block();
    for (int i = 0, k = 0; i < 3; ++i) {
      for (int j = 0; j <= i; ++j, ++k) write(h[k], i == j);
    }
  }

  void add_product(const V* v, double coefficient, V* out) const {
    V product[3];
    here().H.multiply(v, product);
    for (int i = 0; i < 3; ++i) out[i] += coefficient * product[i];
  }

  V squared_norm(const V* v) const {
    V product[3];
    here().H.multiply(v, product);
    return dot3(v, product);
  }

  /// With u = ∇²f*(y)⁻¹ ds, the second-order term of the central path is ½ ∇³f*(y)[u, dy].
  void corrector(const V* s, const V* ds, const V* dy, V center, V* out) const {
    const State& at = here();
    V u[3], term[3];
    at.hessian.solve(ds, u);
    third_derivative(cone.parameter, at.terms, u, dy, term);
    for (int i = 0; i < 3; ++i) out[i] = s[i] + center * at.gradient[i] - 0.5 * term[i];
  }

  V step_length(const V* s, const V* ds, const V* y, const V* dy, V limit) const {
    const double parameter = cone.parameter;
    const InnerPoint<L>&inner = here().inner, &dual_inner = here().dual_inner;
    const V alpha = step_inside(
        y, dy, K::dual_sign, dual_inner.margin,
        [&](V a) { return K::dual_stays_inside(parameter, dual_inner, y, dy, a); },
        [=](const V* u, V& slope) { return K::dual_margin(parameter, u, dy, slope); },
        O::min(limit, O::splat(1.0)));
    return step_inside(
        s, ds, K::sign, inner.margin,
        [&](V a) { return K::stays_inside(parameter, inner, s, ds, a); },
        [=](const V* u, V& slope) { return K::margin(parameter, u, ds, slope); }, alpha);
  }

  /// out = ∇³f*(y)[u, v].
  static void third_derivative(double parameter, const BarrierTerms<L>& terms, const V* u,
                               const V* v, V* out) {
    V along_u[3], along_v[3], third[3];
    terms.second.multiply(u, along_u);
    terms.second.multiply(v, along_v);
    K::third(parameter, terms, u, v, third);
    const V inverse = terms.inverse_psi;
    const V first_u = inverse * dot3(terms.first, u), first_v = inverse * dot3(terms.first, v);
    const V second = inverse * dot3(along_u, v) - 2.0 * first_u * first_v;
    for (int i = 0; i < 3; ++i) {
      const V bent = first_v * along_u[i] + first_u * along_v[i] - third[i];
      out[i] = inverse * (second * terms.first[i] + bent);
      const double weight = K::weight(parameter, i);
      if (weight == 0.0) continue;
      const V inverse_y = terms.inverse[i];
      out[i] -= 2.0 * weight * (u[i] * inverse_y) * (v[i] * inverse_y) * inverse_y;
    }
  }

 private:
  State& here() const { return *reinterpret_cast<State*>(state); }

  /// ∇f* = −∇ψ/ψ − w/y and ∇²f* = ∇ψ∇ψᵀ/ψ² − ∇²ψ/ψ + diag(w/y²).
  static void differentiate_barrier(double parameter, State& at) {
    const BarrierTerms<L>& terms = at.terms;
    const V inverse = at.terms.inverse_psi = 1.0 / terms.psi;
    for (int k = 0; k < 6; ++k) at.hessian.entry[k] = -inverse * terms.second.entry[k];
    at.hessian.add_outer(inverse * inverse, terms.first);
    for (int i = 0; i < 3; ++i) {
      at.gradient[i] = -inverse * terms.first[i];
      const double weight = K::weight(parameter, i);
      if (weight == 0.0) continue;
      const V share = weight * terms.inverse[i];
      at.gradient[i] -= share;
      at.hessian.entry[i * (i + 3) / 2] += share * terms.inverse[i];
    }
  }

  /// H = ssᵀ/⟨s, y⟩ + δ_sδ_sᵀ/⟨δ_s, δ_y⟩ + t aaᵀ, where δ_s = s − μs̃, δ_y = y − μỹ, a is
  /// orthogonal to y and ỹ, and t = μ ‖∇²f* − s̃s̃ᵀ/ν − rrᵀ/…‖, what the update leaves of it.
  static void update_hessian(const V* s, const V* y, const V* conjugate, State& at) {
    const V *g = at.gradient, inner = dot3(s, y), mu = inner * (1.0 / 3.0);
    const V shadow_mu = dot3(g, conjugate) * (1.0 / 3.0);
    V ds[3], dy[3], axis[3], residual[3], image[3];
    at.hessian.multiply(conjugate, image);
    for (int i = 0; i < 3; ++i) {
      ds[i] = s[i] + mu * g[i];
      dy[i] = y[i] + mu * conjugate[i];
      residual[i] = shadow_mu * g[i] - image[i];
    }
    const V delta = dot3(ds, dy);
    const V curvature = dot3(conjugate, image) - 3.0 * shadow_mu * shadow_mu;
    const M updates = O::gt(O::abs(mu * shadow_mu - 1.0), O::splat(kCentral)) &
                      O::gt(O::abs(curvature), O::splat(kFlatUpdate)) & O::gt(inner, V{}) &
                      O::gt(delta, V{});
    Symmetric3<L> rest = at.hessian;
    rest.add_outer(O::splat(-1.0 / 3.0), g);
    rest.add_outer(-1.0 / curvature, residual);
    cross3(y, conjugate, axis);
    Symmetric3<L> updated{};
    updated.add_outer(1.0 / inner, s);
    updated.add_outer(1.0 / delta, ds);
    updated.add_outer(mu * rest.frobenius_norm() / dot3(axis, axis), axis);
    for (int k = 0; k < 6; ++k) {
      at.H.entry[k] = O::select(updates, updated.entry[k], mu * at.hessian.entry[k]);
    }
  }

  /// At most `alpha`, and inside; `start` is the margin of u. From outside, Newton's method
  /// approaches the boundary without crossing it, the margin being concave; the chord from u to a
  /// point outside crosses zero inside.
  template <class StaysInside, class Margin>
  static V step_inside(const V* u, const V* du, const int* sign, V start,
                       const StaysInside& stays_inside, const Margin& margin, V alpha) {
    V trial[3], slope;
    for (int i = 0; i < 3; ++i) {
      trial[i] = u[i] + alpha * du[i];
      if (sign[i] == 0) continue;
      const M crosses = O::lt(sign[i] * (trial[i] - (1.0 - kSignFraction) * u[i]), V{});
      if (O::any(crosses)) alpha = O::select(crosses, -kSignFraction * (u[i] / du[i]), alpha);
    }
    const M is_open = ~stays_inside(alpha);
    if (!O::any(is_open)) return alpha;
    const auto move = [&] {
      for (int i = 0; i < 3; ++i) trial[i] = u[i] + alpha * du[i];
    };
    move();
    V value = margin(trial, slope);
    const M is_outside = is_open & ~O::gt(value, V{});
    M is_far = is_outside & O::lt(value, -kAtBoundary * start);
    for (int pass = 0; pass < kMaxBoundarySteps && O::any(is_far); ++pass) {
      alpha = O::select(is_far, alpha - value / slope, alpha);
      move();
      value = O::select(is_far, margin(trial, slope), value);
      is_far = is_far & O::lt(value, -kAtBoundary * start);
    }
    const V chord = O::max(alpha * (start / (start - value)), V{});
    return O::select(is_outside & ~O::gt(value, V{}), chord, alpha);
  }
};

/// The projection onto the dual of one cone; the contract is in curved.hpp. By Moreau
/// Π(v) = v + Π_K(−v), so D is the complement of that of the cone. State: D and S, then the root
/// and Π_K(−v) that they come from.
template <class L, template <class> class Cone>
struct ThreeDimensionalProjection {
  using V = typename L::V;
  using O = Ops<L>;
  using K = Cone<L>;

  const CurvedCone& cone;
  V *state, *scratch;

  static long state_size() { return kProjectionState3; }
  static long scratch_size() { return 0; }

  void decompose(const V* v, V /*mu*/ = V{}) const { decompose_from(v, nullptr); }
  void decompose_nearby(const V* v) const { decompose_from(v, &root()); }
  void apply(const V* /*v*/, const V* u, V* out) const { matrices()[0].multiply(u, out); }
  void apply_root(const V* /*v*/, const V* u, V* out) const { matrices()[1].multiply(u, out); }
  template <class Write>
  CVXLAYER_INLINE void write_block(const V* /*v*/, const Write& write) const {
    const V* d = matrices()[0].entry;
    for (int i = 0, k = 0; i < 3; ++i) {
      for (int j = 0; j <= i; ++j, ++k) write(d[k], i == j);
    }
  }
  void project(const V* v, V* out) const {
    V unused;
    project_from(v, nullptr, unused, out);
  }
  void start_nearby(const V* s, const V* y) const { root() = K::guess(s, y); }
  void project_nearby(const V* v, V* out) const { project_from(v, &root(), root(), out); }
  void project_decomposed(const V* v, V* out) const {
    for (int i = 0; i < 3; ++i) out[i] = v[i] + nearest()[i];
  }
  void bend(const V* v) const {
    const V opposite[3] = {-v[0], -v[1], -v[2]};
    *reinterpret_cast<Bend3<L>*>(state) = K::bend(cone.parameter, opposite);
  }
  void curvature(const V* /*v*/, const V* p, const V* q, V* out) const {
    reinterpret_cast<const Bend3<L>*>(state)->apply(p, q, out);
  }

 private:
  Symmetric3<L>* matrices() const { return reinterpret_cast<Symmetric3<L>*>(state); }
  V& root() const { return state[12]; }
  V* nearest() const { return state + 13; }  // Π_K(−v)

  void decompose_from(const V* v, const V* guess) const {
    const V opposite[3] = {-v[0], -v[1], -v[2]};
    const Spectrum3<L> spectrum = K::spectrum(cone.parameter, opposite, guess);
    assemble(spectrum, spectrum.dropped, false, matrices()[0]);
    assemble(spectrum, O::sqrt(spectrum.dropped), true, matrices()[1]);
    root() = spectrum.root;
    for (int i = 0; i < 3; ++i) nearest()[i] = spectrum.nearest[i];
  }

  void project_from(const V* v, const V* guess, V& found, V* out) const {
    const V opposite[3] = {-v[0], -v[1], -v[2]};
    V in_cone[3];
    K::project(cone.parameter, opposite, guess, found, in_cone);
    for (int i = 0; i < 3; ++i) out[i] = v[i] + in_cone[i];
  }

  static void assemble(const Spectrum3<L>& spectrum, V dropped, bool take_root,
                       Symmetric3<L>& out) {
    out = Symmetric3<L>{};
    out.add_outer(O::splat(1.0), spectrum.normal);
    out.add_outer(dropped, spectrum.tangent);
    for (int i = 0, k = 0; i < 3; ++i) {
      for (int j = 0; j <= i; ++j, ++k) {
        V entry{};
        if (i == j) entry = take_root ? O::sqrt(spectrum.diagonal[i]) : spectrum.diagonal[i];
        out.entry[k] = O::select(spectrum.is_diagonal, entry, out.entry[k]);
      }
    }
  }
};

/// The eigenvectors where v projects onto a smooth piece, from multiples of the projection u
/// and of v − u, and the two parts of the third eigenvalue, up to a common factor.
template <class L>
CVXLAYER_INLINE void set_curved(typename L::V* nearest, const typename L::V* normal,
                                typename L::V kept, typename L::V dropped, Spectrum3<L>& out) {
  using O = Ops<L>;
  for (int i = 0; i < 3; ++i) out.normal[i] = normal[i];
  normalize3<L>(nearest);
  normalize3<L>(out.normal);
  cross3(nearest, out.normal, out.tangent);  // of length one as these are
  out.dropped = dropped / O::max(kept + dropped, O::splat(0x1p-1022));
}

}  // namespace cvxlayer::CVXLAYER_ISA
