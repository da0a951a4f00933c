// SPDX-License-Identifier: Apache-2.0
//
// The derivative of the solution map, transposed, W instances at once:
//
//     K [λ; μ] = [x̄ − Aᵀs̄; S ȳ],   ν = s̄ + S μ
//     q̄ = −λ,  b̄ = ν,  Ā = −(yλᵀ + νxᵀ),  P̄ = −½(λxᵀ + xλᵀ)
//
// with K and S of linearization.hpp. Derivation: docs/derivations/derivative.md.
#pragma once

#include "linearization.hpp"

namespace cvxlayer::CVXLAYER_ISA {

constexpr double kInconsistentAdjoint = 1e-7;
constexpr int kNullPasses = 2;
constexpr int kConePolishes = 3;
constexpr double kOnCentralPath = 1e-12;  // a complementarity that can tell the faces

template <class L>
struct Adjoint final : private Linearization<L> {
  using Base = Linearization<L>;
  using typename Base::M;
  using typename Base::O;
  using typename Base::V;
  static constexpr int W = L::width;
  using Base::apply_root;
  using Base::c_m;
  using Base::c_n;
  using Base::classify;
  using Base::curved_complementarity;
  using Base::data;
  using Base::find_newton_step;
  using Base::kkt;
  using Base::linearize;
  using Base::load;
  using Base::measure_point;
  using Base::multiply;
  using Base::num_linear;
  using Base::probe;
  using Base::r_m;
  using Base::r_n;
  using Base::reduce_dependent_rows;
  using Base::refine_answer;
  using Base::residual_norm;
  using Base::settle_rows;
  using Base::slack_of_row;
  using Base::smoothing;
  using Base::solve_newton_step;
  using Base::solve_refined;
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

  V *y_m, *s_m, *rhs_n, *rhs_m;  // ȳ, s̄, and the right-hand side
  V adjoint_residual;
  bool moves_slack;  // s̄ was given

  void lay_out(const StructureView& view, Arena& arena) {
    Base::lay_out(view, arena);
    y_m = arena.take<V>(view.m);
    s_m = arena.take<V>(view.m);
    rhs_n = arena.take<V>(view.n);
    rhs_m = arena.take<V>(view.m);
  }

  /// Instances first, …, first + count − 1 (count ≤ W). `matrices_ready`: A and its scaling
  /// are shared by the batch and in every lane since the last group.
  void run(const ProblemData& problem, const Scaling& scaling, const AdjointData& io, long first,
           int count, bool matrices_ready) {
    load(problem, scaling, io, first, count, matrices_ready);
    load_cotangents(io, LaneRows<W>(first, count));
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
    } else {
      solve_at_solution(probing, count);
    }
    remove_null_part();
    finish();
    store(io, first, count);
  }

 private:
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

  void load_cotangents(const AdjointData& io, const LaneRows<W>& lanes) {
    const StructureView& view = *structure;
    for (int j = 0; j < view.n; ++j) rhs_n[j] = V{};
    for (int i = 0; i < view.m; ++i) y_m[i] = s_m[i] = V{};
    if (io.x_bar.start != nullptr) {
      load_rows<L>(io.x_bar, lanes, view.n,
                   [&](int j, V value) { rhs_n[j] = O::select(valid, data.d[j] * value, V{}); });
    }
    if (io.y_bar.start != nullptr) {
      load_rows<L>(io.y_bar, lanes, view.m, [&](int i, V value) {
        y_m[i] = O::select(valid, data.e[i] * value / data.cost, V{});
      });
    }
    moves_slack = io.s_bar.start != nullptr;
    if (!moves_slack) return;
    load_rows<L>(io.s_bar, lanes, view.m,
                 [&](int i, V value) { s_m[i] = O::select(valid, value / data.e[i], V{}); });
    // The slack of an infinite bound does not move.
    load_rows<L>(io.s, lanes, view.m,
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

  /// (u_n, u_m) ← (−λ, ν) and (x, y), in user scaling; exactly zero in lanes without a solution.
  void finish() {
    const StructureView& view = *structure;
    apply_root(u_m, c_m);
    for (int j = 0; j < view.n; ++j) {
      u_n[j] = O::select(valid, -(data.cost * data.d[j] * u_n[j]), V{});
      x[j] = O::select(valid, data.d[j] * x[j], V{});
    }
    for (int i = 0; i < view.m; ++i) {
      u_m[i] = O::select(valid, data.e[i] * (s_m[i] + c_m[i]), V{});
      y[i] = O::select(valid, data.e[i] / data.cost * y[i], V{});
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
