// SPDX-License-Identifier: Apache-2.0
//
// What the central path has instead of the projection: Π_μ(v) is the y inside K* with
// v = y + μ∇f*(y), f* the barrier of K*, so that s = y − v = −μ∇f*(y). It is smooth, with
//
//     D = (I + μ∇²f*(y))⁻¹,    D²Π_μ(v)[p, q] = −μ D ∇³f*(y)[Dp, Dq],
//
// and becomes the projection as μ → 0. The functions have the meaning of those of the projection
// faces in curved.hpp, on whose states they work. Specification: cvxlayer/cones/central_path.py.
#pragma once

#include "../linalg/spectral.hpp"
#include "exponential.hpp"
#include "power.hpp"
#include "second_order.hpp"
#include "semidefinite.hpp"

namespace cvxlayer::CVXLAYER_ISA {

constexpr int kMaxPathSteps = 80;
constexpr double kFullStep = 1.0 / 16.0;   // squared Newton decrements: shorter steps are whole,
constexpr double kLastDecrement = 1e-20;   // after one like this the rest is rounding,
constexpr double kSmallDecrement = 1e-10;  // and from here on they fall, or are rounding
constexpr double kFromBoundary = 1e-12;    // of the size of v: where the search may start

template <class L>
struct CentralPath {
  using V = typename L::V;
  using M = typename L::M;
  using O = Ops<L>;
  using Soc = SecondOrder<L>;
  using D = Dense<L>;
  using Eigen = Spectral<L>;
  using Svec = SymmetricVector<L>;
  template <template <class> class Cone>
  using Face3 = ThreeDimensionalProjection<L, Cone>;

  // --------------------------------------------------------------------------- inequalities
  /// y for a row of the nonnegative orthant, where s y = μ.
  static CVXLAYER_INLINE V project(V v, V mu) { return Soc::smoothed(v, mu); }

  /// D and 1 − D of such a row.
  static CVXLAYER_INLINE void differentiate(V v, V mu, V& derivative, V& rest) {
    const V y = project(v, mu), s = mu / y, inverse = 1.0 / (y + s);
    derivative = y * inverse;
    rest = s * inverse;
  }

  /// The second derivative.
  static CVXLAYER_INLINE V bend(V v, V mu) {
    const V y = project(v, mu), s = mu / y, inverse = 1.0 / (y + s);
    return 2.0 * (y * inverse) * (s * inverse) * inverse;
  }

  // --------------------------------------------------------------------- second-order cones
  static void project(const SecondOrderProjection<L>& face, const V* v, V mu, V* out) {
    const V norm = Soc::norm_tail(v, face.cone.size);
    const V plus = Soc::smoothed(v[0] + norm, mu), minus = Soc::smoothed(v[0] - norm, mu);
    const V along = O::select(O::gt(norm, V{}), 0.5 * (plus - minus) / norm, V{});
    out[0] = 0.5 * (plus + minus);
    for (int i = 1; i < face.cone.size; ++i) out[i] = along * v[i];
  }
  static void decompose(const SecondOrderProjection<L>& face, const V* v, V mu) {
    face.decompose(v, mu);
  }
  static void bend(const SecondOrderProjection<L>& face, const V* v, V mu) {
    face.decompose(v, mu);
  }

  /// With the idempotents c± = (1, ±ζ)/2 and p = p₊c₊ + p₋c₋ + w, and with the divided differences
  /// f of second order, the part of the result along c₊ is 2 (f₊₊₊ p₊q₊ + f₊₊₋ wᵀw'), likewise c₋,
  /// and across it is f₊₊₋ (p₊w' + q₊w) + f₊₋₋ (p₋w' + q₋w).
  static void curvature(const SecondOrderProjection<L>& face, const V* v, V mu, const V* p,
                        const V* q, V* out) {
    const int size = face.cone.size;
    const V norm = Soc::norm_tail(v, size), root = O::sqrt(mu);
    const V inverse_norm = O::select(O::gt(norm, V{}), 1.0 / norm, V{});
    const V plus = root / Soc::smoothed(v[0] + norm, mu);
    const V minus = root / Soc::smoothed(v[0] - norm, mu);
    const auto difference = [root](V a, V b, V c) {
      return a * b * c / (root * (1.0 + a * b) * (1.0 + b * c) * (1.0 + a * c));
    };
    const V most = difference(plus, plus, plus), least = difference(minus, minus, minus);
    const V more = difference(plus, plus, minus), less = difference(plus, minus, minus);
    V along_p{}, along_q{}, inner{};
    for (int i = 1; i < size; ++i) {
      along_p += v[i] * inverse_norm * p[i];
      along_q += v[i] * inverse_norm * q[i];
    }
    const auto across = [=](const V* u, V along, int i) {
      return u[i] - along * (v[i] * inverse_norm);
    };
    for (int i = 1; i < size; ++i) inner += across(p, along_p, i) * across(q, along_q, i);
    const V high_p = p[0] + along_p, low_p = p[0] - along_p;
    const V high_q = q[0] + along_q, low_q = q[0] - along_q;
    const V high = most * high_p * high_q + more * inner;  // half of the parts along c±
    const V low = least * low_p * low_q + less * inner;
    const V by_p = more * high_p + less * low_p, by_q = more * high_q + less * low_q;
    for (int i = 1; i < size; ++i) {
      const V tail = by_p * across(q, along_q, i) + by_q * across(p, along_p, i);
      out[i] = tail + (high - low) * (v[i] * inverse_norm);
    }
    out[0] = high + low;
  }

  // -------------------------------------------------------------------- semidefinite cones
  static void project(const SemidefiniteProjection<L>& face, const V* v, V mu, V* out) {
    const int k = face.order();
    V *basis = face.work(1), *rooted = face.work(2), *values = face.vectors();
    Svec::unpack(v, k, face.work(0));
    Eigen::eigenvectors(face.work(0), k, basis, values, values + k);
    for (int i = 0; i < k; ++i) {
      const V root = O::sqrt(Soc::smoothed(values[i], mu));
      for (int j = 0; j < k; ++j) rooted[j * k + i] = root * basis[i * k + j];
    }
    D::multiply_symmetric(rooted, rooted, k, face.work(0));
    Svec::pack(face.work(0), k, [&](int a, V value) { out[a] = value; });
  }
  static void decompose(const SemidefiniteProjection<L>& face, const V* v, V mu) {
    face.decompose(v, mu);
  }
  static void bend(const SemidefiniteProjection<L>& face, const V* v, V mu) {
    face.decompose(v, mu);
  }
  /// In the basis of the eigenvectors, with G = Ω ∘ H, G' likewise and Γ = diag(γ): the entries of
  /// GΓG' + G'ΓG times γᵢγⱼ Ω_ij/√μ.
  static void curvature(const SemidefiniteProjection<L>& face, const V* /*v*/, V mu, const V* p,
                        const V* q, V* out) {
    const int k = face.order();
    V *left = face.work(3), *right = face.work(1), *product = face.work(2);
    const V *gamma = face.gamma(), *weight = face.weight(), inverse = 1.0 / O::sqrt(mu);
    const EigenFrame<L> basis = face.frame();
    Svec::unpack(p, k, left);
    D::congruence(basis.rows, left, k, product, left);
    Svec::unpack(q, k, right);
    D::congruence(basis.rows, right, k, product, right);
    for (int i = 0; i < k; ++i) {
      for (int j = 0; j < k; ++j) {
        const V omega = weight[i * k + j] * weight[i * k + j];
        left[i * k + j] *= omega * gamma[j];
        right[i * k + j] *= omega;
      }
    }
    D::multiply(left, right, k, product);
    for (int i = 0; i < k; ++i) {
      for (int j = 0; j <= i; ++j) {
        const V omega = weight[i * k + j] * weight[i * k + j];
        const V both = product[i * k + j] + product[j * k + i];
        left[i * k + j] = left[j * k + i] = both * (gamma[i] * gamma[j] * omega * inverse);
      }
    }
    D::congruence(basis.columns, left, k, product, left);
    Svec::pack(left, k, [&](int a, V value) { out[a] = value; });
  }

  // -------------------------------------------------------------- three-dimensional cones
  template <template <class> class Cone>
  static void project(const Face3<Cone>& face, const V* v, V mu, V* out) {
    BarrierTerms<L> terms;
    Symmetric3<L> derivative;
    find<Cone>(face.cone.parameter, v, mu, terms, derivative);
    for (int i = 0; i < 3; ++i) out[i] = terms.point[i];
  }

  template <template <class> class Cone>
  static void decompose(const Face3<Cone>& face, const V* v, V mu) {
    BarrierTerms<L> terms;
    Symmetric3<L>* matrices = reinterpret_cast<Symmetric3<L>*>(face.state);
    find<Cone>(face.cone.parameter, v, mu, terms, matrices[0]);
    set_root(matrices[0], matrices[1]);
  }

  template <template <class> class Cone>
  static void bend(const Face3<Cone>& face, const V* v, V mu) {
    Bend& at = *reinterpret_cast<Bend*>(face.state);
    find<Cone>(face.cone.parameter, v, mu, at.terms, at.derivative);
  }

  template <template <class> class Cone>
  static void curvature(const Face3<Cone>& face, const V* /*v*/, V mu, const V* p, const V* q,
                        V* out) {
    const Bend& at = *reinterpret_cast<const Bend*>(face.state);
    V u[3], w[3], third[3];
    at.derivative.multiply(p, u);
    at.derivative.multiply(q, w);
    ThreeDimensionalScaling<L, Cone>::third_derivative(face.cone.parameter, at.terms, u, w, third);
    for (int i = 0; i < 3; ++i) third[i] *= -mu;
    at.derivative.multiply(third, out);
  }

 private:
  struct Bend {
    Symmetric3<L> derivative;
    BarrierTerms<L> terms;
  };
  static_assert(sizeof(Bend) / sizeof(V) <= kProjectionState3);

  /// y = argmin ½‖y − v‖² + μf*(y) and D there, by damped Newton steps: the function over μ is
  /// self-concordant, so that steps of 1/(1 + decrement) stay inside and few are needed. Source:
  /// Nesterov, Lectures on Convex Optimization (2018), section 5.2.
  template <template <class> class Cone>
  static void find(double parameter, const V* v, V mu, BarrierTerms<L>& terms,
                   Symmetric3<L>& derivative) {
    V y[3];
    set_start<Cone>(parameter, v, mu, y);
    M running = ~O::none();
    V before = O::splat(__builtin_inf());
    for (int pass = 0;; ++pass) {
      Cone<L>::expand(parameter, y, terms);
      invert<Cone>(parameter, mu, terms, derivative);
      if (pass == kMaxPathSteps || !O::any(running)) return;
      V slope[3], step[3];
      for (int i = 0; i < 3; ++i) {
        slope[i] = y[i] - v[i] - mu * terms.inverse_psi * terms.first[i];
        const double weight = Cone<L>::weight(parameter, i);
        if (weight != 0.0) slope[i] -= mu * weight * terms.inverse[i];
      }
      derivative.multiply(slope, step);
      const V decrement = O::max(dot3(slope, step), V{}) / mu;
      const V damped = 1.0 / (1.0 + O::sqrt(decrement));
      const V length = O::select(O::lt(decrement, O::splat(kFullStep)), O::splat(1.0), damped);
      // What neither falls nor is large is rounding, and its step not worth taking.
      const M is_rounding =
          O::lt(decrement, O::splat(kSmallDecrement)) & ~O::lt(decrement, 0.25 * before);
      running = running & ~is_rounding;
      for (int i = 0; i < 3; ++i) y[i] -= O::select(running, length * step[i], V{});
      running = running & O::gt(decrement, O::splat(kLastDecrement));
      before = decrement;
    }
  }

  /// Where v projects, moved inside along the unit e by the t that minimizes
  /// ½t²‖e‖² + t sᵀe − 3μ log t: no more than about μ above the minimum.
  template <template <class> class Cone>
  static void set_start(double parameter, const V* v, V mu, V* y) {
    double unit[3];
    Cone<L>::unit(parameter, unit);
    V opposite[3], nearest[3], unused, inner{};
    V largest{};
    double squared = 0.0;
    for (int i = 0; i < 3; ++i) opposite[i] = -v[i];
    Cone<L>::project(parameter, opposite, nullptr, unused, nearest);
    for (int i = 0; i < 3; ++i) {
      inner += nearest[i] * unit[i];
      squared += unit[i] * unit[i];
      largest = O::max(largest, O::abs(v[i]));
    }
    inner = O::max(inner, V{});
    const V t = 6.0 * mu / (inner + O::sqrt(inner * inner + 12.0 * mu * squared));
    const V inside = O::max(t, kFromBoundary * largest);
    for (int i = 0; i < 3; ++i) y[i] = v[i] + nearest[i] + inside * unit[i];
  }

  /// D from I + μ∇²f* = B + (μ/g₀²) ggᵀ, in which the last term may be far larger than B.
  template <template <class> class Cone>
  static void invert(double parameter, V mu, BarrierTerms<L>& terms, Symmetric3<L>& out) {
    terms.inverse_psi = 1.0 / terms.psi;
    Symmetric3<L> B;
    V g[3], size, z[3], column[3];
    Cone<L>::split(parameter, terms, g, size, B);
    for (int k = 0; k < 6; ++k) B.entry[k] *= mu;
    for (int i = 0; i < 3; ++i) B.entry[i * (i + 3) / 2] += 1.0;
    B.solve(g, z);
    for (int j = 0; j < 3; ++j) {
      V unit[3]{};
      unit[j] = O::splat(1.0);
      B.solve(unit, column);
      for (int i = j; i < 3; ++i) out.entry[i * (i + 1) / 2 + j] = column[i];
    }
    out.add_outer(-1.0 / (size * size / mu + dot3(g, z)), z);
  }

  /// S from D; what rounding made negative is zero.
  static void set_root(const Symmetric3<L>& derivative, Symmetric3<L>& out) {
    const V* d = derivative.entry;
    V full[9] = {d[0], d[1], d[3], d[1], d[2], d[4], d[3], d[4], d[5]};
    V rows[9], values[3], work[12];
    Spectral<L>::eigenvectors(full, 3, rows, values, work);
    out = Symmetric3<L>{};
    for (int i = 0; i < 3; ++i) out.add_outer(O::sqrt(O::max(values[i], V{})), rows + 3 * i);
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
