// SPDX-License-Identifier: Apache-2.0
//
// One semismooth Newton step from each solution of the interior point, W at once: from the
// tolerance to rounding level, where the piece of the solution map was recognized.
// Source: Busseti, Moursi & Boyd, Solution refinement at regular points of conic problems
// (COAP 74, 2019).
#pragma once

#include "linearization.hpp"

namespace cvxlayer::CVXLAYER_ISA {

template <class L>
struct Polish final : private Linearization<L> {
  using Base = Linearization<L>;
  using Base::apply_root;
  using Base::c_m;
  using Base::c_n;
  using Base::data;
  using Base::find_newton_step;
  using Base::kkt;
  using Base::lay_out;
  using Base::linearize;
  using Base::load;
  using Base::multiply;
  using Base::norm;
  using Base::r_m;
  using Base::residual_map;
  using Base::residual_norm;
  using Base::settle_rows;
  using Base::slack_of_row;
  using Base::structure;
  using Base::t_n;
  using Base::take_newton_step;
  using Base::trial_v;
  using Base::trial_x;
  using Base::u_m;
  using Base::u_n;
  using Base::unclassified;
  using Base::v;
  using Base::valid;
  using Base::x;
  using Base::y;
  using typename Base::M;
  using typename Base::O;
  using typename Base::V;

  /// Replace solutions by one Newton step from them wherever that is the better point: the
  /// larger of its residual and its complementarity, sᵀy over the degree, falls.
  void run(const ProblemData& problem, const Scaling& scaling, const AdjointData& io, long first,
           int count, bool matrices_ready, const SolveSettings& settings,
           const SolveResults& results) {
    load(problem, scaling, io, first, count, matrices_ready);
    valid = valid & ~unclassified;
    if (!O::any(valid)) return;
    const V before = interior_residual();
    settle_rows();
    linearize();
    find_newton_step(false);
    refine_newton_step();
    // The projected point may be worse than the interior one; so may the step from it be.
    take_newton_step(O::max(before, residual_norm));
    const M all = valid, far = valid & ~O::lt(residual_norm, before);
    if (structure->num_cones > 0 && O::any(far)) {
      valid = far;
      linearize();
      find_newton_step(false);
      refine_newton_step();
      take_newton_step(residual_norm);
      residual_map(x, v, y, c_n, c_m);
      valid = all;
    }
    const M better = all & O::lt(residual_norm, before);
    data.multiply_P(x, t_n);
    const StructureView& view = *structure;
    const V quadratic = dot(x, t_n, view.n), linear = dot(data.q, x, view.n);
    const V objective = O::abs(0.5 * quadratic + linear) / data.cost;
    const V gap = O::abs(quadratic + linear + dot(data.b, y, view.m)) / data.cost;
    for (int lane = 0; lane < count; ++lane) {
      if (!O::get_mask(better, lane)) continue;
      store(results, settings, first + lane, lane, O::get(gap, lane), O::get(objective, lane));
    }
  }

 private:
  /// How far the solver's own (x, y, s) is from optimal, equilibrated.
  V interior_residual() {
    const StructureView& view = *structure;
    data.multiply_P(x, c_n);
    data.multiply_At(y, t_n);
    for (int j = 0; j < view.n; ++j) c_n[j] += t_n[j] + data.q[j];
    data.multiply_A(x, c_m);
    V inner{};
    for (int i = 0; i < view.m; ++i) {
      c_m[i] += slack_of_row[i] - data.b[i];
      inner += slack_of_row[i] * y[i];
    }
    return O::max(norm(c_n, c_m), O::abs(inner) * (1.0 / (view.degree + 1)));
  }

  /// One pass of refinement of (u_n, u_m), for what δ took away where P is nearly singular.
  void refine_newton_step() {
    const StructureView& view = *structure;
    apply_root(trial_v, r_m);
    multiply(u_n, u_m, c_n, c_m);
    for (int j = 0; j < view.n; ++j) c_n[j] = -trial_x[j] - c_n[j];
    for (int i = 0; i < view.m; ++i) c_m[i] = -r_m[i] - c_m[i];
    kkt.solve_in_place(c_n, c_m);
    for (int j = 0; j < view.n; ++j) u_n[j] += c_n[j];
    for (int i = 0; i < view.m; ++i) u_m[i] += c_m[i];
  }

  /// (c_n, c_m) holds the residuals of the step that was taken. A provisional row is solved
  /// if they meet the tolerance, measured against the data alone; else its point is kept, for
  /// the solver to go on from.
  void store(const SolveResults& results, const SolveSettings& settings, long row, int lane,
             double gap, double objective) const {
    const StructureView& view = *structure;
    const double k = O::get(data.cost, lane), unit = k > 1.0 ? 1.0 / k : 1.0;
    double primal = 0.0, dual = 0.0, b_norm = 0.0, q_norm = 0.0;
    for (int j = 0; j < view.n; ++j) {
      const double unscale = O::get(data.inverse_kd[j], lane);
      dual = __builtin_fmax(dual, __builtin_fabs(O::get(c_n[j], lane)) * unscale);
      q_norm = __builtin_fmax(q_norm, __builtin_fabs(O::get(data.q[j], lane)) * unscale);
    }
    for (int i = 0; i < view.m; ++i) {
      const double unscale = O::get(data.inverse_e[i], lane);
      primal = __builtin_fmax(primal, __builtin_fabs(O::get(c_m[i], lane)) * unscale);
      b_norm = __builtin_fmax(b_norm, __builtin_fabs(O::get(data.b[i], lane)) * unscale);
    }
    const double abs = settings.eps_abs, rel = settings.eps_rel;
    const bool meets = primal <= abs + rel * b_norm && dual <= abs * unit + rel * q_norm &&
                       gap <= abs * unit + rel * objective;
    if (results.status[row] == static_cast<std::int8_t>(Status::kProvisional)) {
      if (!meets) return;
      results.status[row] = static_cast<std::int8_t>(Status::kSolved);
    }
    for (int j = 0; j < view.n; ++j) {
      results.x.at(row, j) = O::get(data.d[j], lane) * O::get(x[j], lane);
    }
    for (int i = 0; i < view.m; ++i) {
      if (__builtin_isinf(results.s.at(row, i))) continue;
      results.y.at(row, i) = O::get(data.e[i], lane) * O::get(y[i], lane) / k;
      results.s.at(row, i) = O::get(y[i] - v[i], lane) * O::get(data.inverse_e[i], lane);
    }
    results.primal_residual[row] = primal;
    results.dual_residual[row] = dual;
    results.gap[row] = gap;
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
