// SPDX-License-Identifier: Apache-2.0
//
// Semismooth Newton steps, mostly one, from each solution of the interior point, W at once: from
// the tolerance to rounding level, where the piece of the solution map was recognized. Source:
// Busseti, Moursi & Boyd, Solution refinement at regular points of conic problems (COAP 74, 2019).
#pragma once

#include "linearization.hpp"

namespace cvxlayer::CVXLAYER_ISA {

// Passes of refinement; another is worth its time where its correction would be above this.
constexpr int kMostCorrections = 4;
constexpr double kNextCorrection = 1e-11;
// A step that ends no nearer than it began is followed by another above this. In curved cones the
// residual of a point may be as small as its error squared, that of the step from it as well.
constexpr double kExact = 1e-14;
constexpr int kMostChanges = 6;  // of the active rows, where the first were not the right ones

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
  using Base::root;
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

  M stored, moved_rows;  // lanes that were improved, and whose active rows are others by now
  M refused;             // and whose last step came closer, but not within the tolerance
  V reached;             // the smallest of residual and complementarity so far

  /// Replace solutions by one Newton step from them wherever that is the better point: the
  /// larger of its residual and its complementarity, sᵀy over the degree, falls. Where the step
  /// changes signs of v, its active rows were not the right ones, and more steps follow.
  void run(const ProblemData& problem, const Scaling& scaling, const AdjointData& io, long first,
           int count, bool matrices_ready, const SolveSettings& settings,
           const SolveResults& results) {
    load(problem, scaling, io, first, count, matrices_ready);
    if (!O::any(valid)) return;
    // The best iterate of a row that stalled later was not classified on the way.
    if (O::any(unclassified)) classify();
    const V before = reached = interior_residual();
    stored = moved_rows = refused = O::none();
    settle_rows();
    const M all = valid;
    for (int step = 0;; ++step) {
      linearize();
      find_newton_step(false);
      refine_newton_step();
      // The projected point may be worse than the interior one; so may the step from it be.
      const V most = step == 0 ? O::max(before, residual_norm) : O::splat(__builtin_inf());
      const M taken = take_newton_step(most);
      store_better(problem, results, settings, first, count);
      if (step == kMostChanges || !O::any(follow_signs(taken, before, step == 0))) break;
    }
    const M doubtful = all & ~stored & O::gt(before, O::splat(kPolished));
    for (int lane = 0; lane < count; ++lane) {
      if (O::get_mask(doubtful, lane)) declassify(results, first + lane);
    }
  }

 private:
  /// Choose the lanes that take another step, with the rows active where v > 0 after the last,
  /// which is taken even where the residual grew; and curved cones that came closer once more,
  /// though not close enough: convergence is quadratic.
  M follow_signs(M taken, V before, bool is_first) {
    const V enough = O::select(stored, O::splat(kPolished), O::splat(kExact));
    const M open = valid & O::gt(residual_norm, enough);
    valid = O::none();
    if (!O::any(open)) return valid;
    const M left = open & ~taken;
    for (int j = 0; j < structure->n; ++j) x[j] = O::select(left, trial_x[j], x[j]);
    for (int i = 0; i < structure->m; ++i) v[i] = O::select(left, trial_v[i], v[i]);
    M changed = O::none();
    for (int i = structure->num_zero; i < structure->num_linear; ++i) {
      const V sign = O::select(O::gt(v[i], V{}), O::splat(1.0), V{});
      changed = changed | (open & (O::lt(sign, root[i]) | O::lt(root[i], sign)));
      root[i] = O::select(open, sign, root[i]);
    }
    moved_rows = moved_rows | changed;
    valid = changed;
    if (structure->num_cones > 0 && is_first)
      valid = valid | (taken & open & (refused | ~O::lt(residual_norm, before)));
    return valid;
  }

  void store_better(const ProblemData& problem, const SolveResults& results,
                    const SolveSettings& settings, long first, int count) {
    const M better = valid & O::lt(residual_norm, reached);
    refused = O::none();
    if (!O::any(better)) return;
    reached = O::select(better, residual_norm, reached);
    stored = stored | better;
    const Objective objective = evaluate_objective();
    for (int lane = 0; lane < count; ++lane) {
      if (!O::get_mask(better, lane)) continue;
      const bool is_kept = store(problem, results, settings, first + lane, lane, objective);
      O::set_mask(refused, lane, !is_kept);
    }
  }

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

  /// Refine (u_n, u_m), for what δ took away where P is nearly singular. No residual tells of
  /// that; how fast the corrections shrink does.
  void refine_newton_step() {
    const StructureView& view = *structure;
    apply_root(trial_v, r_m);
    V before = norm(u_n, u_m);
    M running = valid;
    for (int pass = 0; pass < kMostCorrections; ++pass) {
      multiply(u_n, u_m, c_n, c_m);
      for (int j = 0; j < view.n; ++j) c_n[j] = -trial_x[j] - c_n[j];
      for (int i = 0; i < view.m; ++i) c_m[i] = -r_m[i] - c_m[i];
      kkt.solve_in_place(c_n, c_m);
      for (int j = 0; j < view.n; ++j) u_n[j] += O::select(running, c_n[j], V{});
      for (int i = 0; i < view.m; ++i) u_m[i] += O::select(running, c_m[i], V{});
      const V size = norm(c_n, c_m);
      const M shrinks = O::lt(size, 0.5 * before);
      const M matters = O::gt(size * size, kNextCorrection * before);
      running = running & shrinks & matters;
      if (!O::any(running)) return;
      before = size;
    }
  }

  /// (c_n, c_m) holds the residuals of the step that was taken, which is stored where these
  /// meet the tolerance, measured against the data alone, or none has grown in the user's
  /// units. A row that was short of the tolerance is solved if they meet it; a provisional one
  /// that is not keeps its point, for the solver to go on from. Returns whether it was stored.
  bool store(const ProblemData& problem, const SolveResults& results, const SolveSettings& settings,
             long row, int lane, const Objective& objective) const {
    const LaneResiduals residuals = measure_lane(settings, objective, c_n, c_m, lane);
    const bool has_grown = !(residuals.primal <= results.primal_residual[row]) ||
                           !(residuals.dual <= results.dual_residual[row]) ||
                           !(residuals.gap <= results.gap[row]);
    const bool is_provisional =
        results.status[row] == static_cast<std::int8_t>(Status::kProvisional);
    if (!residuals.meet_tolerance && (has_grown || is_provisional)) return false;
    store_lane(problem, results, row, lane, residuals);
    for (int i = 0; O::get_mask(moved_rows, lane) && i < structure->num_linear; ++i) {
      results.is_active.at(row, i) = O::get(root[i], lane) > 0.0;
    }
    if (residuals.meet_tolerance) results.status[row] = static_cast<std::int8_t>(Status::kSolved);
    return true;
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
