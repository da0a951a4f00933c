// SPDX-License-Identifier: Apache-2.0
//
// Positive semidefinite cone in lanes, as vectors svec(X) (lower triangle column by column,
// off-diagonals × √2): Nesterov–Todd scaling, step length, and the spectral form of the
// derivative of the projection. Its rows are eliminated by hand: with H (and 1 − D) diagonal in
// a basis of eigenvectors, their Schur complement costs no more than writing them down.
// Source: Vandenberghe, The CVXOPT linear and quadratic cone program solvers (2010), sections
// 4 and 5; for the derivative see cvxlayer/cones/semidefinite.py.
#pragma once

#include "../linalg/spectral.hpp"
#include "kind.hpp"
#include "semidefinite_curvature.hpp"
#include "semidefinite_frame.hpp"
#include "semidefinite_schur.hpp"

namespace cvxlayer::CVXLAYER_ISA {

// Below, γ counts as this where it is inverted and the derivative is that of the central path: the
// directions that neither P nor a slack holds are weak there, and drown. Refinement makes up for
// it.
constexpr double kLeastPathStiffness = 1e-3;

/// γᵢγⱼ, held at least² or more where both are small: there 1/H would only drown the others.
template <class L>
CVXLAYER_INLINE typename L::V bounded_stiffness(typename L::V first, typename L::V second,
                                                typename L::V least) {
  using O = Ops<L>;
  const auto low = O::min(first, second), high = O::max(first, second);
  const auto one = O::splat(1.0);
  return O::select(O::ge(high, one), low, O::max(low, least)) * O::max(high, least);
}

/// The scaling of one cone; the contract is in curved.hpp. W u = svec(Rᵀ U R), with RᵀYR =
/// R⁻¹SR⁻ᵀ = Λ diagonal, so H = WᵀW is U ↦ G U G with G = RRᵀ = Σ γᵢ vᵢvᵢᵀ.
template <class L>
struct SemidefiniteScaling {
  using V = typename L::V;
  using M = typename L::M;
  using O = Ops<L>;
  using D = Dense<L>;
  using Eigen = Spectral<L>;
  using Svec = SymmetricVector<L>;

  // A difference of that size beside Λ does not shorten a step.
  static constexpr double kAbsorbed = 0.1;
  // What rounding makes of a coordinate, beside the largest.
  static constexpr double kHidden = 1e-15;

  const CurvedCone& cone;
  V *state, *scratch;

  int order() const { return cone.order(); }
  long square() const { return static_cast<long>(order()) * order(); }
  long state_size() const { return 6 * square() + 2L * order(); }
  long scratch_size() const { return 6 * square() + 5L * order(); }
  V* root() const { return state; }                         // R
  V* root_transposed() const { return state + square(); }   // Rᵀ
  V* inverse_root() const { return state + 2 * square(); }  // R⁻¹
  V* stiffness() const { return state + 3 * square(); }     // H in the basis (vᵢ), bounded below
  V* lambda() const { return state + 6 * square(); }
  V* gamma() const { return state + 6 * square() + order(); }
  EigenFrame<L> frame() const {
    return {order(), state + 4 * square(), state + 5 * square(), work(0)};
  }

  void set_unit(V* u, int lane) const {
    int a = 0;
    for (int j = 0; j < order(); a += order() - j++) O::set(u[a], lane, 1.0);
  }

  /// From S = LₛLₛᵀ, Y = LᵧLᵧᵀ and LᵧᵀLₛ = UΛVᵀ: R = LₛVΛ^{-½}, R⁻¹ = Λ^{-½}UᵀLᵧᵀ.
  void update(const V* s, const V* y) const {
    const int k = order();
    V *factor_y = work(0), *product = work(1), *transposed = work(2), *factor_s = work(3);
    Svec::unpack(s, k, factor_s);
    D::cholesky(factor_s, k);
    V* vectors = root_transposed();
    D::transpose(factor_s, k, vectors);
    Svec::unpack(y, k, factor_y);
    D::cholesky(factor_y, k);
    D::transpose(factor_y, k, transposed);
    D::multiply(vectors, transposed, k, product);  // (LᵧᵀLₛ)ᵀ, then (UΛ)ᵀ
    V* squares = lambda();
    Eigen::orthogonalize(product, vectors, k, squares);
    D::multiply(product, factor_y, k, inverse_root());
    for (int i = 0; i < k; ++i) {
      const V value = O::sqrt(squares[i]);
      squares[i] = value;
      const V scale = 1.0 / O::sqrt(value), scale_inverse = scale / value;
      for (int j = 0; j < k; ++j) {
        vectors[i * k + j] *= scale;
        inverse_root()[i * k + j] *= scale_inverse;
      }
    }
    D::transpose(vectors, k, root());
    diagonalize();
  }

  void add_product(const V* v, double coefficient, V* out) const {
    transform(root_transposed(), v, work(0));
    D::congruence(root(), work(0), order(), work(1), work(0));
    Svec::pack(work(0), order(), [&](int a, V value) { out[a] += coefficient * value; });
  }

  /// r += H v; in the lanes given, 0 in the coordinates of the basis (vᵢ) where less is left than
  /// rounding of v makes there. H magnifies it: that is no error of v but one of the sum.
  void add_visible_product(const V* v, M lanes, V* r) const {
    V* visible = work(2);
    if (O::any(lanes)) find_visible_sum(v, r, visible);
    if (O::any(~lanes)) add_product(v, 1.0, r);
    for (int a = 0; a < cone.size; ++a) r[a] = O::select(lanes, visible[a], r[a]);
  }

  V squared_norm(const V* v) const {
    transform(root_transposed(), v, work(0));
    V sum{};
    for (int i = 0; i < square(); ++i) sum += work(0)[i] * work(0)[i];
    return sum;
  }

  V margin(const V* u) const {
    Svec::unpack(u, order(), work(0));
    for (int i = 0; i < square(); ++i) work(0)[i] = -work(0)[i];
    return -Eigen::largest_eigenvalue(work(0), order(), O::splat(-__builtin_inf()), vectors());
  }

  void shift(V* u, V amount) const {
    int a = 0;
    for (int j = 0; j < order(); a += order() - j++) u[a] += amount;
  }

  /// In the frame of Λ the Jordan product is (UV + VU)/2, and λ \ U divides by (λᵢ + λⱼ)/2.
  void corrector(const V* /*s*/, const V* ds, const V* dy, V center, V* u) const {
    const int k = order();
    const V* l = lambda();
    V *left = work(0), *right = work(1), *product = work(2);
    transform(inverse_root(), ds, left);
    transform(root_transposed(), dy, right);
    D::multiply(left, right, k, product);
    for (int i = 0; i < k; ++i) {
      for (int j = 0; j <= i; ++j) {
        V value = 0.5 * (product[i * k + j] + product[j * k + i]);
        if (i == j) value += l[i] * l[i] - center;
        left[i * k + j] = left[j * k + i] = value * (2.0 / (l[i] + l[j]));
      }
    }
    D::congruence(root(), left, k, product, right);
    Svec::pack(right, k, [&](int a, V value) { u[a] = value; });
  }

  /// H spans so many magnitudes that −shift − H dy magnifies the rounding of dy; `feasible` does
  /// so with that of dx. In the basis (vᵢ), where H is diagonal, each is right where the other
  /// is not; in another the errors of both would mix.
  void complete(const V* dy, const V* shifts, const V* feasible, V* ds) const {
    const int k = order();
    const EigenFrame<L> basis = frame();
    const V *g = gamma(), *l = lambda();
    V *total = work(0), *other = work(1);
    transform(basis.rows, shifts, total);
    transform(basis.rows, dy, other);
    V least = l[0];
    for (int i = 0; i < k; ++i) {
      least = O::min(least, l[i]);
      for (int j = 0; j < k; ++j) total[i * k + j] += g[i] * g[j] * other[i * k + j];
    }
    transform(basis.rows, feasible, other);
    for (int i = 0; i < k; ++i) {
      for (int j = 0; j < k; ++j) {
        const V bound = kAbsorbed * least * O::sqrt(g[i] * g[j]);
        const V wanted = other[i * k + j], difference = wanted + total[i * k + j];
        const V nearest = O::select(O::lt(difference, V{}), -bound, bound) - total[i * k + j];
        total[i * k + j] = O::select(O::le(O::abs(difference), bound), wanted, nearest);
      }
    }
    D::congruence(basis.columns, total, k, other, total);
    Svec::pack(total, k, [&](int a, V value) { ds[a] = value; });
  }

  V step_length(const V* /*s*/, const V* ds, const V* /*y*/, const V* dy, V limit) const {
    const V inverse = to_boundary(inverse_root(), ds, 1.0 / limit);
    return 1.0 / to_boundary(root_transposed(), dy, inverse);
  }

  /// H⁻¹ is γᵢ⁻¹γⱼ⁻¹, but no more than 1/δ where both are small: there s vanishes, and a
  /// larger number would only drown the others. Two Kronecker products add up to that.
  void add_schur(const ConeColumns& columns, const V* A, V delta, V* storage,
                 const long* at) const {
    const int k = order();
    const V least = O::sqrt(delta);
    const V* g = gamma();
    const V one = O::splat(1.0), zero{};
    bool any_small = false;
    for (int i = 0; i < k; ++i) {
      any_small |= O::any(O::lt(g[i], least));
      for (int j = 0; j < k; ++j) {
        stiffness()[i * k + j] = bounded_stiffness<L>(g[i], g[j], least);
      }
    }
    V *first = work(2), *second = work(3);
    const SemidefiniteSchur<L> schur{columns, A, k, work(0), storage, at};
    frame().sum([&](int i) { return 1.0 / O::max(g[i], least); }, first);
    schur.add(first, first, one);
    if (!any_small) return;
    frame().sum([&](int i) { return O::max(1.0 / g[i] - 1.0 / least, zero); }, first);
    frame().sum([&](int i) { return O::select(O::ge(g[i], one), 1.0 / g[i], zero); }, second);
    schur.add(first, second, O::splat(2.0));
  }
  /// out = H⁻¹ r
  void fold(const V* r, V* out) const { recover(r, out); }
  void recover(const V* r, V* out) const {
    frame().weigh(r, out, [this](int i) { return 1.0 / stiffness()[i]; });
  }
  static void couple(V* /*z*/) {}

 private:
  V* work(int i) const { return scratch + i * square(); }
  V* vectors() const { return scratch + 6 * square(); }

  /// γ and the vᵢ as singular values and left singular vectors of R: those of G lose the small
  /// ones. Its eigenvectors are where the rotations start.
  void diagonalize() const {
    const int k = order();
    const EigenFrame<L> basis = frame();
    V *copy = work(0), *rotated = work(1);
    D::multiply_symmetric(root(), root(), k, copy);
    Eigen::eigenvectors(copy, k, basis.rows, gamma(), vectors());
    D::multiply(basis.rows, root_transposed(), k, rotated);
    Eigen::orthogonalize(rotated, basis.rows, k, gamma());
    D::transpose(basis.rows, k, basis.columns);
  }

  /// out = B U Bᵀ for u = svec(U); uses work(5), and out must be another.
  void transform(const V* b, const V* u, V* out) const {
    Svec::unpack(u, order(), out);
    D::congruence(b, out, order(), work(5), out);
  }

  void find_visible_sum(const V* v, const V* r, V* out) const {
    const int k = order();
    const V* g = gamma();
    V *total = work(0), *other = work(1), largest{};
    transform(frame().rows, r, total);
    transform(frame().rows, v, other);
    for (int i = 0; i < square(); ++i) largest = O::max(largest, O::abs(other[i]));
    for (int i = 0; i < k; ++i) {
      for (int j = 0; j < k; ++j) {
        const V h = g[i] * g[j], sum = total[i * k + j] + h * other[i * k + j];
        total[i * k + j] = O::select(O::gt(O::abs(sum), kHidden * largest * h), sum, V{});
      }
    }
    D::congruence(frame().columns, total, k, other, total);
    Svec::pack(total, k, [&](int a, V value) { out[a] = value; });
  }

  /// 1/α of the longest step α from Λ along B du Bᵀ, at least `floor`.
  V to_boundary(const V* b, const V* du, V floor) const {
    const int k = order();
    V *direction = work(0), *scale = vectors();
    transform(b, du, direction);
    for (int i = 0; i < k; ++i) scale[i] = 1.0 / O::sqrt(lambda()[i]);
    for (int i = 0; i < k; ++i) {
      for (int j = 0; j < k; ++j) direction[i * k + j] *= -scale[i] * scale[j];
    }
    return Eigen::largest_eigenvalue(direction, k, floor, vectors());
  }
};

/// The projection of one cone; the contract is in curved.hpp. With V = Σ λᵢ vᵢvᵢᵀ the matrix D
/// weights the coordinates of U in the basis (vᵢ) by Ω. On the central path, λᵢ = ηᵢ − μ/ηᵢ and
/// Ω_ij = 1/(1 + γᵢγⱼ) with γᵢ = √μ/ηᵢ: the γ of the scaling at Y and S = μY⁻¹.
template <class L>
struct SemidefiniteProjection {
  using V = typename L::V;
  using M = typename L::M;
  using O = Ops<L>;
  using D = Dense<L>;
  using Eigen = Spectral<L>;
  using Svec = SymmetricVector<L>;

  const CurvedCone& cone;
  V *state, *scratch;

  int order() const { return cone.order(); }
  long square() const { return static_cast<long>(order()) * order(); }
  long state_size() const { return 4 * square() + 2L * order() + 1; }
  long scratch_size() const { return 6 * square() + 5L * order(); }
  V* weight() const { return state + 2 * square(); }     // √Ω
  V* stiffness() const { return state + 3 * square(); }  // 1 − Ω, bounded below
  V* eigenvalues() const { return state + 4 * square(); }
  V* gamma() const { return eigenvalues() + order(); }  // where μ > 0
  V& smoothing() const { return gamma()[order()]; }     // μ
  EigenFrame<L> frame() const { return {order(), state, state + square(), work(0)}; }

  void decompose(const V* v, V mu = V{}) const {
    const int k = order();
    V* values = eigenvalues();
    const EigenFrame<L> basis = frame();
    Svec::unpack(v, k, work(0));
    Eigen::eigenvectors(work(0), k, basis.rows, values, vectors());
    D::transpose(basis.rows, k, basis.columns);
    smoothing() = mu;
    const M smooth = O::gt(mu, V{});
    for (int i = 0; i < k; ++i) {
      const V eta = SecondOrder<L>::smoothed(values[i], mu);
      gamma()[i] = O::select(smooth, O::sqrt(mu) / eta, O::splat(1.0));
      for (int j = 0; j <= i; ++j) {
        const V share = 1.0 / (1.0 + gamma()[i] * gamma()[j]);
        const V omega = O::select(smooth, share, difference(values[i], values[j]));
        weight()[i * k + j] = weight()[j * k + i] = O::sqrt(omega);
      }
    }
  }

  void apply_root(const V* /*v*/, const V* u, V* out) const {
    frame().weigh(u, out, [this](int i) { return weight()[i]; });
  }
  void apply(const V* /*v*/, const V* u, V* out) const {
    frame().weigh(u, out, [this](int i) { return weight()[i] * weight()[i]; });
  }

  void project(const V* v, V* out) const {
    const int k = order();
    V *basis = work(1), *kept = work(2), *values = vectors();
    Svec::unpack(v, k, work(0));
    Eigen::eigenvectors(work(0), k, basis, values, values + k);
    V smallest = values[0];
    for (int i = 0; i < k; ++i) {
      smallest = O::min(smallest, values[i]);
      const V root = O::sqrt(O::max(values[i], V{}));
      for (int j = 0; j < k; ++j) kept[j * k + i] = root * basis[i * k + j];
    }
    D::multiply_symmetric(kept, kept, k, work(0));
    const M inside = O::ge(smallest, V{});
    Svec::pack(work(0), k, [&](int a, V value) { out[a] = O::select(inside, v[a], value); });
  }

  void bend(const V* v) const {
    const int k = order();
    V *size = eigenvalues(), *inverse = weight();
    const EigenFrame<L> basis = frame();
    Svec::unpack(v, k, work(0));
    Eigen::eigenvectors(work(0), k, basis.rows, size, vectors());
    D::transpose(basis.rows, k, basis.columns);
    for (int i = 0; i < k; ++i) {
      for (int j = 0; j <= i; ++j) {
        const V high = O::max(size[i], size[j]), low = O::min(size[i], size[j]);
        const M is_mixed = O::gt(high, V{}) & O::le(low, V{});
        const V share = O::select(is_mixed, 1.0 / (high - low), V{});
        inverse[i * k + j] = inverse[j * k + i] = share;
      }
    }
    for (int i = 0; i < k; ++i) size[i] = O::abs(size[i]);
  }

  void curvature(const V* /*v*/, const V* p, const V* q, V* out) const {
    const int k = order();
    V *H = work(0), *other = work(1), *left = work(2);
    const EigenFrame<L> basis = frame();
    Svec::unpack(p, k, H);
    D::congruence(basis.rows, H, k, left, H);
    Svec::unpack(q, k, other);
    D::congruence(basis.rows, other, k, left, other);
    const SemidefiniteCurvature<L> curvature{k,       eigenvalues(), weight(), left,
                                             work(3), work(4),       work(5)};
    curvature.run(H, other);
    D::congruence(basis.columns, H, k, left, H);
    Svec::pack(H, k, [&](int a, V value) { out[a] = value; });
  }

  /// Ω/(1 − Ω) is the product λ₊ · 1/|λ₋| where the signs differ and infinite, here 1/δ, where
  /// both are positive. On the central path it is γᵢ⁻¹γⱼ⁻¹, bounded as in the scaling.
  void add_schur(const ConeColumns& columns, const V* A, V delta, V* storage,
                 const long* at) const {
    const int k = order();
    const V* values = eigenvalues();
    const V one = O::splat(1.0), zero{};
    V largest{};
    for (int i = 0; i < k; ++i) largest = O::max(largest, O::abs(values[i]));
    const V floor = O::max(delta * largest, O::splat(1e-300));
    const V least = O::splat(kLeastPathStiffness);
    const M smooth = O::gt(smoothing(), zero);
    const V* g = gamma();
    for (int i = 0; i < k; ++i) {
      for (int j = 0; j < k; ++j) {
        const V high = O::max(values[i], values[j]), low = O::min(values[i], values[j]);
        const V mixed = (floor - low) / O::select(O::gt(high, zero), high - low, one);
        const V inner = O::select(O::gt(low, zero), delta, mixed);
        const V bounded = bounded_stiffness<L>(g[i], g[j], least) / (1.0 + g[i] * g[j]);
        stiffness()[i * k + j] =
            O::select(smooth, bounded, O::select(O::gt(high, zero), inner, one));
      }
    }
    V *first = work(2), *second = work(3);
    const SemidefiniteSchur<L> schur{columns, A, k, work(0), storage, at};
    frame().sum(
        [&](int i) {
          const V kept = O::select(O::gt(values[i], zero), one, zero);
          return O::select(smooth, 1.0 / O::max(g[i], least), kept);
        },
        first);
    schur.add(first, first, O::select(smooth, one, 1.0 / delta));
    frame().sum(
        [&](int i) {
          const V more = O::max(1.0 / g[i] - 1.0 / least, zero);
          return O::select(smooth, more, O::max(values[i], zero));
        },
        first);
    frame().sum(
        [&](int i) {
          const V far = O::select(O::ge(g[i], one), 1.0 / g[i], zero);
          const V inverse = 1.0 / (floor - O::min(values[i], zero));
          const V near = O::select(O::le(values[i], zero), inverse, zero);
          return O::select(smooth, far, near);
        },
        second);
    schur.add(first, second, O::splat(2.0));
  }
  /// out = S (I − D)⁻¹ r
  void fold(const V* r, V* out) const {
    frame().weigh(r, out, [this](int i) { return weight()[i] / stiffness()[i]; });
  }
  /// out = (I − D)⁻¹ r
  void recover(const V* r, V* out) const {
    frame().weigh(r, out, [this](int i) { return 1.0 / stiffness()[i]; });
  }
  /// z ← S z
  void couple(V* z) const { apply_root(nullptr, z, z); }

  V* work(int i) const { return scratch + i * square(); }
  V* vectors() const { return scratch + 6 * square(); }

 private:
  /// Ω for a pair of eigenvalues; one that is zero counts as negative.
  static CVXLAYER_INLINE V difference(V first, V second) {
    const V high = O::max(first, second), low = O::min(first, second);
    const M mixed = O::gt(high, V{}) & O::le(low, V{});
    const V ratio = high / O::select(mixed, high - low, O::splat(1.0));
    return O::select(mixed, ratio, O::select(O::gt(high, V{}), O::splat(1.0), V{}));
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
