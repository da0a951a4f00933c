// SPDX-License-Identifier: Apache-2.0
//
// Interior point on the homogeneous embedding with a quadratic objective, W instances at once.
//
//   P x + Aᵀy + q τ = 0,   A x + s = b τ,   xᵀPx/τ + qᵀx + bᵀy + κ = 0
//
// Source: Goulart & Chen, Clarabel (arXiv:2405.12762), sections 3 and 4; lanes that finish are
// refilled with the next instance, whose starting point comes out of the shared iteration.
#pragma once

#include "best_iterate.hpp"
#include "refinement.hpp"
#include "status.hpp"

namespace cvxlayer::CVXLAYER_ISA {

// A regularized system this far from the true one has no solution to be close to.
constexpr double kInconsistent = 1e-3;
// How much of the way to the boundary a step goes: less of it, the shorter the affine step was.
constexpr double kLargestFraction = 0.999, kCaution = 0.06, kCarefulFraction = 0.9;
constexpr double kSmallestStep = 1e-9;
constexpr double kPatience = 10.0;  // iterations without progress, once nearly there
// Nearly there: within this factor of the tolerance, or of the default one if that is looser.
constexpr double kInaccurateFactor = 1e3;
constexpr double kDefaultTolerance = 1e-8;
constexpr double kRounding = 1e-14;
// Where the polish takes over: it costs about an iteration and reaches far below the tolerance.
// For linear cones all it has to know are the active rows, which mostly show at `kSettled`; curved
// ones have to be so close that its steps converge. A row that it cannot finish goes on.
constexpr double kProvisionalMerit = 30.0, kLinearMerit = 1e5, kSettled = 1e-3;

template <class L>
struct HsdeSolver {
  using V = typename L::V;
  using M = typename L::M;
  using O = Ops<L>;
  static constexpr int W = L::width;

  const StructureView* structure;
  ScaledData<L> data;
  KktSystem<L, ScalingFaces> kkt;
  ConeScaling<L> scaling;
  Refinement<L> refinement;

  // Iterate, products and residuals; residuals carry the scaling of the data.
  V *x, *y, *s, tau, kappa;
  V *Px, *Aty, *Ax, *rx, *ry, r_tau;
  // Infinity norms: residuals and their largest terms in the user's units (times τ), and the
  // products that certificates need in equilibrated ones.
  struct Norms {
    V primal, primal_terms, b, dual, dual_terms, q, Px, Aty, Ax_s, x, y;
  } norms;
  // Directions: constant part (x2, y2), varying part (x1, y1) and the full step.
  V *x1, *y1, *x2, *y2, *dx, *dy, *ds, *shift, *scratch_m, *gradient, *work_n;
  V d_tau, d_kappa, mu, sigma, fraction, x_P_x, q_x, b_y, denominator, step_taken;
  BestIterate<L> best;
  V* affine_change;  // Δy/y of linear rows on the last affine step, which decides activity
  V primal_residual, dual_residual, gap, merit;
  M is_active, is_starting, has_good_pivots;
  // The merits that make a row inaccurate, hand it to the polish, and end it.
  double inaccurate_merit, provisional_merit, goal;
  bool is_careful, is_A_written, reloads_matrices;
  long instance[W];
  int iterations[W];

  void lay_out(const StructureView& view, const KktPlan& plan, Arena& arena) {
    structure = &view;
    data.lay_out(view, arena);
    kkt.lay_out(view, plan, scaling.curved, arena);
    best.lay_out(view, arena);
    scaling.lay_out(view, arena);
    refinement.lay_out(view, arena);
    const int n = view.n, m = view.m;
    V** const of_n[] = {&x, &Px, &Aty, &rx, &x1, &x2, &dx, &gradient, &work_n};
    for (V** pointer : of_n) *pointer = arena.take<V>(n);
    V** const of_m[] = {&y, &s, &Ax, &ry, &y1, &y2, &dy, &ds, &shift, &scratch_m, &affine_change};
    for (V** pointer : of_m) *pointer = arena.take<V>(m);
  }

  /// Solve every instance of the queue. Never allocates; each instance ends with a status.
  void run(const ProblemData& problem, const Scaling& scales, const SolveSettings& settings,
           Queue& queue, const SolveResults& results) {
    const double tolerance =
        settings.eps_abs > settings.eps_rel ? settings.eps_abs : settings.eps_rel;
    inaccurate_merit =
        kInaccurateFactor * (tolerance < kDefaultTolerance ? kDefaultTolerance / tolerance : 1.0);
    refinement.start(tolerance, structure->has_condensed, structure->is_symmetric);
    provisional_merit = clamp(structure->num_cones > 0 ? 0.0 : kSettled / tolerance,
                              kProvisionalMerit, kLinearMerit);
    goal = settings.stops_early ? provisional_merit : 1.0;
    is_careful = settings.careful;
    reloads_matrices = !(problem.A.is_shared() && scales.row_stride == 0);
    do {
      start(problem, scales, queue);
      for (int lane = 0; settings.resumes && lane < W; ++lane) resume_lane(results, lane);
      iterate(problem, scales, settings, queue, results);
    } while (!queue.empty());
  }

 private:
  int num_linear() const { return structure->num_linear; }
  int num_zero() const { return structure->num_zero; }
  bool has_no_P() const { return structure->num_P == 0; }
  /// Where the plan keeps what follows from P and A, all lanes take new ones at the same time.
  bool lanes_wait() const { return kkt.plan->num_fixed > 0; }
  /// Cones without a Jordan algebra have no starting point but their unit.
  bool starts_at_unit() const { return !structure->is_symmetric; }

  /// Until every lane has ended, and the queue too if lanes can be refilled.
  void iterate(const ProblemData& problem, const Scaling& scales, const SolveSettings& settings,
               Queue& queue, const SolveResults& results) {
    while (O::any(is_active)) {
      update_residuals();
      const bool refilled = finish_lanes(problem, scales, settings, queue, results);
      if (!O::any(is_active)) break;
      if (refilled && starts_at_unit()) update_residuals();
      scaling.update(s, y);
      do {
        assemble();
        solve_constant_and_affine();
      } while (refinement.has_to_repeat(is_active));
      set_starting_points();
      affine_step();
      combined_step();
      for (int lane = 0; lane < W; ++lane) refinement.count(lane, ++iterations[lane]);
    }
  }

  // ------------------------------------------------------------------ lanes come and go
  void start(const ProblemData& problem, const Scaling& scales, Queue& queue) {
    is_active = is_starting = O::none();
    has_good_pivots = ~O::none();
    LaneRows<W> lanes;
    for (int lane = 0; lane < W; ++lane) {
      // A spare lane repeats the first instance, so that its arithmetic stays tame.
      const bool spare = queue.empty();
      lanes.row[lane] = spare ? lanes.row[0] : queue.pop();
      O::set_mask(is_active, lane, !spare);
    }
    data.load_lanes(problem, scales, lanes, false);
    is_A_written = false;
    for (int lane = 0; lane < W; ++lane) begin_lane(lanes.row[lane], lane);
  }

  /// The instance that was loaded into a lane takes its first step next.
  void begin_lane(long row, int lane) {
    instance[lane] = row;
    // The iteration that finds a starting point does not count.
    iterations[lane] = starts_at_unit() ? 1 : 0;
    O::set_mask(is_starting, lane, !starts_at_unit());
    refinement.reset(lane, is_careful);
    for (int j = 0; j < structure->n; ++j) O::set(x[j], lane, 0.0);
    for (int i = 0; i < structure->m; ++i) O::set(affine_change[i], lane, 0.0);
    scaling.set_unit(s, y, lane);
    O::set(tau, lane, 1.0);
    O::set(kappa, lane, 1.0);
    best.reset(lane);
    O::set(step_taken, lane, 1.0);
  }

  /// Start from the point in the results, with τ = 1 and κ on the central path.
  void resume_lane(const SolveResults& results, int lane) {
    const long row = instance[lane];
    const double k = O::get(data.cost, lane);
    double inner = 0.0;
    for (int j = 0; j < structure->n; ++j) {
      O::set(x[j], lane, results.x.at(row, j) / O::get(data.d[j], lane));
    }
    for (int i = 0; i < structure->m; ++i) {
      const double e = O::get(data.e[i], lane), slack = results.s.at(row, i);
      if (i < num_linear()) {
        O::set(affine_change[i], lane, results.is_active.at(row, i) > 0 ? 0.0 : -1.0);
      }
      if (__builtin_isinf(slack)) continue;  // an erased row, which is where it starts
      O::set(s[i], lane, e * slack);
      O::set(y[i], lane, k * results.y.at(row, i) / e);
      inner += O::get(s[i], lane) * O::get(y[i], lane);
    }
    O::set(kappa, lane, structure->degree > 0 ? inner / structure->degree : 1e-8);
    O::set(step_taken, lane, 1.0);
    iterations[lane] = results.iterations[row] + 1;
    refinement.resume(lane, iterations[lane]);
    O::set_mask(is_starting, lane, false);
  }

  /// Store lanes that ended and refill them. Returns whether any was refilled.
  bool finish_lanes(const ProblemData& problem, const Scaling& scales,
                    const SolveSettings& settings, Queue& queue, const SolveResults& results) {
    bool refilled = false;
    V certificate_y, certificate_x;
    measure(settings, certificate_y, certificate_x);
    for (int lane = 0; lane < W; ++lane) {
      if (!O::get_mask(is_active, lane) || O::get_mask(is_starting, lane)) continue;
      const double reached = O::get(merit, lane);
      Status status;
      const bool is_near = O::get(best.merit, lane) <= inaccurate_merit;
      const bool stalled = !(O::get(step_taken, lane) > kSmallestStep) ||
                           !__builtin_isfinite(reached) ||
                           (is_near && O::get(best.age, lane) > kPatience);
      if (!O::get_mask(has_good_pivots, lane)) {
        status = Status::kUnsuited;
      } else if (reached <= 1.0) {
        status = Status::kSolved;
      } else if (settings.stops_early && reached <= provisional_merit &&
                 (structure->num_cones == 0 || stalled || !refinement.is_active(lane))) {
        // Where curved cones are hard to solve with, the polish mostly fails as well.
        status = Status::kProvisional;
      } else if (!is_near && O::get(certificate_y, lane) > 0) {
        // Beyond a good point, only rounding drives τ to zero: certificates count before one.
        status = Status::kInfeasible;
      } else if (!is_near && O::get(certificate_x, lane) > 0) {
        status = Status::kUnbounded;
      } else {
        if (!stalled && iterations[lane] <= settings.max_iterations) continue;
        status = is_near   ? Status::kInaccurate
                 : stalled ? Status::kNumericalError
                           : Status::kMaxIterations;
      }
      store_lane(problem, lane, status, results);
      if (queue.empty() || lanes_wait()) {
        O::set_mask(is_active, lane, false);
      } else {
        const long row = queue.pop();
        data.load(problem, scales, row, lane, !reloads_matrices);
        is_A_written &= !reloads_matrices;
        begin_lane(row, lane);
        refilled = true;
      }
    }
    return refilled;
  }

  void store_lane(const ProblemData& problem, int lane, Status status,
                  const SolveResults& results) const {
    const long row = instance[lane];
    // One that stalled is provisional where it was best.
    const double last = status == Status::kProvisional ? O::get(merit, lane) : __builtin_inf();
    const bool current = is_certain(status) || !(O::get(best.merit, lane) < last);
    const V *from_x = current ? x : best.x, *from_y = current ? y : best.y,
            *from_s = current ? s : best.s;
    const double k = O::get(data.cost, lane);
    const double unit = normalization(problem, lane, status, current ? tau : best.tau);
    for (int j = 0; j < structure->n; ++j) {
      results.x.at(row, j) = O::get(data.d[j], lane) * (O::get(from_x[j], lane) * unit);
    }
    for (int i = 0; i < structure->m; ++i) {
      const double e = O::get(data.e[i], lane);
      results.y.at(row, i) = e * (O::get(from_y[i], lane) * unit / k);
      results.s.at(row, i) = O::get(from_s[i], lane) * unit / e;
      // Δs/s = −1 − Δy/y on the affine step: active when |Δs|/s > |Δy|/y.
      const bool active = i < num_zero() || O::get(affine_change[i], lane) > -0.5;
      // An earlier iterate was not classified; the adjoint does so where it is needed.
      results.is_active.at(row, i) = i < num_linear() && current ? active : -1;
    }
    data.restore_erased_rows(problem, row, lane, results);
    results.status[row] = static_cast<std::int8_t>(status);
    results.iterations[row] = iterations[lane] - 1;
    results.primal_residual[row] = O::get(current ? primal_residual : best.primal_residual, lane);
    results.dual_residual[row] = O::get(current ? dual_residual : best.dual_residual, lane);
    results.gap[row] = O::get(current ? gap : best.gap, lane);
  }

  /// What a stored point is multiplied by: a solution has τ = 1, a certificate bᵀy = −1 or
  /// qᵀx = −1. The multiplier of a bound at +∞ is dropped and does not count.
  double normalization(const ProblemData& problem, int lane, Status status,
                       const V& solution_tau) const {
    const double k = O::get(data.cost, lane);
    if (status == Status::kUnbounded) return -k / O::get(dot(data.q, x, structure->n), lane);
    if (status != Status::kInfeasible) return 1.0 / O::get(solution_tau, lane);
    double b_y = 0.0;
    for (int i = 0; i < structure->m; ++i) {
      const double term = O::get(data.b[i], lane) * O::get(y[i], lane);
      if (!data.is_erased(problem, instance[lane], i)) b_y += term;
    }
    return -k / b_y;
  }

  // ---------------------------------------------------------------- residuals and stopping
  /// Products, residuals and, in the same pass over memory, every norm that stopping needs.
  void update_residuals() {
    const StructureView& v = *structure;
    data.multiply_both(x, Ax, y, Aty);
    data.multiply_P(x, Px);  // last, because what comes next reads P
    norms = Norms{};
    x_P_x = q_x = b_y = V{};
    V s_y{};
    for (int j = 0; j < v.n; ++j) {
      const V unscale = data.inverse_kd[j], q = data.q[j], px = Px[j], aty = Aty[j];
      rx[j] = px + aty + q * tau;
      x_P_x += x[j] * px;
      q_x += x[j] * q;
      norms.dual = O::max(norms.dual, O::abs(rx[j]) * unscale);
      norms.q = O::max(norms.q, O::abs(q) * unscale);
      norms.dual_terms = O::max(norms.dual_terms, O::max(O::abs(px), O::abs(aty)) * unscale);
      norms.Px = O::max(norms.Px, O::abs(px));
      norms.Aty = O::max(norms.Aty, O::abs(aty));
      norms.x = O::max(norms.x, O::abs(x[j]));
    }
    for (int i = 0; i < v.m; ++i) {
      const V unscale = data.inverse_e[i], b = data.b[i], ax = Ax[i], slack = s[i];
      ry[i] = ax + slack - b * tau;
      b_y += b * y[i];
      s_y += slack * y[i];  // s is exactly 0 on equality rows
      norms.primal = O::max(norms.primal, O::abs(ry[i]) * unscale);
      norms.b = O::max(norms.b, O::abs(b) * unscale);
      norms.primal_terms = O::max(norms.primal_terms, O::max(O::abs(ax), O::abs(slack)) * unscale);
      norms.Ax_s = O::max(norms.Ax_s, O::abs(ax + slack));
      norms.y = O::max(norms.y, O::abs(y[i]));
    }
    r_tau = x_P_x / tau + q_x + b_y + kappa;
    mu = (s_y + tau * kappa) * (1.0 / (v.degree + 1));
  }

  /// Residuals in user scaling, the merit (≤ 1 when solved) and both certificates (> 0).
  void measure(const SolveSettings& settings, V& certificate_y, V& certificate_x) {
    const V inverse_cost = 1.0 / data.cost, inverse_tau = 1.0 / tau;
    const V p_scale = O::max(norms.primal_terms * inverse_tau, norms.b);
    const V d_scale = O::max(norms.dual_terms * inverse_tau, norms.q);
    primal_residual = norms.primal * inverse_tau;
    dual_residual = norms.dual * inverse_tau;
    const V quadratic = x_P_x * inverse_tau * inverse_tau;
    const V linear = q_x * inverse_tau, dual_linear = b_y * inverse_tau;
    gap = O::abs(quadratic + linear + dual_linear) * inverse_cost;
    const V g_scale =
        O::max(O::abs(0.5 * quadratic + linear), O::abs(0.5 * quadratic + dual_linear)) *
        inverse_cost;
    // Absolute tolerances shrink with the objective: 1e-8 means nothing to one of size 1e-6.
    const V cost_unit = O::min(O::splat(1.0), inverse_cost);
    const double abs = settings.eps_abs, rel = settings.eps_rel;
    const V primal_merit = primal_residual / (abs + rel * p_scale);
    const V dual_merit = dual_residual / (abs * cost_unit + rel * d_scale);
    const V gap_merit = gap / (abs * cost_unit + rel * g_scale);
    merit = O::max(O::max(primal_merit, dual_merit), gap_merit);
    refinement.watch(norms.primal, primal_merit, norms.dual, dual_merit, goal);
    // Norms by maximum overlook NaN; these sums touch every entry of x, y and s.
    // A point that overflows in the user's units is none.
    const V objective_terms = (O::abs(quadratic) + O::abs(linear) + O::abs(dual_linear));
    const M finite = O::is_finite(x_P_x + q_x + b_y) & O::is_finite(mu + r_tau) &
                     O::is_finite(p_scale + d_scale + objective_terms * inverse_cost);
    merit = O::select(finite, merit, O::splat(__builtin_inf()));

    // With bᵀy = −1, ‖Aᵀy‖ ≤ ε rules out every solution of size below 1/ε; likewise for the
    // dual. Both in equilibrated units, which do not depend on the user's.
    const double eps = settings.eps_infeasible;
    const M certain = finite & O::le(tau, kappa);
    const V one = O::splat(1.0), none = O::splat(-1.0);
    // A contradiction, or a decrease, of the size of rounding is none.
    const M contradicts = certain & O::lt(kRounding * norms.y, -b_y);
    const M decreases = certain & O::lt(kRounding * norms.x, -q_x);
    certificate_y = O::select(O::lt(norms.Aty, -eps * b_y) & contradicts, one, none);
    certificate_x =
        O::select(O::lt(O::max(norms.Px, norms.Ax_s), -eps * q_x) & decreases, one, none);
    // Only what could be returned as inaccurate; NaN merits compare false.
    best.keep(O::lt(merit, best.merit) & O::lt(merit, O::splat(inaccurate_merit)) &
                  O::gt(merit, O::splat(1.0)) & ~is_starting,
              *this);
  }

  // ------------------------------------------------------------------------ linear algebra
  void assemble() {
    const V delta = refinement.next_delta();
    if (!is_A_written || !kkt.begin_with_fixed(delta)) {
      kkt.begin_assembly(data.P, data.A, delta);
      kkt.write_A(is_A_written);
      kkt.factorize_fixed();
      has_good_pivots = kkt.has_good_pivots();
      is_A_written = true;
    }
    kkt.condensed_delta = refinement.condensed_delta;
    scaling.assemble(data.A, kkt);
    kkt.factorize();
  }

  void solve_constant_and_affine() {
    // A starting lane without P solves for (0, b) beside (−q, b); with P the latter is enough.
    const auto affine_top = [this](int j) { return O::select(is_starting, V{}, -rx[j]); };
    const auto affine_bottom = [this](int i) {
      return O::select(is_starting, data.b[i], s[i] - ry[i]);
    };
    const auto constant_top = [this](int j) { return -data.q[j]; };
    const auto constant_bottom = [this](int i) { return data.b[i]; };
    kkt.solve_with_constant(
        [&](int c, int j) { return c == 0 ? affine_top(j) : constant_top(j); },
        [&](int c, int i) { return c == 0 ? affine_bottom(i) : constant_bottom(i); }, {x1, x2},
        {y1, y2});
    refinement.refine(data, scaling, kkt, affine_top, affine_bottom, x1, y1);
    refinement.refine(data, scaling, kkt, constant_top, constant_bottom, x2, y2);
  }

  void solve_corrector(V keep) {
    const auto top = [this, keep](int j) { return -keep * rx[j]; };
    const auto bottom = [this, keep](int i) {
      return i < num_zero() ? -keep * ry[i] : shift[i] - keep * ry[i];
    };
    kkt.solve_with_share(
        keep, [this](int j) { return -rx[j]; }, [&](int, int i) { return bottom(i); }, x1, y1);
    refinement.refine(data, scaling, kkt, top, bottom, x1, y1);
  }

  /// Mehrotra's starting point, shifted into the cone (Goulart & Chen, section 4.1).
  void set_starting_points() {
    if (!O::any(is_starting)) return;
    const StructureView& v = *structure;
    for (int j = 0; j < v.n; ++j) {
      x[j] = O::select(is_starting, has_no_P() ? x1[j] : x2[j], x[j]);
    }
    for (int i = 0; i < v.m; ++i) {
      const V slack = has_no_P() ? -y1[i] : -y2[i];
      const V dual = has_no_P() ? y2[i] - y1[i] : y2[i];
      s[i] = O::select(is_starting, i < num_zero() ? V{} : slack, s[i]);
      y[i] = O::select(is_starting, dual, y[i]);
    }
    scaling.shift_into_cone(s, is_starting);
    scaling.shift_into_cone(y, is_starting);
  }

  // ----------------------------------------------------------------------------- directions
  /// (dx, dy, dτ) from the solved parts, ds and dκ from complementarity:
  ///   ds = −shift − H dy,   dκ = −(complement + κ dτ)/τ.
  /// Returns the longest step along them, at most 1e10.
  V combine(V scale, V complement, const V* shifts) {
    const StructureView& v = *structure;
    const V inverse_tau = 1.0 / tau;
    const V numerator =
        scale * r_tau - complement * inverse_tau + dot(gradient, x1, v.n) + dot(data.b, y1, v.m);
    d_tau = numerator / denominator;
    d_kappa = -(complement + kappa * d_tau) * inverse_tau;
    for (int j = 0; j < v.n; ++j) dx[j] = x1[j] + d_tau * x2[j];
    for (int i = 0; i < v.m; ++i) dy[i] = y1[i] + d_tau * y2[i];
    const M refined = v.is_symmetric ? O::none() : refinement.active;
    scaling.find_feasible(data, kkt, dx, d_tau, scale, ry, O::any(refined), scratch_m);
    scaling.complete(dy, shifts, scratch_m, ds);
    const V scalars = O::max(-d_tau * inverse_tau, -d_kappa / kappa);
    const V alpha = scaling.step_length(s, ds, y, dy, 1.0 / O::max(scalars, O::splat(1e-10)));
    return scaling.prefer_feasible(s, y, dy, alpha, refined, scratch_m, ds);
  }

  /// κ/τ + ‖x₂ − x/τ‖²_P + ‖y₂‖²_H: the coefficient of dτ as a sum of positive terms.
  void compute_denominator() {
    const StructureView& v = *structure;
    const V inverse_tau = 1.0 / tau;
    V largest{}, rhs = O::splat(1.0), squares{};
    for (int j = 0; j < v.n; ++j) {
      gradient[j] = 2.0 * Px[j] * inverse_tau + data.q[j];
      dx[j] = x2[j] - x[j] * inverse_tau;
      largest = O::max(largest, O::abs(x2[j]));
      rhs = O::max(rhs, O::abs(data.q[j]));
      squares += x2[j] * x2[j];
    }
    for (int i = 0; i < v.m; ++i) {
      largest = O::max(largest, O::abs(y2[i]));
      rhs = O::max(rhs, O::abs(data.b[i]));
      squares += y2[i] * y2[i];
    }
    denominator = kappa * inverse_tau + scaling.squared_norm(y2);
    if (!has_no_P()) {
      data.multiply_P(dx, work_n);
      denominator += dot(dx, work_n, v.n);
    }
    // (x₂, y₂) solves the regularized system, for which δ‖(x₂, y₂)‖² belongs to the sum. It is
    // an error of the solve where that system is close to the true one, and part of the
    // equation where the true one has no solution, as for an unbounded problem.
    const M inconsistent = O::gt(refinement.delta * largest, kInconsistent * rhs);
    denominator += O::select(inconsistent, refinement.delta * squares, V{});
  }

  void affine_step() {
    compute_denominator();
    const V alpha = O::min(combine(O::splat(1.0), tau * kappa, s), O::splat(1.0));
    for (int i = num_zero(); i < num_linear(); ++i) affine_change[i] = dy[i] * scaling.inverse_y[i];
    const V left = 1.0 - alpha;
    sigma = left * left * left;
    fraction = is_careful ? O::splat(kCarefulFraction)
                          : O::min(O::splat(kLargestFraction), 1.0 - kCaution * left);
  }

  void combined_step() {
    const StructureView& v = *structure;
    const V center = sigma * mu, keep = 1.0 - sigma;
    scaling.corrector(s, ds, dy, center, shift);
    const V complement = tau * kappa + d_tau * d_kappa - center;
    solve_corrector(keep);
    V alpha = O::min(combine(keep, complement, shift) * fraction, O::splat(1.0));

    const M moves = is_active & ~is_starting;
    step_taken = O::select(is_starting, O::splat(1.0), alpha);
    alpha = O::select(moves, alpha, V{});
    refinement.promised = O::select(moves, 1.0 - alpha * keep, O::splat(__builtin_inf()));
    is_starting = O::none();
    for (int j = 0; j < v.n; ++j) x[j] = O::select(moves, x[j] + alpha * dx[j], x[j]);
    for (int i = 0; i < v.m; ++i) {
      y[i] = O::select(moves, y[i] + alpha * dy[i], y[i]);
      s[i] = O::select(moves, s[i] + alpha * ds[i], s[i]);
    }
    tau = O::select(moves, tau + alpha * d_tau, tau);
    kappa = O::select(moves, kappa + alpha * d_kappa, kappa);
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
