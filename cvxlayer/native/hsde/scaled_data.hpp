// SPDX-License-Identifier: Apache-2.0
//
// The equilibrated data of W instances and the products with it.
#pragma once

#include "../kkt/structure.hpp"
#include "../linalg/arena.hpp"
#include "../linalg/lanes.hpp"
#include "lane_rows.hpp"

namespace cvxlayer::CVXLAYER_ISA {

template <class L>
struct ScaledData {
  using V = typename L::V;
  using M = typename L::M;
  using O = Ops<L>;

  const StructureView* structure;
  V *P, *q, *A, *b, *d, *e;
  V *inverse_e, *inverse_kd;  // 1/e and 1/(k d): residuals back to the user's units
  V cost;
  bool has_erased_rows[L::width] = {};

  void lay_out(const StructureView& view, Arena& arena) {
    structure = &view;
    P = arena.take<V>(view.num_P);
    q = arena.take<V>(view.n);
    A = arena.take<V>(view.num_A);
    b = arena.take<V>(view.m);
    d = arena.take<V>(view.n);
    e = arena.take<V>(view.m);
    inverse_e = arena.take<V>(view.m);
    inverse_kd = arena.take<V>(view.n);
  }

  /// Put one instance, scaled, into one lane. A and (d, e) are skipped when `matrices_ready`:
  /// they are shared by the batch and already in every lane. An inequality with an infinite
  /// bound becomes 0ᵀx + s = ±1 (scaled): never active, or never satisfied.
  void load(const ProblemData& data, const Scaling& scaling, long row, int lane,
            bool matrices_ready) {
    const StructureView& s = *structure;
    const double* scale_d = scaling.scale + row * scaling.row_stride;
    const double* scale_e = scale_d + s.n;
    const double k = scaling.cost[row];
    O::set(cost, lane, k);
    for (int j = 0; j < s.n; ++j) {
      const double kd = k * scale_d[j];
      O::set(inverse_kd[j], lane, 1.0 / kd);
      O::set(q[j], lane, kd * data.q.at(row, j));
      for (int t = s.P_start[j]; t < s.P_start[j + 1]; ++t) {
        O::set(P[t], lane, kd * scale_d[s.P_row[t]] * data.P.at(row, t));
      }
    }
    if (!matrices_ready || has_erased_rows[lane]) {
      for (int j = 0; j < s.n; ++j) {
        O::set(d[j], lane, scale_d[j]);
        for (int t = s.A_start[j]; t < s.A_start[j + 1]; ++t) {
          O::set(A[t], lane, scale_e[s.A_row[t]] * scale_d[j] * data.A.at(row, t));
        }
      }
      for (int i = 0; i < s.m; ++i) {
        O::set(e[i], lane, scale_e[i]);
        O::set(inverse_e[i], lane, 1.0 / scale_e[i]);
      }
    }
    has_erased_rows[lane] = false;
    for (int i = 0; i < s.m; ++i) {
      const double bound = data.b.at(row, i);
      O::set(b[i], lane, scale_e[i] * bound);
      if (__builtin_isinf(bound) && i >= s.num_zero && i < s.num_linear) erase_row(i, lane, bound);
    }
  }

  /// `load` for all lanes at once.
  void load_lanes(const ProblemData& data, const Scaling& scaling, const LaneRows<L::width>& lanes,
                  bool matrices_ready) {
    // The same function for a single instance, for the same order of products.
    if constexpr (L::width == 1) return load(data, scaling, lanes.row[0], 0, matrices_ready);
    const StructureView& s = *structure;
    for (int lane = 0; lane < L::width; ++lane) {
      O::set(cost, lane, scaling.cost[lanes.row[lane]]);
      matrices_ready = matrices_ready && !has_erased_rows[lane];
      has_erased_rows[lane] = false;
    }
    if (!matrices_ready) {
      load_rows<L>(scaling.rows(), lanes, s.n + s.m,
                   [&](int k, V value) { (k < s.n ? d[k] : e[k - s.n]) = value; });
      for (int i = 0; i < s.m; ++i) inverse_e[i] = 1.0 / e[i];
      load_rows<L>(data.A, lanes, s.num_A,
                   [&](int t, V value) { A[t] = e[s.A_row[t]] * d[s.A_column[t]] * value; });
    }
    load_rows<L>(data.q, lanes, s.n, [&](int j, V value) {
      const V kd = cost * d[j];
      inverse_kd[j] = 1.0 / kd;
      q[j] = kd * value;
    });
    load_rows<L>(data.P, lanes, s.num_P,
                 [&](int t, V value) { P[t] = cost * d[s.P_column[t]] * d[s.P_row[t]] * value; });
    M finite = ~O::none();
    load_rows<L>(data.b, lanes, s.m, [&](int i, V value) {
      b[i] = e[i] * value;
      finite = finite & O::is_finite(value);
    });
    if (O::any(~finite)) erase_infinite_rows(data, lanes);
  }

  void erase_infinite_rows(const ProblemData& data, const LaneRows<L::width>& lanes) {
    for (int i = structure->num_zero; i < structure->num_linear; ++i) {
      for (int lane = 0; lane < L::width; ++lane) {
        const double bound = data.b.at(lanes.row[lane], i);
        if (__builtin_isinf(bound)) erase_row(i, lane, bound);
      }
    }
  }

  void erase_row(int i, int lane, double bound) {
    const StructureView& s = *structure;
    has_erased_rows[lane] = true;
    O::set(b[i], lane, bound > 0 ? 1.0 : -O::get(e[i], lane));
    for (int t = s.row_start[i]; t < s.row_start[i + 1]; ++t) O::set(A[s.row_entry[t]], lane, 0.0);
  }

  /// Whether an inequality was erased, because its bound is +∞.
  bool is_erased(const ProblemData& data, long row, int i) const {
    return i >= structure->num_zero && i < structure->num_linear &&
           data.b.at(row, i) == __builtin_inf();
  }

  /// Erased rows have the slack ∞ and a multiplier of 0.
  void restore_erased_rows(const ProblemData& data, long row, int lane,
                           const SolveResults& results) const {
    if (!has_erased_rows[lane]) return;
    for (int i = structure->num_zero; i < structure->num_linear; ++i) {
      if (!is_erased(data, row, i)) continue;
      results.y.at(row, i) = 0.0;
      results.s.at(row, i) = __builtin_inf();
      results.is_active.at(row, i) = 0;
    }
  }

  /// out = P x.
  void multiply_P(const V* x, V* out) const {
    const StructureView& s = *structure;
    for (int j = 0; j < s.n; ++j) out[j] = V{};
    if (s.is_P_full) return multiply_full_P(x, out);
    for (int j = 0; j < s.n; ++j) {
      V sum = out[j];
      const V xj = x[j];
      for (int t = s.P_start[j]; t < s.P_start[j + 1]; ++t) {
        const int i = s.P_row[t];
        sum += P[t] * x[i];
        if (i != j) out[i] += P[t] * xj;
      }
      out[j] = sum;
    }
  }

  /// out = A x.
  void multiply_A(const V* x, V* out) const {
    const StructureView& s = *structure;
    if (s.is_A_full) return multiply_full_A<true, false>(x, out, nullptr, nullptr);
    for (int i = 0; i < s.m; ++i) {
      V sum{};
      for (int t = s.row_start[i]; t < s.row_start[i + 1]; ++t) {
        sum += A[s.row_entry[t]] * x[s.row_column[t]];
      }
      out[i] = sum;
    }
  }

  /// out = Aᵀ y.
  void multiply_At(const V* y, V* out) const {
    const StructureView& s = *structure;
    if (s.is_A_full) return multiply_full_A<false, true>(nullptr, nullptr, y, out);
    for (int j = 0; j < s.n; ++j) {
      V sum{};
      for (int t = s.A_start[j]; t < s.A_start[j + 1]; ++t) sum += A[t] * y[s.A_row[t]];
      out[j] = sum;
    }
  }

  /// Ax = A x and Aty = Aᵀ y; of a full A in one pass over it.
  void multiply_both(const V* x, V* Ax, const V* y, V* Aty) const {
    if (structure->is_A_full) return multiply_full_A<true, true>(x, Ax, y, Aty);
    multiply_A(x, Ax);
    multiply_At(y, Aty);
  }

 private:
  /// For K columns of `count` entries: sum_c = column_cᵀ left, out += Σ_c column_c right_c.
  template <int K, bool adds, bool sums>
  CVXLAYER_INLINE static void sweep(const V* const (&column)[K], int count, const V* left,
                                    const V (&right)[K], V* out, V (&sum)[K]) {
    V total[K] = {};
#pragma GCC ivdep
    for (int i = 0; i < count; ++i) {
      V changed{}, factor{};
      if constexpr (adds) changed = out[i];
      if constexpr (sums) factor = left[i];
#pragma GCC unroll 4
      for (int c = 0; c < K; ++c) {
        const V entry = column[c][i];
        if constexpr (adds) changed += entry * right[c];
        if constexpr (sums) total[c] += entry * factor;
      }
      if constexpr (adds) out[i] = changed;
    }
    for (int c = 0; c < K; ++c) sum[c] = total[c];
  }

  template <int K, bool adds, bool sums>
  CVXLAYER_INLINE void sweep_A(int j, const V* x, V* Ax, const V* y, V* Aty) const {
    const int m = structure->m;
    const V* column[K];
    V right[K] = {}, sum[K];
    for (int c = 0; c < K; ++c) {
      column[c] = A + static_cast<long>(j + c) * m;
      if constexpr (adds) right[c] = x[j + c];
    }
    sweep<K, adds, sums>(column, m, y, right, Ax, sum);
    if constexpr (sums) {
      for (int c = 0; c < K; ++c) Aty[j + c] = sum[c];
    }
  }

  template <bool adds, bool sums>
  void multiply_full_A(const V* x, V* Ax, const V* y, V* Aty) const {
    const int n = structure->n;
    if constexpr (adds) {
      for (int i = 0; i < structure->m; ++i) Ax[i] = V{};
    }
    int j = 0;
    for (; j + 4 <= n; j += 4) sweep_A<4, adds, sums>(j, x, Ax, y, Aty);
    for (; j < n; ++j) sweep_A<1, adds, sums>(j, x, Ax, y, Aty);
  }

  /// out += P x for K columns from j of a full upper triangle: what lies above them, then the
  /// triangle on the diagonal.
  template <int K>
  CVXLAYER_INLINE void sweep_P(int j, const V* x, V* out) const {
    const V* column[K];
    V right[K], sum[K];
    for (int c = 0; c < K; ++c) {
      column[c] = P + structure->P_start[j + c];
      right[c] = x[j + c];
    }
    sweep<K, true, true>(column, j, x, right, out, sum);
    for (int c = 0; c < K; ++c) {
      for (int r = 0; r < c; ++r) {
        sum[c] += column[c][j + r] * right[r];
        sum[r] += column[c][j + r] * right[c];
      }
      sum[c] += column[c][j + c] * right[c];
    }
    for (int c = 0; c < K; ++c) out[j + c] += sum[c];
  }

  void multiply_full_P(const V* x, V* out) const {
    const int n = structure->n;
    int j = 0;
    for (; j + 4 <= n; j += 4) sweep_P<4>(j, x, out);
    for (; j < n; ++j) sweep_P<1>(j, x, out);
  }
};

template <class V>
CVXLAYER_INLINE V dot(const V* a, const V* b, int count) {
  V sum[2] = {};
  int i = 0;
  for (; i + 2 <= count; i += 2) {
    sum[0] += a[i] * b[i];
    sum[1] += a[i + 1] * b[i + 1];
  }
  if (i < count) sum[0] += a[i] * b[i];
  return sum[0] + sum[1];
}

}  // namespace cvxlayer::CVXLAYER_ISA
