// SPDX-License-Identifier: Apache-2.0
//
// When a lane needs more than one solve with K: iterative refinement against the unregularized
// matrix, the regularization δ that goes with it, and the sign that it is time.
#pragma once

#include "cone_scaling.hpp"

namespace cvxlayer::CVXLAYER_ISA {

// Without refinement, a δ that forgives rounding; with it, one that a few passes take out.
constexpr double kRegularization = 1e-8, kCarefulRegularization = 1e-10;
// Where refinement cannot make up for lost pivots, δ grows up to this.
constexpr double kLargestRegularization = 1e-6;
constexpr int kMostRefinements = 3;
// A pass has to bring the residual below this share of the last; passes stop this far below
// the tolerance, relative to the right-hand side.
constexpr double kRefinementGain = 0.5, kRefinedShare = 1e-4;
// A first residual above this share of the right-hand side tells of pivots lost to rounding.
constexpr double kLostPivots = 1e-6;
// H⁻¹ of condensed cones ends at 1 over the first number, and reaches 1 over the second where
// that bound is in the way: where a step misses more than this share of the primal residual.
constexpr double kCondensedDelta = 1e-8, kLeastCondensedDelta = 1e-14, kMissedShare = 0.1;
// One above this share, after a pass, of an answer that has nothing to do with the question.
constexpr double kNoAnswer = 1e-4;
// A step brings both residuals to 1 − α(1 − σ) of what they were, but for what the solves with
// K miss: a lane where one stays above twice that, and above this share, is refined from then on.
constexpr double kPoorDecrease = 0.9;
// Few instances need so many iterations for another reason than poor solves: from here on they
// are refined, and this much later with a smaller δ. Cones that are not symmetric need more.
constexpr int kRefinedFrom = 20, kRefinedFromNonsymmetric = 28, kLoweredAfter = 10;

template <class L>
struct Refinement {
  using V = typename L::V;
  using M = typename L::M;
  using O = Ops<L>;

  M active;       // lanes that are refined
  M lowered;      // lanes whose δ was lowered, which happens once
  M lost_pivots;  // lanes whose δ has to grow
  M unresolved;   // those in which a pass of refinement did not help
  M held_back;    // whose primal residual shows the bound on H⁻¹ of condensed cones
  M drowned;      // and those in which large entries of that H⁻¹ drown the others
  V delta, condensed_delta;
  V promised;  // 1 − α(1 − σ) of the last step
  V last_primal, last_dual;
  V *top_n, *bottom_m, *work_n, *work_m;
  double refined_share;
  int refined_from;
  bool refines_once;

  void lay_out(const StructureView& view, Arena& arena) {
    for (V** pointer : {&top_n, &work_n}) *pointer = arena.take<V>(view.n);
    for (V** pointer : {&bottom_m, &work_m}) *pointer = arena.take<V>(view.m);
  }

  /// With `once`, lanes that are not active get one pass all the same: condensed cones, where H
  /// spans the square of the magnitudes that s/y does.
  void start(double tolerance, bool once, bool is_symmetric) {
    refines_once = once;
    refined_from = is_symmetric ? kRefinedFrom : kRefinedFromNonsymmetric;
    active = lowered = lost_pivots = unresolved = held_back = drowned = O::none();
    delta = O::splat(kRegularization);
    condensed_delta = O::splat(kCondensedDelta);
    last_primal = last_dual = O::splat(1.0);
    refined_share = kRefinedShare * tolerance;
  }

  /// A new instance enters the lane.
  void reset(int lane, bool is_active) {
    O::set_mask(active, lane, is_active);
    O::set_mask(lowered, lane, is_active);
    O::set_mask(lost_pivots, lane, false);
    O::set_mask(unresolved, lane, false);
    O::set_mask(held_back, lane, false);
    O::set_mask(drowned, lane, false);
    O::set(condensed_delta, lane, kCondensedDelta);
    O::set(delta, lane, is_active ? kCarefulRegularization : kRegularization);
    for (V* last : {&promised, &last_primal, &last_dual}) O::set(*last, lane, __builtin_inf());
  }

  bool is_active(int lane) const { return O::get_mask(active, lane); }

  /// An instance that came to this iteration, and that the polish could not finish, goes on.
  void resume(int lane, int iteration) {
    reset(lane, iteration >= refined_from + kLoweredAfter);
    O::set_mask(active, lane, true);
  }

  /// A lane has come to this iteration.
  void count(int lane, int iteration) {
    if (iteration == refined_from) O::set_mask(active, lane, true);
    if (iteration != refined_from + kLoweredAfter || O::get_mask(lowered, lane)) return;
    O::set_mask(lowered, lane, true);
    O::set(delta, lane, kCarefulRegularization);
  }

  /// Begin to refine lanes in which a residual fell by less than the step promised, where it
  /// still matters: its part of the merit is above `goal`.
  void watch(V primal, V primal_merit, V dual, V dual_merit, double goal) {
    const V most = O::splat(goal), share = O::max(2.0 * promised, O::splat(kPoorDecrease));
    const M poor = (O::gt(primal, share * last_primal) & O::gt(primal_merit, most)) |
                   (O::gt(dual, share * last_dual) & O::gt(dual_merit, most));
    delta = O::select(poor & ~lowered, O::splat(kCarefulRegularization), delta);
    lowered = lowered | poor;
    active = active | poor;
    const V due = (promised + kMissedShare) * last_primal;
    held_back = active & O::gt(primal, due) & O::gt(primal_merit, most);
    last_primal = primal;
    last_dual = dual;
  }

  /// Whether one of the lanes has no answer, and a larger δ to be factorized with: no step is
  /// better than one that has nothing to do with the problem. The other lanes then do the same
  /// again, with the δ they had.
  bool has_to_repeat(M lanes) {
    const M again = lanes & unresolved & O::lt(delta, O::splat(kLargestRegularization));
    if (!O::any(again)) return false;
    lost_pivots = lost_pivots & again;
    unresolved = unresolved & again;
    return true;
  }

  /// The δ to factorize with: larger where pivots were lost with the last one.
  V next_delta() {
    const V most =
        O::select(unresolved, O::splat(kLargestRegularization), O::splat(kRegularization));
    const V larger = O::max(delta, O::min(10.0 * delta, most));
    delta = O::select(lost_pivots, larger, delta);
    adapt_condensed();
    lost_pivots = unresolved = held_back = drowned = O::none();
    return delta;
  }

  /// Add to (u, v) what K (u, v) misses of its right-hand side, in the active lanes.
  template <class Top, class Bottom>
  void refine(const ScaledData<L>& data, const ConeScaling<L>& scaling,
              KktSystem<L, ScalingFaces>& kkt, const Top& top, const Bottom& bottom, V* u, V* v) {
    const StructureView& view = *data.structure;
    M running = refines_once ? ~O::none() : active;
    V before = O::splat(__builtin_inf());
    for (int pass = 0; pass < kMostRefinements && O::any(running); ++pass) {
      V missing{}, size{};
      data.multiply_P(u, top_n);
      data.multiply_both(u, work_m, v, work_n);
      for (int j = 0; j < view.n; ++j) {
        const V wanted = top(j);
        top_n[j] = wanted - top_n[j] - work_n[j];
        missing = O::max(missing, O::abs(top_n[j]));
        size = O::max(size, O::abs(wanted));
      }
      const V missing_top = missing;
      scaling.multiply(v, bottom_m);
      for (int i = 0; i < view.m; ++i) {
        const V wanted = bottom(i);
        bottom_m[i] += wanted - work_m[i];
        size = O::max(size, O::abs(wanted));
      }
      scaling.add_condensed(v, active, bottom_m);
      for (int i = 0; i < view.m; ++i) missing = O::max(missing, O::abs(bottom_m[i]));
      // What the rows of condensed cones miss is due to the bound on H⁻¹; pivots show above.
      const V of_pivots = refines_once ? missing_top : missing;
      const M much = running & O::gt(of_pivots, kLostPivots * size);
      const M no_answer = running & O::gt(of_pivots, kNoAnswer * size);
      if (pass == 0) {
        lost_pivots = lost_pivots | much;
        active = active | no_answer;
      } else if (refines_once) {
        drowned = drowned | much;
      }
      if (pass == 1) unresolved = unresolved | (lost_pivots & no_answer);
      running =
          running & O::lt(missing, kRefinementGain * before) & O::gt(missing, refined_share * size);
      if (!O::any(running)) return;
      before = missing;
      kkt.solve_in_place(top_n, bottom_m);
      for (int j = 0; j < view.n; ++j) u[j] += O::select(running, top_n[j], V{});
      for (int i = 0; i < view.m; ++i) v[i] += O::select(running, bottom_m[i], V{});
      running = running & active;
    }
  }

 private:
  /// H̃ ≥ H makes the solve inexact in directions that a slack has all but left, and passes come
  /// closer slowly where something else holds those too. The bound then moves away, unless the
  /// factor turns out not to bear it.
  void adapt_condensed() {
    const V smaller = O::max(0.01 * condensed_delta, O::splat(kLeastCondensedDelta));
    const V larger = O::min(100.0 * condensed_delta, O::splat(kCondensedDelta));
    condensed_delta = O::select(drowned, larger, O::select(held_back, smaller, condensed_delta));
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
