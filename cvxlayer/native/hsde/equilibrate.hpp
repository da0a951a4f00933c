// SPDX-License-Identifier: Apache-2.0
//
// Ruiz equilibration of [P Aᵀ; A 0] and of the cost (Ruiz, RAL-TR-2001-034; cost scale as
// in OSQP, Stellato et al. 2020, section 5.1). One factor for all rows of a curved cone.
#pragma once

#include "../kkt/structure.hpp"
#include "../linalg/arena.hpp"
#include "../linalg/lanes.hpp"
#include "instances.hpp"

namespace cvxlayer::CVXLAYER_ISA {

constexpr int kRuizPasses = 2;
constexpr double kMinScale = 1e-4, kMaxScale = 1e4;
// Costs may be as large as they like; tiny ones may be rounding, which 10⁸ does not bring to one.
constexpr double kMinCost = 1e-300, kMaxCost = 1e8;

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

  /// Scale instances first, …, first + count − 1 (count ≤ W). With `matrices_shared` only
  /// the first group of a batch computes (d, e); later ones reuse row 0.
  void run(const ProblemData& data, const Scaling& scaling, long first, int count,
           bool compute_matrices) {
    load(data, first, count);
    if (compute_matrices) {
      compute_scales();
      for (int lane = 0; lane < count; ++lane) store_scales(scaling, first + lane, lane);
    } else {
      load_scales(scaling);
    }
    compute_cost(scaling, first, count);
  }

 private:
  void load(const ProblemData& data, long first, int count) {
    for (int lane = 0; lane < L::width; ++lane) {
      const long row = first + (lane < count ? lane : 0);
      for (int k = 0; k < structure->num_P; ++k) O::set(P[k], lane, data.P.at(row, k));
      for (int k = 0; k < structure->num_A; ++k) O::set(A[k], lane, data.A.at(row, k));
      for (int j = 0; j < structure->n; ++j) O::set(q[j], lane, data.q.at(row, j));
    }
  }

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
      for (int k = s.P_start[j]; k < s.P_start[j + 1]; ++k) {
        const int i = s.P_row[k];
        const V value = O::abs(P[k] * d[i] * d[j]);
        column_norm[j] = O::max(column_norm[j], value);
        column_norm[i] = O::max(column_norm[i], value);
      }
      for (int k = s.A_start[j]; k < s.A_start[j + 1]; ++k) {
        const int i = s.A_row[k];
        const V value = O::abs(A[k] * e[i] * d[j]);
        column_norm[j] = O::max(column_norm[j], value);
        row_norm[i] = O::max(row_norm[i], value);
      }
    }
  }

  /// k = 1 / max(mean column norm of d P d, ‖d ∘ q‖∞).
  void compute_cost(const Scaling& scaling, long first, int count) {
    const StructureView& s = *structure;
    for (int j = 0; j < s.n; ++j) column_norm[j] = V{};
    V largest_q{};
    for (int j = 0; j < s.n; ++j) {
      largest_q = O::max(largest_q, O::abs(q[j] * d[j]));
      for (int k = s.P_start[j]; k < s.P_start[j + 1]; ++k) {
        const int i = s.P_row[k];
        const V value = O::abs(P[k] * d[i] * d[j]);
        column_norm[j] = O::max(column_norm[j], value);
        column_norm[i] = O::max(column_norm[i], value);
      }
    }
    V mean{};
    for (int j = 0; j < s.n; ++j) mean += column_norm[j];
    if (s.n > 0) mean = mean * (1.0 / s.n);
    const V norm = O::max(mean, largest_q);
    V cost = O::select(O::gt(norm, V{}), 1.0 / norm, O::splat(1.0));
    cost = O::min(O::max(cost, O::splat(kMinCost)), O::splat(kMaxCost));
    for (int lane = 0; lane < count; ++lane) scaling.cost[first + lane] = O::get(cost, lane);
  }

  void store_scales(const Scaling& scaling, long row, int lane) const {
    double* out = scaling.scale + row * scaling.row_stride;
    for (int j = 0; j < structure->n; ++j) out[j] = O::get(d[j], lane);
    for (int i = 0; i < structure->m; ++i) out[structure->n + i] = O::get(e[i], lane);
  }

  void load_scales(const Scaling& scaling) {
    for (int j = 0; j < structure->n; ++j) d[j] = O::splat(scaling.scale[j]);
    for (int i = 0; i < structure->m; ++i) e[i] = O::splat(scaling.scale[structure->n + i]);
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
