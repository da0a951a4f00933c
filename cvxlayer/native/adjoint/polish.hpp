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
  using Base::classify;
  using Base::data;
  using Base::evaluate_objective;
  using Base::find_newton_step;
  using Base::kkt;
  using Base::lay_out;
  using Base::linearize;
  using Base::load;
  using Base::measure_lane;
  using Base::multiply;
  using Base::norm;
  using Base::r_m;
  using Base::residual_map;
  using Base::residual_norm;
  using Base::settle_rows;
  using Base::slack_of_row;
  using Base::store_lane;
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
  using typename Base::Objective;
  using typename Base::V;

  /// Replace solutions by one Newton step from them wherever that is the better point: the
  /// larger of its residual and its complementarity, sᵀy over the degree, falls.
  void run(const ProblemData& problem, const Scaling& scaling, const AdjointData& io, long first,
           int count, bool matrices_ready, const SolveSettings& settings,
           const SolveResults& results) {
    load(problem, scaling, io, first, count, matrices_ready);
    if (!O::any(valid)) return;
    // The best iterate of a row that stalled later was not classified on the way.
    if (O::any(unclassified)) classify();
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
    const Objective objective = evaluate_objective();
    const M doubtful = valid & ~better & O::gt(before, O::splat(kPolished));
    for (int lane = 0; lane < count; ++lane) {
      if (O::get_mask(doubtful, lane)) declassify(results, first + lane);
      if (!O::get_mask(better, lane)) continue;
      store(problem, results, settings, first + lane, lane, objective);
    }
  }

 private:
  /// A step that did not help may come from rows taken for active or inactive by mistake, as
  /// after a stalled iteration: the adjoint classifies them anew.
  void declassify(const SolveResults& results, long row) const {
    for (int i = 0; i < structure->num_linear; ++i) results.is_active.at(row, i) = -1;
  }

  /// How far the solver's own (x, y, s) is from optimal, equilibrated.
  V interior_residual() {
    const StructureView& view = *structure;
    data.multiply_P(x, c_n);
    data.multiply_both(x, c_m, y, t_n);
    for (int j = 0; j < view.n; ++j) c_n[j] += t_n[j] + data.q[j];
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

  /// (c_n, c_m) holds the residuals of the step that was taken, which is stored where these
  /// meet the tolerance, measured against the data alone, or none has grown in the user's
  /// units. A row that was short of the tolerance is solved if they meet it; a provisional one
  /// that is not keeps its point, for the solver to go on from.
  void store(const ProblemData& problem, const SolveResults& results, const SolveSettings& settings,
             long row, int lane, const Objective& objective) const {
    const LaneResiduals reached = measure_lane(settings, objective, c_n, c_m, lane);
    const bool has_grown = !(reached.primal <= results.primal_residual[row]) ||
                           !(reached.dual <= results.dual_residual[row]) ||
                           !(reached.gap <= results.gap[row]);
    const bool is_provisional =
        results.status[row] == static_cast<std::int8_t>(Status::kProvisional);
    if (!reached.meet_tolerance && (has_grown || is_provisional)) return;
    store_lane(problem, results, row, lane, reached);
    if (reached.meet_tolerance) results.status[row] = static_cast<std::int8_t>(Status::kSolved);
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
