// SPDX-License-Identifier: Apache-2.0
//
// Eigenvalues and singular vectors of small symmetric matrices in lanes. Every loop is bounded,
// lanes that are done stand still, and one that is NaN counts as done.
// Source: Golub & Van Loan, Matrix Computations (4th edition), sections 8.3 and 8.6.
#pragma once

#include "dense.hpp"

namespace cvxlayer::CVXLAYER_ISA {

template <class L>
struct Spectral {
  using V = typename L::V;
  using M = typename L::M;
  using O = Ops<L>;

  static constexpr int kMaxSweeps = 40;
  // Singular vectors only change coordinates: what is left of their inner products is an error
  // of that relative size in a search direction, never in what the direction has to satisfy.
  static constexpr double kOrthogonal = 1e-9;
  static constexpr double kRounding = 2.3e-16;
  static constexpr double kNormRatio = 1e-4;  // of an extreme eigenvalue

  /// A = Q T Qᵀ for symmetric A, by Householder reflections: T has diagonal d and e[i] between
  /// i and i + 1 (e[k−1] = 0). A is overwritten: row j keeps the reflector of step j right of
  /// its diagonal, `factor[j]` its scale. `work` holds 2k numbers.
  static void tridiagonalize(V* a, int k, V* d, V* e, V* factor, V* work) {
    for (int j = 0; j < k; ++j) {
      d[j] = a[j * k + j];
      e[j] = j + 2 == k ? a[j * k + j + 1] : V{};
      factor[j] = V{};
      if (j + 2 >= k) continue;
      const int rest = k - j - 1;
      V* v = a + j * k + j + 1;
      V* window = a + (j + 1) * k + j + 1;
      factor[j] = make_reflector(v, rest, e[j]);
      reflect(window, k, v, rest, factor[j], work);
    }
  }

  /// X = Vᵀ diag(λ) V, rows of V (k × k) orthonormal; x is overwritten, `work` holds 4k.
  static void eigenvectors(V* x, int k, V* vectors, V* eigenvalues, V* work) {
    V *e = work, *factor = work + k;
    tridiagonalize(x, k, eigenvalues, e, factor, work + 2 * k);
    accumulate(x, k, factor, vectors);
    iterate_ql(eigenvalues, e, k, vectors);
  }

  /// An upper bound on the largest eigenvalue of symmetric X, off by at most a small part of
  /// it, or `floor` if that is larger. x is overwritten, `work` holds 5k.
  static V largest_eigenvalue(V* x, int k, V floor, V* work) {
    V *d = work, *e = work + k;
    tridiagonalize(x, k, d, e, work + 2 * k, work + 3 * k);
    V bound = O::splat(-__builtin_inf()), size = O::splat(1e-100);
    for (int i = 0; i < k; ++i) {
      const V below = i > 0 ? O::abs(e[i - 1]) : V{};
      bound = O::max(bound, d[i] + O::abs(e[i]) + below);
      size = O::max(size, O::abs(d[i]) + O::abs(e[i]));
    }
    return descend(d, e, k, bound + 1e-9 * size, floor);
  }

  /// Make the rows of A orthogonal by rotations, applied to the rows of B as well (one-sided
  /// Jacobi); `squares` receives the squared norms of the rows of A.
  static void orthogonalize(V* a, V* b, int k, V* squares) {
    for (int sweep = 0; sweep < kMaxSweeps; ++sweep) {
      for (int p = 0; p < k; ++p) squares[p] = inner(a + p * k, a + p * k, k);
      bool rotated = false;
      for (int p = 0; p + 1 < k; ++p) {
        for (int q = p + 1; q < k; ++q) rotated |= rotate_pair(a, b, k, p, q, squares);
      }
      if (!rotated) return;
    }
  }

 private:
  static CVXLAYER_INLINE V inner(const V* a, const V* b, int count) {
    if constexpr (L::width == 1) {
      V acc[1][1];
      multiply_tile<1, 1>(a, 0, b, 0, count, acc);
      return acc[0][0];
    } else {
      V sum[4] = {};  // four chains hide the latency of each
      int i = 0;
      for (; i + 4 <= count; i += 4) {
        for (int c = 0; c < 4; ++c) sum[c] += a[i + c] * b[i + c];
      }
      for (; i < count; ++i) sum[0] += a[i] * b[i];
      return (sum[0] + sum[1]) + (sum[2] + sum[3]);
    }
  }

  // ------------------------------------------------------------------------- Householder
  /// v ← the reflector (v₀ = 1) with (I − f vvᵀ) v_old = (head, 0, …, 0); returns f.
  static V make_reflector(V* v, int count, V& head) {
    V tail{};
    for (int i = 1; i < count; ++i) tail += v[i] * v[i];
    const V first = v[0], norm = O::sqrt(first * first + tail);
    const M has_tail = O::gt(tail, V{});
    head = O::select(has_tail, O::select(O::lt(first, V{}), norm, -norm), first);
    const V scale = O::select(has_tail, 1.0 / (first - head), V{});
    v[0] = O::splat(1.0);
    for (int i = 1; i < count; ++i) v[i] *= scale;
    return O::select(has_tail, (head - first) / head, V{});
  }

  /// A ← H A H with H = I − f vvᵀ.
  static void reflect(V* a, int stride, const V* v, int count, V f, V* w) {
    Dense<L>::multiply_vector(a, stride, v, count, w);
    V along{};
    for (int i = 0; i < count; ++i) along += v[i] * w[i];
    const V half = 0.5 * f * along;
    for (int i = 0; i < count; ++i) w[i] = f * (w[i] - half * v[i]);
    for (int i = 0; i < count; ++i) {
      V* row = a + static_cast<long>(i) * stride;
      const V vi = v[i], wi = w[i];
      for (int j = 0; j < count; ++j) row[j] -= vi * w[j] + wi * v[j];
    }
  }

  /// q ← Qᵀ from the reflectors that `tridiagonalize` left in a.
  static void accumulate(const V* a, int k, const V* factor, V* q) {
    for (int i = 0; i < k * k; ++i) q[i] = V{};
    for (int i = 0; i < k; ++i) q[i * k + i] = O::splat(1.0);
    for (int j = k - 3; j >= 0; --j) {
      const int rest = k - j - 1;
      const V* v = a + j * k + j + 1;
      for (int i = j + 1; i < k; ++i) {
        V* row = q + i * k + j + 1;
        const V along = factor[j] * inner(row, v, rest);
        for (int c = 0; c < rest; ++c) row[c] -= along * v[c];
      }
    }
  }

  // ------------------------------------------------------------------------- implicit QL
  static void iterate_ql(V* d, V* e, int k, V* z) {
    for (int l = 0; l + 1 < k; ++l) {
      for (int sweep = 0; sweep < kMaxSweeps; ++sweep) {
        V end, end_value;  // the block [l, end] that holds together, in each lane
        const M active = find_block(d, e, l, k, end, end_value);
        if (!O::any(active)) break;
        sweep_ql(d, e, l, k, z, active, end, end_value);
      }
    }
  }

  static M find_block(const V* d, const V* e, int l, int k, V& end, V& end_value) {
    end = O::splat(k - 1);
    end_value = d[k - 1];
    for (int i = k - 2; i >= l; --i) {
      const M couples = O::gt(O::abs(e[i]), kRounding * (O::abs(d[i]) + O::abs(d[i + 1])));
      end = O::select(couples, end, O::splat(i));
      end_value = O::select(couples, end_value, d[i]);
    }
    return O::gt(end, O::splat(l));
  }

  static void sweep_ql(V* d, V* e, int l, int k, V* z, M active, V end, V end_value) {
    const V one = O::splat(1.0), zero{};
    V g = (d[l + 1] - d[l]) / (2.0 * O::select(active, e[l], one));
    V r = O::sqrt(g * g + 1.0);
    g = end_value - d[l] + e[l] / (g + O::select(O::lt(g, zero), -r, r));
    V s = one, c = one, p = zero;
    M running = active;
    for (int i = k - 2; i >= l; --i) {
      const M on = running & O::lt(O::splat(i), end);
      if (!O::any(on)) continue;
      const V f = s * e[i], b = c * e[i];
      r = O::sqrt(f * f + g * g);
      // A vanishing r splits the block: this lane has to look for its end again.
      const M splits = on & ~O::gt(r, zero);
      const M turns = on & ~splits;
      e[i + 1] = O::select(on, r, e[i + 1]);
      d[i + 1] = O::select(splits, d[i + 1] - p, d[i + 1]);
      running = running & ~splits;
      const V inverse = 1.0 / O::select(turns, r, one);
      s = O::select(turns, f * inverse, s);
      c = O::select(turns, g * inverse, c);
      const V base = d[i + 1] - p, twice = (d[i] - base) * s + 2.0 * c * b;
      p = O::select(turns, s * twice, p);
      d[i + 1] = O::select(turns, base + p, d[i + 1]);
      g = O::select(turns, c * twice - b, g);
      const V sine = O::select(turns, s, zero), cosine = O::select(turns, c, one);
      V *low = z + i * k, *high = low + k;
      for (int t = 0; t < k; ++t) {
        const V above = high[t];
        high[t] = sine * low[t] + cosine * above;
        low[t] = cosine * low[t] - sine * above;
      }
    }
    d[l] = O::select(running, d[l] - p, d[l]);
    e[l] = O::select(running, g, e[l]);
    for (int i = l + 1; i < k; ++i) {
      e[i] = O::select(active & O::le(end, O::splat(i)) & O::ge(end, O::splat(i)), zero, e[i]);
    }
  }

  // ------------------------------------------------------- the largest root from above
  /// Laguerre's method on det(T − x): from above the largest root it falls to it, cubically
  /// and without passing it.
  static V descend(const V* d, const V* e, int k, V x, V floor) {
    M running = O::gt(x, floor);
    for (int pass = 0; pass < kMaxSweeps && O::any(running); ++pass) {
      V first{}, second{};  // Σ 1/(x − λ) and Σ 1/(x − λ)²
      V inverse{}, ratio{}, curvature{}, coupling{};
      for (int i = 0; i < k; ++i) {
        const V u = coupling * coupling * inverse;
        const V value = d[i] - x - u, slope = u * ratio - 1.0;
        const V bend = -u * (2.0 * ratio * ratio - curvature);
        inverse = 1.0 / value;
        ratio = slope * inverse;
        curvature = bend * inverse;
        first += ratio;
        second += ratio * ratio - curvature;
        coupling = e[i];
      }
      const V root = O::sqrt(O::max((k - 1.0) * (k * second - first * first), V{}));
      const V step = static_cast<double>(k) / (first + root);
      // Above the largest root every term is positive; by rounding, x may have reached it.
      const M moves = running & O::gt(first, V{}) & O::gt(step, V{});
      x = O::select(moves, x - step, x);
      running = moves & O::gt(step, kNormRatio * O::abs(x)) & O::gt(x, floor);
    }
    return O::max(x, floor);
  }

  // -------------------------------------------------------------------- one-sided Jacobi
  static bool rotate_pair(V* a, V* b, int k, int p, int q, V* squares) {
    V *ap = a + p * k, *aq = a + q * k;
    const V gamma = inner(ap, aq, k), alpha = squares[p], beta = squares[q];
    const M turns = O::gt(gamma * gamma, kOrthogonal * kOrthogonal * alpha * beta);
    if (!O::any(turns)) return false;
    const V zeta = (beta - alpha) / (2.0 * O::select(turns, gamma, O::splat(1.0)));
    const V root = O::abs(zeta) + O::sqrt(1.0 + zeta * zeta);
    V tangent = O::select(O::lt(zeta, V{}), -1.0 / root, 1.0 / root);
    tangent = O::select(turns, tangent, V{});
    const V cosine = 1.0 / O::sqrt(1.0 + tangent * tangent), sine = cosine * tangent;
    turn(ap, aq, k, cosine, sine);
    turn(b + p * k, b + q * k, k, cosine, sine);
    squares[p] = alpha - tangent * gamma;
    squares[q] = beta + tangent * gamma;
    return true;
  }

  static CVXLAYER_INLINE void turn(V* low, V* high, int k, V cosine, V sine) {
    for (int i = 0; i < k; ++i) {
      const V first = low[i], second = high[i];
      low[i] = cosine * first - sine * second;
      high[i] = sine * first + cosine * second;
    }
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
