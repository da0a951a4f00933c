// SPDX-License-Identifier: Apache-2.0
//
// The derivative of the solution map, transposed, W instances at once:
//
//     K [λ; μ] = [x̄ − Aᵀs̄; S ȳ],   ν = s̄ + S μ
//     q̄ = −λ,  b̄ = ν,  Ā = −(yλᵀ + νxᵀ),  P̄ = −½(λxᵀ + xλᵀ)
//
// with K and S of linearization.hpp. Then the two halves it is made of, for derivatives of every
// order and mode: `refine`, from solutions to the points of differentiation, and `apply`, from
// (x̄, ȳ, s̄) to (λ, ν) there; and `examine`, which tells how regular these points are.
// Derivation: docs/derivations/derivative.md.
#pragma once

#include "regularity.hpp"

namespace cvxlayer::CVXLAYER_ISA {

constexpr double kInconsistentAdjoint = 1e-7;
constexpr int kNullPasses = 2;
constexpr int kConePolishes = 3;
constexpr double kComparable = 1e3;       // up to this ratio a sum keeps enough digits of both
constexpr double kProjected = 1e-14;      // of the size of v: what projecting is rounded by
constexpr double kOnCentralPath = 1e-12;  // a complementarity that can tell the faces

template <class L>
struct Adjoint final : private RegularityLinearization<L> {
  using Base = RegularityLinearization<L>;
  using typename Base::M;
  using typename Base::O;
  using typename Base::V;
  static constexpr int W = L::width;
  using Base::apply_root;
  using Base::c_m;
  using Base::c_n;
  using Base::center;
  using Base::classify;
  using Base::curved;
  using Base::curved_complementarity;
  using Base::data;
  using Base::factor_lags;
  using Base::find_newton_step;
  using Base::follow_curved_cones;
  using Base::kkt;
  using Base::linearize;
  using Base::linearize_path;
  using Base::load;
  using Base::load_path;
  using Base::measure_point;
  using Base::measure_regularity;
  using Base::multiply;
  using Base::norm;
  using Base::num_linear;
  using Base::probe;
  using Base::r_m;
  using Base::r_n;
  using Base::reduce_dependent_rows;
  using Base::refine_answer;
  using Base::residual_norm;
  using Base::rhs_m;
  using Base::rhs_n;
  using Base::root;
  using Base::settle_rows;
  using Base::slack_of_row;
  using Base::smoothing;
  using Base::solve_newton_step;
  using Base::solve_refined;
  using Base::start_nearby;
  using Base::structure;
  using Base::t_m;
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

  V *y_m, *s_m;  // ȳ, s̄
  V adjoint_residual;
  bool moves_slack;  // s̄ was given

  void lay_out(const StructureView& view, Arena& arena) {
    Base::lay_out(view, arena);
    y_m = arena.take<V>(view.m);
    s_m = arena.take<V>(view.m);
  }

  /// Instances first, …, first + count − 1 (count ≤ W). `matrices_ready`: A and its scaling
  /// are shared by the batch and in every lane since the last group.
  void run(const ProblemData& problem, const Scaling& scaling, const AdjointData& io, long first,
           int count, bool matrices_ready) {
    load(problem, scaling, io, first, count, matrices_ready);
    if (io.mu > 0.0) center(io.mu);
    const LaneRows<W> lanes(first, count);
    load_right_side(io.x_bar, io.y_bar, io.s_bar, lanes);
    if (moves_slack) hold_infinite_slack(io.s, lanes);
    if (io.mu > 0.0) {
      linearize_path();
      form_right_side();
      // Also tells of a point that did not reach the path.
      adjoint_residual = O::max(solve_refined(rhs_n, rhs_m), relative_residual());
      return finish(io, first, count);
    }
    const V mu = curved_complementarity();
    if (O::any(unclassified)) classify();
    settle_rows();
    linearize();
    // Which of several dependent rows are kept changes the cotangents of A and b, and those
    // that come from y; λ, and with it q̄ and P̄, is the same for all.
    const bool probing =
        num_linear() > 0 &&
        (io.A_bar.start != nullptr || io.b_bar.start != nullptr || io.y_bar.start != nullptr);
    measure_point();
    if (O::any(valid & ~O::le(residual_norm, O::splat(kPolished)))) {
      approach_solution(probing, count);
      if (structure->num_cones > 0) return_to_central_path(io, LaneRows<W>(first, count), mu);
      form_right_side();
      adjoint_residual = solve_refined(rhs_n, rhs_m);
      if (factor_lags && O::any(valid & ~O::le(adjoint_residual, O::splat(kPolished)))) {
        linearize();
        adjoint_residual = solve_refined(rhs_n, rhs_m);
      }
    } else {
      solve_at_solution(probing, count);
    }
    finish(io, first, count);
  }

  /// From the solutions in `io` to the points where the solution map is differentiated; on the
  /// central path if μ > 0.
  void refine(const ProblemData& problem, const Scaling& scaling, const AdjointData& io,
              const PointData& points, long first, int count, bool matrices_ready) {
    load(problem, scaling, io, first, count, matrices_ready);
    if (points.mu > 0.0) {
      center(points.mu);
      return store_point(problem, points, first, count);
    }
    if (O::any(unclassified)) classify();
    settle_rows();
    linearize();
    measure_point();
    approach_solution(num_linear() > 0, count);
    store_point(problem, points, first, count);
  }

  /// The same, and how regular those points are: where they lie in the cones, and the extreme
  /// singular values of K, from a few power iterations with K and with its factors.
  void examine(const ProblemData& problem, const Scaling& scaling, const AdjointData& io,
               const PointData& points, const RegularityData& found, long first, int count,
               bool matrices_ready) {
    load(problem, scaling, io, first, count, matrices_ready);
    const V mu = curved_complementarity();
    if (O::any(unclassified)) classify();
    settle_rows();
    linearize();
    measure_point();
    approach_solution(num_linear() > 0, count);
    if (structure->num_cones > 0) return_to_central_path(io, LaneRows<W>(first, count), mu);
    if (factor_lags) linearize();
    measure_regularity(problem, found, first, count);
    store_point(problem, points, first, count);
  }

  /// Answer every right-hand side in `io` with one factorization.
  void apply(const ProblemData& problem, const Scaling& scaling, const SystemData& io, long first,
             int count, bool matrices_ready) {
    const LaneRows<W> lanes(first, count);
    data.load_lanes(problem, scaling, lanes, matrices_ready);
    load_linearization(io, lanes, count);
    if (io.mu > 0.0) {
      load_path(io.mu);
      linearize_path();
    } else {
      settle_curved();
      linearize();
    }
    for (long side = 0; side < io.num_sides; ++side) {
      load_right_side(io.of_side(io.gx, side), io.of_side(io.gy, side), io.of_side(io.gs, side),
                      lanes);
      if (moves_slack) hold_infinite_slack(io.v, lanes);
      form_right_side();
      adjoint_residual = solve_refined(rhs_n, rhs_m);
      remove_null_part();
      unscale_answer();
      store_rows<L>(io.of_side(io.lambda, side), first, count, structure->n,
                    [this](int j) { return -u_n[j]; });
      store_rows<L>(io.of_side(io.nu, side), first, count, structure->m,
                    [this](int i) { return u_m[i]; });
      for (int lane = 0; lane < count; ++lane) {
        const double residual = O::get(adjoint_residual, lane);
        io.residual[(first + lane) * io.num_sides + side] = O::get_mask(valid, lane) ? residual : 0;
      }
    }
  }

 private:
  /// From the answer in equilibrated scaling to the results.
  void finish(const AdjointData& io, long first, int count) {
    remove_null_part();
    unscale_answer();
    unscale_point();
    store(io, first, count);
  }

  V relative_residual() const {
    const V size = O::max(O::max(norm(x, v), norm(data.q, data.b)), O::splat(1e-300));
    return O::select(valid, residual_norm / size, V{});
  }

  /// Where the Newton steps came no closer than the solver was, an eigenvalue of s or y is too
  /// small to tell on which face of its cone it lies. The solver's own point is near the central
  /// path, whose derivative differs by about μ and needs to know of no face.
  void return_to_central_path(const AdjointData& io, const LaneRows<W>& lanes, V mu) {
    const M rough = valid & O::gt(mu, O::splat(kOnCentralPath)) & ~O::lt(residual_norm, mu);
    if (!O::any(rough)) return;
    load_rows<L>(io.x, lanes, structure->n,
                 [&](int j, V value) { x[j] = O::select(rough, value / data.d[j], x[j]); });
    load_rows<L>(io.y, lanes, structure->m, [&](int i, V value) {
      y[i] = O::select(rough, data.cost * value / data.e[i], y[i]);
      v[i] = O::select(rough, y[i] - slack_of_row[i], v[i]);
    });
    smoothing = O::select(rough, mu, V{});
    linearize();
  }

  /// v, ω (into t_m) and the active rows.
  void load_linearization(const SystemData& io, const LaneRows<W>& lanes, int count) {
    const StructureView& view = *structure;
    smoothing = V{};
    for (int lane = 0; lane < W; ++lane) {
      O::set_mask(valid, lane, lane < count && io.has_solution[lanes.row[lane]] != 0);
      for (int i = 0; i < num_linear(); ++i) {
        O::set(root[i], lane, io.is_active.at(lanes.row[lane], i) != 0 ? 1.0 : 0.0);
      }
    }
    const V one = O::splat(1.0);
    load_rows<L>(io.v, lanes, view.m, [&](int i, V value) {
      v[i] = O::select(valid & O::is_finite(value), value, -one);
    });
    load_rows<L>(io.balance, lanes, view.m,
                 [&](int i, V value) { t_m[i] = O::select(valid, value, one); });
  }

  /// y and s have units of their own, so v is taken apart for them.
  void settle_curved() {
    curved.for_each([&](const auto& face) {
      const int start = face.cone.start;
      face.project(v + start, y + start);
      for (int i = start; i < face.cone.end(); ++i) {
        c_m[i] = data.e[i] / t_m[i] * (y[i] - v[i]);
        y[i] *= data.cost * t_m[i] / data.e[i];
        v[i] = y[i] - c_m[i];
      }
    });
    start_nearby(c_m, y);
  }

  void load_right_side(const Rows<const double>& gx, const Rows<const double>& gy,
                       const Rows<const double>& gs, const LaneRows<W>& lanes) {
    const StructureView& view = *structure;
    for (int j = 0; j < view.n; ++j) rhs_n[j] = V{};
    for (int i = 0; i < view.m; ++i) y_m[i] = s_m[i] = V{};
    if (gx.start != nullptr) {
      load_rows<L>(gx, lanes, view.n,
                   [&](int j, V value) { rhs_n[j] = O::select(valid, data.d[j] * value, V{}); });
    }
    if (gy.start != nullptr) {
      load_rows<L>(gy, lanes, view.m, [&](int i, V value) {
        y_m[i] = O::select(valid, data.e[i] * value / data.cost, V{});
      });
    }
    moves_slack = gs.start != nullptr;
    if (!moves_slack) return;
    load_rows<L>(gs, lanes, view.m,
                 [&](int i, V value) { s_m[i] = O::select(valid, value / data.e[i], V{}); });
  }

  /// The slack of an infinite bound does not move.
  void hold_infinite_slack(const Rows<const double>& slack, const LaneRows<W>& lanes) {
    load_rows<L>(slack, lanes, structure->m,
                 [&](int i, V value) { s_m[i] = O::select(O::is_finite(value), s_m[i], V{}); });
  }

  /// Newton steps to where the residual does not fall any more, on independent rows.
  void approach_solution(bool probing, int count) {
    solve_newton_step(probing);
    if (probing && reduce_dependent_rows(r_m, count)) {
      linearize();
      find_newton_step(false);
    }
    bool moved = O::any(take_newton_step(residual_norm));
    // Linear cones: one step is exact. Curved ones: quadratic convergence.
    for (int pass = 1; moved && structure->num_cones > 0; ++pass) {
      if (!O::any(valid & O::gt(residual_norm, O::splat(kPolished)))) return follow_curved_cones();
      linearize();
      if (pass == kConePolishes) break;
      find_newton_step(false);
      moved = O::any(take_newton_step(residual_norm));
    }
  }

  // --------------------------------------------------------------------------------- adjoint
  /// (x̄ − Aᵀs̄, S ȳ)
  void form_right_side() {
    if (moves_slack) {
      data.multiply_At(s_m, t_n);
      for (int j = 0; j < structure->n; ++j) rhs_n[j] -= t_n[j];
    }
    apply_root(y_m, rhs_m);
  }

  /// No step is worth taking, so the probe and the cotangents are answered together.
  void solve_at_solution(bool probing, int count) {
    form_right_side();
    const auto top = [this](int c, int j) { return c == 0 ? rhs_n[j] : V{}; };
    const auto bottom = [this](int c, int i) {
      return c == 0 ? rhs_m[i] : i < num_linear() ? probe(i) : V{};
    };
    if (probing) {
      kkt.template solve<2>(top, bottom, {r_n, trial_x}, {r_m, trial_v});
    } else {
      kkt.template solve<1>(top, bottom, {r_n}, {r_m});
    }
    if (probing && reduce_dependent_rows(trial_v, count)) {
      linearize();
      find_newton_step(false);
      take_newton_step(residual_norm);
      apply_root(y_m, rhs_m);
      adjoint_residual = solve_refined(rhs_n, rhs_m);
    } else {
      adjoint_residual = refine_answer(rhs_n, rhs_m);
    }
  }

  /// What is left of an inconsistent system is its part along null vectors of K, answered by
  /// one of size 1/δ. Without that part the answer is the least-squares one.
  void remove_null_part() {
    const M inconsistent = valid & O::gt(adjoint_residual, O::splat(kInconsistentAdjoint));
    for (int pass = 0; pass < kNullPasses && O::any(inconsistent); ++pass) {
      multiply(u_n, u_m, c_n, c_m);
      for (int j = 0; j < structure->n; ++j) {
        rhs_n[j] = O::select(inconsistent, c_n[j], rhs_n[j]);
      }
      for (int i = 0; i < structure->m; ++i) {
        rhs_m[i] = O::select(inconsistent, c_m[i], rhs_m[i]);
      }
      solve_refined(rhs_n, rhs_m);
    }
  }

  /// (u_n, u_m) ← (−λ, ν) in user scaling; exactly zero in lanes without a solution.
  void unscale_answer() {
    apply_root(u_m, c_m);
    for (int j = 0; j < structure->n; ++j) {
      u_n[j] = O::select(valid, -(data.cost * data.d[j] * u_n[j]), V{});
    }
    for (int i = 0; i < structure->m; ++i) {
      u_m[i] = O::select(valid, data.e[i] * (s_m[i] + c_m[i]), V{});
    }
  }

  /// The same for (x, y).
  void unscale_point() {
    const V unit = 1.0 / data.cost;
    for (int j = 0; j < structure->n; ++j) x[j] = O::select(valid, data.d[j] * x[j], V{});
    for (int i = 0; i < structure->m; ++i) {
      y[i] = O::select(valid, unit * data.e[i] * y[i], V{});
    }
  }

  // ----------------------------------------------------------------------------------- point
  /// Write x, y, v = y/ω − ωs and what belongs to them; (t_m, c_m) holds s and ω.
  void store_point(const ProblemData& problem, const PointData& io, long first, int count) {
    const StructureView& view = *structure;
    const V residual = relative_residual();
    for (int i = 0; i < view.m; ++i) {
      t_m[i] = O::select(valid, y[i] - v[i], V{});
      c_m[i] = O::splat(1.0);
    }
    curved.for_each([&](const auto& face) { drop_rounding(face.cone.start, face.cone.end()); });
    for (int i = 0; i < view.m; ++i) t_m[i] *= data.inverse_e[i];
    unscale_point();
    curved.for_each([&](const auto& face) { balance(face.cone.start, face.cone.end()); });
    store_rows<L>(io.x, first, count, view.n, [this](int j) { return x[j]; });
    store_rows<L>(io.y, first, count, view.m, [this](int i) { return y[i]; });
    store_rows<L>(io.v, first, count, view.m,
                  [this](int i) { return y[i] / c_m[i] - t_m[i] * c_m[i]; });
    store_rows<L>(io.balance, first, count, view.m, [this](int i) { return c_m[i]; });
    for (int lane = 0; lane < count; ++lane) {
      const long row = first + lane;
      const bool ok = O::get_mask(valid, lane);
      io.residual[row] = O::get(residual, lane);
      io.has_solution[row] = ok;
      for (int i = 0; i < view.m; ++i) {
        const bool inequality = i >= view.num_zero && i < view.num_linear;
        const bool absent = ok && inequality && __builtin_isinf(problem.b.at(row, i));
        if (absent) io.y.at(row, i) = 0.0;
        if (absent) io.v.at(row, i) = -__builtin_inf();
        const bool active = ok && !absent && i < view.num_linear && O::get(root[i], lane) != 0.0;
        io.is_active.at(row, i) = static_cast<std::int8_t>(active);
      }
    }
  }

  /// The larger entries of y and of s = t_m on the rows of one cone.
  void measure_cone(int begin, int end, V& largest_y, V& largest_s) const {
    largest_y = largest_s = V{};
    for (int i = begin; i < end; ++i) {
      largest_y = O::max(largest_y, O::abs(y[i]));
      largest_s = O::max(largest_s, O::abs(t_m[i]));
    }
  }

  /// What a projection that changes nothing, or leaves nothing, has left of s, or of y.
  void drop_rounding(int begin, int end) {
    V largest_y, largest_s;
    measure_cone(begin, end, largest_y, largest_s);
    const M keeps_y = O::gt(largest_y, kProjected * largest_s);
    const M keeps_s = O::gt(largest_s, kProjected * largest_y);
    for (int i = begin; i < end; ++i) {
      y[i] = O::select(keeps_y, y[i], V{});
      t_m[i] = O::select(keeps_s, t_m[i], V{});
    }
  }

  /// ω of one cone: a power of two about √(‖y‖/‖s‖) in lanes where that is far from one.
  void balance(int begin, int end) {
    V largest_y, largest_s;
    measure_cone(begin, end, largest_y, largest_s);
    const M apart =
        (O::gt(largest_y, kComparable * largest_s) | O::gt(largest_s, kComparable * largest_y)) &
        O::gt(largest_y, V{}) & O::gt(largest_s, V{});
    for (int lane = 0; lane < W && O::any(apart); ++lane) {
      if (!O::get_mask(apart, lane)) continue;
      int exponent = 0;
      __builtin_frexp(O::get(largest_y, lane) / O::get(largest_s, lane), &exponent);
      const double omega = __builtin_ldexp(1.0, exponent / 2);
      for (int i = begin; i < end; ++i) O::set(c_m[i], lane, omega);
    }
  }

  void store(const AdjointData& io, long first, int count) const {
    const StructureView& view = *structure;
    for (int lane = 0; lane < count; ++lane) {
      io.residual[first + lane] = O::get_mask(valid, lane) ? O::get(adjoint_residual, lane) : 0.0;
    }
    if (io.q_bar.start != nullptr) {
      store_rows<L>(io.q_bar, first, count, view.n, [this](int j) { return u_n[j]; });
    }
    if (io.b_bar.start != nullptr) {
      store_rows<L>(io.b_bar, first, count, view.m, [this](int i) { return u_m[i]; });
    }
    if (io.A_bar.start != nullptr) {
      store_rows<L>(io.A_bar, first, count, view.num_A, [&](int t) {
        const int i = view.A_row[t], j = view.A_column[t];
        return y[i] * u_n[j] - u_m[i] * x[j];
      });
    }
    if (io.P_bar.start == nullptr) return;
    store_rows<L>(io.P_bar, first, count, view.num_P, [&](int t) {
      const int i = view.P_row[t], j = view.P_column[t];
      // An entry off the diagonal stands for P_ij and P_ji.
      return (i == j ? 0.5 : 1.0) * (u_n[i] * x[j] + x[i] * u_n[j]);
    });
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
