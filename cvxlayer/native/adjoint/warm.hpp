// SPDX-License-Identifier: Apache-2.0
//
// From the solutions of other data to those of these, W at once, by semismooth Newton steps on
//
//     F(x, v) = (P x + AᵀΠ(v) + q,  A x + Π(v) − v − b)
//
// For linear cones the sign of v says which rows are active, and a step solves the equations
// that hold if they are: an active-set method that changes as many rows at once as it needs
// to (Hintermüller, Ito & Kunisch, SIAM J. Optim. 13(3), 2002). Nothing ensures that it
// converges; a row that has not arrived after a few steps is left to the interior point.
#pragma once

#include "linearization.hpp"

namespace cvxlayer::CVXLAYER_ISA {

constexpr int kMaxWarmSteps = 12;
constexpr int kMaxIdleSteps = 4;  // steps in a row without a new smallest residual

template <class L>
struct WarmStart final : private Linearization<L> {
  using Base = Linearization<L>;
  using Base::apply_root;
  using Base::c_m;
  using Base::data;
  using Base::evaluate_objective;
  using Base::kkt;
  using Base::linearize;
  using Base::measure_lane;
  using Base::num_linear;
  using Base::residual_map;
  using Base::residual_norm;
  using Base::root;
  using Base::smoothing;
  using Base::starts_nearby;
  using Base::store_lane;
  using Base::structure;
  using Base::t_m;
  using Base::trial_v;
  using Base::trial_x;
  using Base::u_m;
  using Base::u_n;
  using Base::v;
  using Base::x;
  using Base::y;
  using typename Base::M;
  using typename Base::O;
  using typename Base::Objective;
  using typename Base::V;
  static constexpr int W = L::width;
  M running, has_arrived;
  V reached;   // the smallest residual that was stored
  V smallest;  // the smallest residual of all steps
  int idle[W];

  void lay_out(const StructureView& view, Arena& arena) { Base::lay_out(view, arena); }

  /// Instances first, …, first + count − 1 (count ≤ W), from the points of `start`. Those
  /// that arrive get their results and the status kWarmStarted; of others nothing is said.
  void run(const ProblemData& problem, const Scaling& scaling, const StartingPoints& start,
           long first, int count, bool matrices_ready, const SolveSettings& settings,
           const SolveResults& results) {
    load(problem, scaling, start, first, count, matrices_ready);
    const int limit =
        settings.max_iterations < kMaxWarmSteps ? settings.max_iterations : kMaxWarmSteps;
    residual_norm = residual_map(x, v, y, trial_x, trial_v);
    for (int step = 1; step <= limit && O::any(running); ++step) {
      // Without a change of rows this is the same matrix, and the step refines the last one.
      const bool changed = follow_signs();
      if (step == 1 || changed || structure->num_cones > 0) linearize();
      take_step();
      residual_norm = residual_map(x, v, y, trial_x, trial_v);
      finish_lanes(problem, first, count, step, settings, results);
    }
  }

 private:
  void load(const ProblemData& problem, const Scaling& scaling, const StartingPoints& start,
            long first, int count, bool matrices_ready) {
    running = has_arrived = O::none();
    smoothing = V{};
    starts_nearby = false;
    reached = smallest = O::splat(__builtin_inf());
    data.load_lanes(problem, scaling, LaneRows<W>(first, count), matrices_ready);
    for (int lane = 0; lane < W; ++lane) {
      const long row = first + (lane < count ? lane : 0);
      O::set_mask(running, lane, lane < count && start.is_usable[row] != 0);
      idle[lane] = 0;
      load_point(problem, start, row, lane);
    }
    place_on_new_data();
  }

  void load_point(const ProblemData& problem, const StartingPoints& start, long row, int lane) {
    const bool usable = start.is_usable[row] != 0;
    const double k = O::get(data.cost, lane);
    for (int j = 0; j < structure->n; ++j) {
      O::set(x[j], lane, usable ? start.x.at(row, j) / O::get(data.d[j], lane) : 0.0);
    }
    for (int i = 0; i < structure->m; ++i) {
      const bool absent = i < num_linear() && __builtin_isinf(problem.b.at(row, i));
      const double dual = usable && !absent ? start.y.at(row, i) : 0.0;
      O::set(y[i], lane, k * dual / O::get(data.e[i], lane));
    }
  }

  /// v = y − s with the old x and y and the slack they have in the new data: rows that x now
  /// violates count as active, those it has left as inactive.
  void place_on_new_data() {
    data.multiply_A(x, t_m);
    for (int i = 0; i < structure->num_zero; ++i) {
      v[i] = y[i];
      root[i] = O::splat(1.0);
    }
    for (int i = structure->num_zero; i < structure->m; ++i) {
      v[i] = y[i] + t_m[i] - data.b[i];
      root[i] = V{};
    }
  }

  /// Make rows active where v > 0, inactive elsewhere. Returns whether any lane changed.
  bool follow_signs() {
    M changed = O::none();
    for (int i = structure->num_zero; i < num_linear(); ++i) {
      const V sign = O::select(O::gt(v[i], V{}), O::splat(1.0), V{});
      changed = changed | O::lt(sign, root[i]) | O::lt(root[i], sign);
      root[i] = sign;
    }
    return O::any(changed);
  }

  /// One full Newton step of the lanes that run; (trial_x, trial_v) holds the residual.
  void take_step() {
    apply_root(trial_v, c_m);
    const auto top = [this](int, int j) { return -trial_x[j]; };
    const auto bottom = [this](int, int i) { return -c_m[i]; };
    kkt.template solve<1>(top, bottom, {u_n}, {u_m});
    data.multiply_A(u_n, c_m);
    apply_root(u_m, t_m);
    for (int i = 0; i < structure->m; ++i) {
      v[i] = O::select(running, v[i] + t_m[i] + c_m[i] + trial_v[i], v[i]);
    }
    for (int j = 0; j < structure->n; ++j) x[j] = O::select(running, x[j] + u_n[j], x[j]);
  }

  /// Store what meets the tolerance, and stop lanes that are at rounding level, gain nothing
  /// more, or are lost.
  void finish_lanes(const ProblemData& problem, long first, int count, int step,
                    const SolveSettings& settings, const SolveResults& results) {
    const Objective objective = evaluate_objective();
    for (int lane = 0; lane < count; ++lane) {
      if (!O::get_mask(running, lane)) continue;
      const double residual = O::get(residual_norm, lane), before = O::get(reached, lane);
      const bool arrived = O::get_mask(has_arrived, lane);
      const LaneResiduals found = measure_lane(settings, objective, trial_x, trial_v, lane);
      if (found.meet_tolerance && residual < before) {
        store(problem, results, first + lane, lane, found, step);
        O::set(reached, lane, residual);
        O::set_mask(has_arrived, lane, true);
      }
      const bool ends = O::get_mask(has_arrived, lane) &&
                        (residual <= kPolished || (arrived && !(residual < 0.5 * before)));
      idle[lane] = residual < O::get(smallest, lane) ? 0 : idle[lane] + 1;
      if (idle[lane] == 0) O::set(smallest, lane, residual);
      if (ends || idle[lane] == kMaxIdleSteps) O::set_mask(running, lane, false);
    }
  }

  void store(const ProblemData& problem, const SolveResults& results, long row, int lane,
             const LaneResiduals& found, int step) const {
    store_lane(problem, results, row, lane, found);
    for (int i = 0; i < structure->m; ++i) {
      const bool active = O::get(v[i], lane) > 0.0 || i < structure->num_zero;
      results.is_active.at(row, i) = i < num_linear() ? active : -1;
    }
    results.status[row] = static_cast<std::int8_t>(Status::kWarmStarted);
    results.iterations[row] = step;
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
