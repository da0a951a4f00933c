// SPDX-License-Identifier: Apache-2.0
//
// Second-order cone {(t, z) : ‖z‖ ≤ t} in lanes: Nesterov–Todd scaling, Jordan algebra, step
// length, and the spectral form of the derivative of the projection.
// Source: Vandenberghe, The CVXOPT linear and quadratic cone program solvers (2010), sections
// 4 and 5; for the derivative see cvxlayer/cones/second_order.py.
#pragma once

#include "../linalg/lanes.hpp"
#include "border_numbers.hpp"
#include "kind.hpp"

namespace cvxlayer::CVXLAYER_ISA {

template <class L>
struct SecondOrder {
  using V = typename L::V;
  using M = typename L::M;
  using O = Ops<L>;

  static CVXLAYER_INLINE V norm_tail(const V* u, int size) {
    V sum{};
    for (int i = 1; i < size; ++i) sum += u[i] * u[i];
    return O::sqrt(sum);
  }

  /// uᵀJv with J = diag(1, −1, …, −1).
  static CVXLAYER_INLINE V hyperbolic(const V* u, const V* v, int size) {
    V sum = u[0] * v[0];
    for (int i = 1; i < size; ++i) sum -= u[i] * v[i];
    return sum;
  }

  /// uᵀJu, factored so that it keeps its digits near the boundary.
  static CVXLAYER_INLINE V determinant(const V* u, int size) {
    const V norm = norm_tail(u, size);
    return (u[0] - norm) * (u[0] + norm);
  }

  /// Distance to the boundary, t − ‖z‖: positive inside.
  static CVXLAYER_INLINE V margin(const V* u, int size) { return u[0] - norm_tail(u, size); }

  /// The scaling point w (wᵀJw = 1) and η with W = η W(w), W y = W⁻¹ s.
  /// Needs s and y in the interior; elsewhere the lane turns NaN and is caught by its step.
  static void scaling_point(const V* s, const V* y, int size, V* w, V& eta) {
    const V root_s = O::sqrt(determinant(s, size)), root_y = O::sqrt(determinant(y, size));
    const V inverse_s = 1.0 / root_s, inverse_y = 1.0 / root_y;
    V inner{};
    for (int i = 0; i < size; ++i) inner += s[i] * y[i];
    const V gamma = O::sqrt((1.0 + inner * inverse_s * inverse_y) * 0.5);
    const V half = 0.5 / gamma;
    w[0] = (s[0] * inverse_s + y[0] * inverse_y) * half;
    for (int i = 1; i < size; ++i) w[i] = (s[i] * inverse_s - y[i] * inverse_y) * half;
    // Restore wᵀJw = 1 against rounding.
    V tail{};
    for (int i = 1; i < size; ++i) tail += w[i] * w[i];
    w[0] = O::sqrt(1.0 + tail);
    eta = O::sqrt(root_s * inverse_y);
  }

  /// out = W u (direction = +1) or W⁻¹ u (direction = −1); out may be u.
  template <int direction>
  static void multiply_scaling(const V* w, V eta, const V* u, int size, V* out) {
    V tail{};
    for (int i = 1; i < size; ++i) tail += w[i] * u[i];
    const V factor = direction > 0 ? eta : 1.0 / eta;
    const V head = u[0];
    const double sign = direction;
    const V shift = tail / (1.0 + w[0]) + head * sign;
    out[0] = factor * (w[0] * head + tail * sign);
    for (int i = 1; i < size; ++i) out[i] = factor * (u[i] + w[i] * shift);
  }

  /// out += coefficient · W² u, with W² = η²(2wwᵀ − J).
  static CVXLAYER_INLINE void add_squared(const V* w, V eta, const V* u, int size,
                                          double coefficient, V* out) {
    V inner{};
    for (int i = 0; i < size; ++i) inner += w[i] * u[i];
    const V factor = eta * eta * coefficient;
    inner = inner * 2.0;
    out[0] += factor * (w[0] * inner - u[0]);
    for (int i = 1; i < size; ++i) out[i] += factor * (w[i] * inner + u[i]);
  }

  /// Largest α with u + α du in the cone, u being inside; `limit` where there is none.
  static V step_length(const V* u, const V* du, int size, V limit) {
    const V a = hyperbolic(du, du, size), b = hyperbolic(u, du, size);
    const V c = O::max(determinant(u, size), V{});
    const V discriminant = b * b - a * c;
    const V root = O::sqrt(O::max(discriminant, V{})) - b;
    const M crosses = O::ge(discriminant, V{}) & O::gt(root, V{});
    // Rounding can hide a double root: there u + α du leaves through the apex, where its head
    // vanishes, and enters the opposite cone, where the determinant is positive again.
    const V apex = O::select(O::gt(-du[0], V{}), -u[0] / du[0], limit);
    return O::min(O::min(limit, apex), O::select(crosses, c / root, limit));
  }

  /// The η > 0 with λ = η − μ/η.
  static CVXLAYER_INLINE V smoothed(V value, V mu) {
    const V root = O::sqrt(value * value + 4.0 * mu);
    return O::select(O::gt(value, V{}), 0.5 * (value + root), 2.0 * mu / (root - value));
  }

  /// Spectral form of DΠ at v: eigenvalues (first, second, rest) on (1, ζ)/√2, (1, −ζ)/√2
  /// and (0, ζ^⊥), with ζ the direction of the tail (0 if the tail is 0).
  struct Spectrum {
    V first, second, rest;
    V inverse_norm;  // 1/‖z‖, 0 if z = 0
  };

  static Spectrum derivative(const V* v, int size) {
    const V norm = norm_tail(v, size);
    const M has_tail = O::gt(norm, V{});
    const V plus = v[0] + norm, minus = v[0] - norm;
    const V one = O::splat(1.0), zero{};
    Spectrum result;
    result.first = O::select(O::gt(plus, zero), one, zero);
    result.second = O::select(O::gt(minus, zero), one, zero);
    const V difference = O::max(plus, zero) - O::max(minus, zero);
    result.rest = O::select(has_tail, difference / (2.0 * norm), result.first);
    result.inverse_norm = O::select(has_tail, 1.0 / norm, zero);
    return result;
  }

  /// out = D²Π(v)[p, q]: ½/r (wᵀw', (a − c t/r) w' + (a' − c' t/r) w − (t/r) wᵀw' ζ) where exactly
  /// one eigenvalue is negative, for p = (a, c ζ + w), q likewise and r = ‖z‖. out may be p or q.
  static void curvature(const V* v, const V* p, const V* q, int size, V* out) {
    const V norm = norm_tail(v, size);
    const M is_curved = O::gt(norm, v[0]) & O::gt(norm, -v[0]);
    const V half = O::select(is_curved, 0.5 / norm, V{}), ratio = 2.0 * half * v[0];
    V along_p{}, along_q{}, inner{};
    for (int i = 1; i < size; ++i) {
      along_p += 2.0 * half * v[i] * p[i];
      along_q += 2.0 * half * v[i] * q[i];
    }
    const auto across = [=](const V* u, V along, int i) {
      return u[i] - along * 2.0 * half * v[i];
    };
    for (int i = 1; i < size; ++i) inner += across(p, along_p, i) * across(q, along_q, i);
    const V lead_p = p[0] - along_p * ratio, lead_q = q[0] - along_q * ratio;
    for (int i = 1; i < size; ++i) {
      const V both = lead_p * across(q, along_q, i) + lead_q * across(p, along_p, i);
      out[i] = half * (both - ratio * inner * 2.0 * half * v[i]);
    }
    out[0] = half * inner;
  }

  /// The same on the central path, where μ > 0: the derivative of λ ↦ η with λ = η − μ/η, and
  /// its divided difference.
  static void smooth(const V* v, int size, V mu, Spectrum& spectrum) {
    const V norm = norm_tail(v, size);
    const V plus = smoothed(v[0] + norm, mu), minus = smoothed(v[0] - norm, mu);
    const auto share = [mu](V product) { return product / (product + mu); };
    const M chosen = O::gt(mu, V{});
    spectrum.first = O::select(chosen, share(plus * plus), spectrum.first);
    spectrum.second = O::select(chosen, share(minus * minus), spectrum.second);
    spectrum.rest = O::select(chosen, share(plus * minus), spectrum.rest);
  }

  /// out = spectral matrix times u; out may be u.
  static void apply(const Spectrum& spectrum, const V* v, const V* u, int size, V* out) {
    V tail{};
    for (int i = 1; i < size; ++i) tail += v[i] * u[i];
    tail *= spectrum.inverse_norm;
    const V plus = spectrum.first * (u[0] + tail) * 0.5;
    const V minus = spectrum.second * (u[0] - tail) * 0.5;
    const V along = (plus - minus - spectrum.rest * tail) * spectrum.inverse_norm;
    out[0] = plus + minus;
    for (int i = 1; i < size; ++i) out[i] = spectrum.rest * u[i] + along * v[i];
  }

  static Spectrum square_root(Spectrum spectrum) {
    spectrum.first = O::sqrt(spectrum.first);
    spectrum.second = O::sqrt(spectrum.second);
    spectrum.rest = O::sqrt(spectrum.rest);
    return spectrum;
  }

  /// Entry (i, j) of the spectral matrix.
  static CVXLAYER_INLINE V entry(const Spectrum& spectrum, const V* v, int i, int j) {
    const V scale = spectrum.inverse_norm;
    const V sum = (spectrum.first + spectrum.second) * 0.5;
    if (i == 0 && j == 0) return sum;
    const V difference = (spectrum.first - spectrum.second) * 0.5;
    if (i == 0 || j == 0) return difference * scale * v[i + j];
    const V product = v[i] * v[j] * scale * scale * (sum - spectrum.rest);
    return i == j ? product + spectrum.rest : product;
  }
};

/// The scaling of one cone; the contract is in curved.hpp. State: w, λ and η, with W = η W(w).
template <class L>
struct SecondOrderScaling {
  using V = typename L::V;
  using O = Ops<L>;
  using Soc = SecondOrder<L>;

  const CurvedCone& cone;
  V *state, *scratch;

  long state_size() const { return 2L * cone.size + 1; }
  long scratch_size() const { return cone.size; }
  V* w() const { return state; }
  V* lambda() const { return state + cone.size; }
  V& eta() const { return state[2 * cone.size]; }

  static void set_unit(V* u, int lane) { O::set(u[0], lane, 1.0); }

  void update(const V* s, const V* y) const {
    Soc::scaling_point(s, y, cone.size, w(), eta());
    Soc::template multiply_scaling<1>(w(), eta(), y, cone.size, lambda());
  }

  /// H = η²(2wwᵀ − J).
  template <class Write>
  CVXLAYER_INLINE void write_block(const Write& write) const {
    const V* point = w();
    const V squared = eta() * eta();
    for (int i = 0; i < cone.size; ++i) {
      for (int j = 0; j < i; ++j) write(2.0 * squared * point[i] * point[j], false);
      const V diagonal = 2.0 * squared * point[i] * point[i];
      write(i == 0 ? diagonal - squared : diagonal + squared, true);
    }
  }

  static constexpr bool is_rooted = false;

  /// H is η² but for η²ρ² along f and η²/ρ² along e, with ρ = w₀ + ‖w₁‖ and ζ = −w₁/‖w₁‖.
  BorderNumbers<V> border(const V* /*v*/, V delta, V* zeta) const {
    const V* point = w();
    const V norm = Soc::norm_tail(point, cone.size), rho = point[0] + norm;
    const V inverse_norm = O::select(O::gt(norm, V{}), -1.0 / norm, V{});
    for (int a = 1; a < cone.size; ++a) zeta[a] = point[a] * inverse_norm;
    const V squared = eta() * eta(), low = squared / (rho * rho), high = squared * rho * rho;
    const V one = O::splat(1.0);
    BorderNumbers<V> b{};
    b.diagonal = squared + delta;
    b.inverse = 1.0 / b.diagonal;
    b.couple = one;
    const V spread = 2.0 * norm * squared;  // ρ² − 1 = 2 ρ ‖w₁‖
    b.pivot_stiff = low + delta;
    b.couple_stiff = b.side_stiff = b.give_stiff = O::sqrt(spread / rho * b.inverse);
    const V share = spread * rho / (high + delta);
    b.pivot_soft = b.inverse;
    b.couple_soft = b.side_soft = O::sqrt(share) * b.inverse;
    b.keep_soft = -share;
    return b;
  }

  void add_product(const V* v, double coefficient, V* out) const {
    Soc::add_squared(w(), eta(), v, cone.size, coefficient, out);
  }

  /// −shift − H dy magnifies the rounding of dy along f; there `feasible` is right, and only
  /// there it is given.
  void complete(const V* dy, const V* shifts, const V* feasible, V* ds) const {
    for (int i = 0; i < cone.size; ++i) ds[i] = -shifts[i];
    add_product(dy, -1.0, ds);
    if (!cone.is_bordered) return;
    const V* point = w();
    const V norm = Soc::norm_tail(point, cone.size);
    const V inverse_norm = O::select(O::gt(norm, V{}), 1.0 / norm, V{});
    V tail{};
    for (int i = 1; i < cone.size; ++i) tail += point[i] * (feasible[i] - ds[i]);
    const V along = 0.5 * (feasible[0] - ds[0] + inverse_norm * tail);
    ds[0] += along;
    for (int i = 1; i < cone.size; ++i) ds[i] += point[i] * (inverse_norm * along);
  }

  V squared_norm(const V* v) const {
    Soc::template multiply_scaling<1>(w(), eta(), v, cone.size, scratch);
    V sum{};
    for (int i = 0; i < cone.size; ++i) sum += scratch[i] * scratch[i];
    return sum;
  }

  V margin(const V* u) const { return Soc::margin(u, cone.size); }
  static void shift(V* u, V amount) { u[0] += amount; }

  void corrector(const V* /*s*/, const V* ds, const V* dy, V center, V* u) const {
    const int size = cone.size;
    V* left = scratch;
    const V* l = lambda();
    Soc::template multiply_scaling<-1>(w(), eta(), ds, size, left);
    Soc::template multiply_scaling<1>(w(), eta(), dy, size, u);
    V inner{}, square{};
    for (int i = 0; i < size; ++i) {
      inner += left[i] * u[i];
      square += l[i] * l[i];
    }
    const V left_head = left[0], u_head = u[0];
    for (int i = 1; i < size; ++i) {
      u[i] = left_head * u[i] + u_head * left[i] + 2.0 * l[0] * l[i];
    }
    u[0] = inner + square - center;
    divide(l, u, size);
    Soc::template multiply_scaling<1>(w(), eta(), u, size, u);
  }

  V step_length(const V* s, const V* ds, const V* y, const V* dy, V limit) const {
    const V alpha = Soc::step_length(s, ds, cone.size, limit);
    return Soc::step_length(y, dy, cone.size, alpha);
  }

 private:
  /// u ← λ \ u, the inverse of the Jordan product with λ.
  static void divide(const V* l, V* u, int size) {
    V tail{};
    for (int i = 1; i < size; ++i) tail += l[i] * u[i];
    const V head = (l[0] * u[0] - tail) / Soc::determinant(l, size);
    u[0] = head;
    const V inverse = 1.0 / l[0];
    for (int i = 1; i < size; ++i) u[i] = (u[i] - head * l[i]) * inverse;
  }
};

/// The projection of one cone; the contract is in curved.hpp. State: the spectra of D and S, and μ.
template <class L>
struct SecondOrderProjection {
  using V = typename L::V;
  using O = Ops<L>;
  using Soc = SecondOrder<L>;
  using Spectrum = typename Soc::Spectrum;

  const CurvedCone& cone;
  V *state, *scratch;

  static constexpr long spectrum_size = static_cast<long>(sizeof(Spectrum) / sizeof(V));
  static long state_size() { return 2 * spectrum_size + 1; }
  static long scratch_size() { return 0; }

  void decompose(const V* v, V mu = V{}) const {
    spectra()[0] = Soc::derivative(v, cone.size);
    if (O::any(O::gt(mu, V{}))) Soc::smooth(v, cone.size, mu, spectra()[0]);
    spectra()[1] = Soc::square_root(spectra()[0]);
    state[2 * spectrum_size] = mu;
  }
  void apply(const V* v, const V* u, V* out) const {
    Soc::apply(spectra()[0], v, u, cone.size, out);
  }
  void apply_root(const V* v, const V* u, V* out) const {
    Soc::apply(spectra()[1], v, u, cone.size, out);
  }
  template <class Write>
  CVXLAYER_INLINE void write_block(const V* v, const Write& write) const {
    for (int i = 0; i < cone.size; ++i) {
      for (int j = 0; j <= i; ++j) write(Soc::entry(spectra()[0], v, i, j), i == j);
    }
  }
  void project(const V* v, V* out) const {
    Soc::apply(Soc::derivative(v, cone.size), v, v, cone.size, out);
  }

  static constexpr bool is_rooted = true;

  /// D is r but for 1 along e and 0 along f, on the boundary; elsewhere it is r throughout.
  BorderNumbers<V> border(const V* v, V delta, V* zeta) const {
    const Spectrum& spectrum = spectra()[0];
    for (int a = 1; a < cone.size; ++a) zeta[a] = v[a] * spectrum.inverse_norm;
    if (O::any(O::gt(state[2 * spectrum_size], V{}))) return path_border(delta);
    const V one = O::splat(1.0), root = spectra()[1].rest;
    const V on_boundary = spectrum.first * (one - spectrum.second);
    BorderNumbers<V> b{};
    b.diagonal = one - spectrum.rest + delta;
    b.inverse = 1.0 / b.diagonal;
    b.couple = root;
    b.pivot_stiff = delta;
    const V complement = O::max(one - spectrum.rest, V{}) / (one + root);  // 1 − √r
    b.couple_stiff = on_boundary * O::sqrt(complement * (one + root) * (one + delta) * b.inverse);
    b.give_stiff = b.couple_stiff;
    b.side_stiff = on_boundary * O::sqrt(complement * b.inverse / ((one + root) * (one + delta))) *
                   (one + root + delta);
    b.pivot_soft = spectrum.rest * b.inverse;
    b.couple_soft = on_boundary * b.pivot_soft;
    b.side_soft = on_boundary * root * b.inverse;
    b.keep_stiff = -on_boundary * complement;
    b.keep_soft = -on_boundary;
    b.take_soft = -on_boundary / (one + delta);
    return b;
  }
  static void bend(const V* /*v*/) {}
  void curvature(const V* v, const V* p, const V* q, V* out) const {
    Soc::curvature(v, p, q, cone.size, out);
  }

 private:
  Spectrum* spectra() const { return reinterpret_cast<Spectrum*>(state); }

  /// The same on the central path, where D has an eigenvalue g² between 0 and 1 in each direction,
  /// with h̃ = 1 − g² + δ. A border of pivot p stands for ±c²/p = g'²/h̃' − g²/h̃ in the matrix and
  /// for ±c·side/p = g'/h̃' − g/h̃ on the right.
  BorderNumbers<V> path_border(V delta) const {
    const Spectrum &square = spectra()[0], &root = spectra()[1];
    const V one = O::splat(1.0);
    const auto quotient = [](V above, V below) {
      return O::select(O::gt(below, V{}), above / below, V{});
    };
    BorderNumbers<V> b{};
    b.diagonal = one - square.rest + delta;
    b.inverse = 1.0 / b.diagonal;
    b.couple = root.rest;
    b.pivot_stiff = one - square.first + delta;
    const V share = b.pivot_stiff * b.inverse, soft = 1.0 / (one - square.second + delta);
    b.couple_stiff = O::sqrt(O::max(square.first - square.rest * share, V{}));
    b.side_stiff = quotient(root.first - root.rest * share, b.couple_stiff);
    b.give_stiff = quotient(b.couple_stiff, root.first);
    b.keep_stiff = root.rest / root.first - one;
    b.pivot_soft = b.inverse;
    const V less = square.rest * b.inverse - square.second * soft;
    b.couple_soft = O::sqrt(O::max(less * b.inverse, V{}));
    b.side_soft = quotient((root.rest * b.inverse - root.second * soft) * b.inverse, b.couple_soft);
    const V kept = root.second * soft * b.diagonal / root.rest;
    b.keep_soft = kept - one;
    b.take_soft = kept * b.inverse - soft;
    return b;
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
