// SPDX-License-Identifier: Apache-2.0
//
// Ruiz equilibration of [P Aᵀ; A 0] and of the cost (Ruiz, RAL-TR-2001-034; cost scale as
// in OSQP, Stellato et al. 2020, section 5.1). One factor for all rows of a curved cone.
#pragma once

#include "../kkt/structure.hpp"
#include "../linalg/arena.hpp"
#include "../linalg/wide.hpp"
#include "lane_rows.hpp"

namespace cvxlayer::CVXLAYER_ISA {

constexpr int kRuizPasses = 2;
constexpr double kMinScale = 1e-4, kMaxScale = 1e4;
// Costs may be as large as they like; tiny ones may be rounding, which 10⁸ does not bring to one.
constexpr double kMinCost = 1e-300, kMaxCost = 1e8;
// A P with larger entries is divided by the largest first: no d within its bounds balances it.
constexpr double kLargestCurvature = 1e4;

/// Reads raw data of up to W instances and writes their scale factors.
template <class L>
struct Equilibration {
  using V = typename L::V;
  using O = Ops<L>;

  const StructureView* structure;
  V *P, *A, *q, *d, *e, *column_norm, *row_norm;

  void lay_out(const StructureView& view, Arena& arena) {
    structure = &view;
    P = arena.take<V>(view.num_P);
    A = arena.take<V>(view.num_A);
    q = arena.take<V>(view.n);
    d = arena.take<V>(view.n);
    e = arena.take<V>(view.m);
    column_norm = arena.take<V>(view.n);
    row_norm = arena.take<V>(view.m);
  }

  /// Scale instances first, …, first + count − 1 (count ≤ W). If P and A are shared by the
  /// batch, `compute_matrices` is for its first call only, which finds (d, e) for all.
  void run(const ProblemData& data, const Scaling& scaling, long first, int count,
           bool compute_matrices) {
    const LaneRows<L::width> lanes(first, count);
    load_rows<L>(data.q, lanes, structure->n, [&](int j, V value) { q[j] = value; });
    V mean;
    if (compute_matrices) {
      V largest{};
      load_rows<L>(data.P, lanes, structure->num_P, [&](int t, V value) {
        P[t] = value;
        largest = O::max(largest, O::abs(value));
      });
      const auto is_large = O::gt(largest, O::splat(kLargestCurvature)) & O::is_finite(largest);
      const V unit = O::select(is_large, largest, O::splat(1.0));
      if (O::any(is_large)) {
        for (int t = 0; t < structure->num_P; ++t) P[t] /= unit;
      }
      load_rows<L>(data.A, lanes, structure->num_A, [&](int t, V value) { A[t] = value; });
      compute_scales();
      mean = mean_norm() * unit;
      store_scales(scaling, first, count);
      if (scaling.is_shared()) *scaling.shared_mean = O::get(mean, 0);
    } else {
      for (int j = 0; j < structure->n; ++j) d[j] = O::splat(scaling.scale[j]);
      mean = O::splat(*scaling.shared_mean);
    }
    store_cost(mean, scaling, first, count);
  }

 private:
  void compute_scales() {
    const StructureView& s = *structure;
    for (int j = 0; j < s.n; ++j) d[j] = O::splat(1.0);
    for (int i = 0; i < s.m; ++i) e[i] = O::splat(1.0);
    for (int pass = 0; pass < kRuizPasses; ++pass) {
      measure_norms();
      for (int k = 0; k < s.num_cones; ++k) {
        V largest{};
        const int begin = s.cones[k].start, end = s.cones[k].end();
        for (int i = begin; i < end; ++i) largest = O::max(largest, row_norm[i]);
        for (int i = begin; i < end; ++i) row_norm[i] = largest;
      }
      for (int j = 0; j < s.n; ++j) d[j] = updated(d[j], column_norm[j]);
      for (int i = 0; i < s.m; ++i) e[i] = updated(e[i], row_norm[i]);
    }
  }

  static CVXLAYER_INLINE V updated(V scale, V norm) {
    const V divisor = O::select(O::gt(norm, V{}), O::sqrt(norm), O::splat(1.0));
    return O::min(O::max(scale / divisor, O::splat(kMinScale)), O::splat(kMaxScale));
  }

  /// Infinity norms of the columns of [P Aᵀ; A 0] under the current scaling.
  void measure_norms() {
    const StructureView& s = *structure;
    for (int j = 0; j < s.n; ++j) column_norm[j] = V{};
    for (int i = 0; i < s.m; ++i) row_norm[i] = V{};
    for (int j = 0; j < s.n; ++j) {
      measure_column(P, s.P_row, s.P_start[j], s.P_start[j + 1], j, d, column_norm);
      measure_column(A, s.A_row, s.A_start[j], s.A_start[j + 1], j, e, row_norm);
    }
  }

  /// Entries begin, …, end − 1 are in column j, scaled by dⱼ and by `scale` of their rows.
  void measure_column(const V* entries, const int* rows, int begin, int end, int j, const V* scale,
                      V* norm) {
    if (begin == end) return;
    const V own_scale = d[j];
    V own_norm{};
    int k = begin;
    // Most columns of dense matrices are without gaps.
    if (rows[end - 1] - rows[begin] == end - 1 - begin) {
      const int shift = rows[begin] - begin;
      if constexpr (L::width == 1) {
        own_norm = measure_chunks(entries, k, end, own_scale, scale + shift, norm + shift);
      }
      for (; k < end; ++k) {
        const V value = O::abs(entries[k] * scale[k + shift] * own_scale);
        own_norm = O::max(own_norm, value);
        norm[k + shift] = O::max(norm[k + shift], value);
      }
    }
    for (; k < end; ++k) {
      const V value = O::abs(entries[k] * scale[rows[k]] * own_scale);
      own_norm = O::max(own_norm, value);
      norm[rows[k]] = O::max(norm[rows[k]], value);
    }
    column_norm[j] = O::max(column_norm[j], own_norm);
  }

  /// The same for whole vectors of entries of a single instance, from k on.
  static double measure_chunks(const double* entries, int& k, int end, double own_scale,
                               const double* scale, double* norm) {
    const auto at = [](const double* start) {
      return Wide(*reinterpret_cast<const WideUnaligned*>(start));
    };
    Wide largest{};
    for (; k + kWide <= end; k += kWide) {
      Wide value = at(entries + k) * at(scale + k) * own_scale;
      value = value < 0.0 ? -value : value;
      largest = largest < value ? value : largest;
      const Wide known = at(norm + k);
      *reinterpret_cast<WideUnaligned*>(norm + k) = known < value ? value : known;
    }
    double own_norm = 0.0;
    for (int c = 0; c < kWide; ++c) own_norm = own_norm < largest[c] ? largest[c] : own_norm;
    return own_norm;
  }

  /// The mean norm of the columns of d P d.
  V mean_norm() {
    const StructureView& s = *structure;
    for (int j = 0; j < s.n; ++j) column_norm[j] = V{};
    for (int j = 0; j < s.n; ++j) {
      measure_column(P, s.P_row, s.P_start[j], s.P_start[j + 1], j, d, column_norm);
    }
    V mean{};
    for (int j = 0; j < s.n; ++j) mean += column_norm[j];
    return s.n > 0 ? mean * (1.0 / s.n) : mean;
  }

  /// k = 1 / max(mean, ‖d ∘ q‖∞).
  void store_cost(V mean, const Scaling& scaling, long first, int count) const {
    V norm = mean;
    for (int j = 0; j < structure->n; ++j) norm = O::max(norm, O::abs(q[j] * d[j]));
    V cost = O::select(O::gt(norm, V{}), 1.0 / norm, O::splat(1.0));
    cost = O::min(O::max(cost, O::splat(kMinCost)), O::splat(kMaxCost));
    for (int lane = 0; lane < count; ++lane) scaling.cost[first + lane] = O::get(cost, lane);
  }

  void store_scales(const Scaling& scaling, long first, int count) const {
    const StructureView& s = *structure;
    // Shared ones lie there once, for the only instance of their call.
    const Rows<double> rows{scaling.scale, scaling.row_stride, 1};
    store_rows<L>(rows, first, count, s.n + s.m,
                  [&](int k) { return k < s.n ? d[k] : e[k - s.n]; });
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
