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
  using Base::data;
  using Base::find_newton_step;
  using Base::linearize;
  using Base::load;
  using Base::multiply;
  using Base::num_linear;
  using Base::reduce_dependent_rows;
  using Base::residual_norm;
  using Base::settle_rows;
  using Base::solve_refined;
  using Base::structure;
  using Base::t_n;
  using Base::take_newton_step;
  using Base::u_m;
  using Base::u_n;
  using Base::unclassified;
  using Base::valid;
  using Base::x;
  using Base::y;

  V *s_m, *rhs_n, *rhs_m;  // s̄, and the right-hand side
  V adjoint_residual;

  void lay_out(const StructureView& view, Arena& arena) {
    Base::lay_out(view, arena);
    s_m = arena.take<V>(view.m);
    rhs_n = arena.take<V>(view.n);
    rhs_m = arena.take<V>(view.m);
  }

  /// Instances first, …, first + count − 1 (count ≤ W). `matrices_ready`: A and its scaling
  /// are shared by the batch and in every lane since the last group.
  void run(const ProblemData& problem, const Scaling& scaling, const AdjointData& io, long first,
           int count, bool matrices_ready) {
    load(problem, scaling, io, first, count, matrices_ready);
    for (int lane = 0; lane < W; ++lane) {
      load_cotangents(io, first + (lane < count ? lane : 0), lane, O::get_mask(valid, lane));
    }
    if (O::any(unclassified)) classify();
    settle_rows();
    linearize();
    // Which of several dependent rows are kept changes the cotangents of A and b, and those
    // that come from y; λ, and with it q̄ and P̄, is the same for all.
    const bool probing =
        num_linear() > 0 &&
        (io.A_bar.start != nullptr || io.b_bar.start != nullptr || io.y_bar.start != nullptr);
    find_newton_step(probing);
    if (probing && reduce_dependent_rows(count)) {
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
    solve_adjoint();
    store(io, first, count);
  }

 private:
  void load_cotangents(const AdjointData& io, long row, int lane, bool ok) {
    const StructureView& view = *structure;
    const double k = O::get(data.cost, lane);
    for (int j = 0; j < view.n; ++j) {
      const bool given = ok && io.x_bar.start != nullptr;
      O::set(rhs_n[j], lane, given ? O::get(data.d[j], lane) * io.x_bar.at(row, j) : 0.0);
    }
    for (int i = 0; i < view.m; ++i) {
      const double e = O::get(data.e[i], lane);
      O::set(rhs_m[i], lane, ok && io.y_bar.start != nullptr ? e * io.y_bar.at(row, i) / k : 0.0);
      const bool moves = ok && io.s_bar.start != nullptr && __builtin_isfinite(io.s.at(row, i));
      O::set(s_m[i], lane, moves ? io.s_bar.at(row, i) / e : 0.0);
    }
  }

  // --------------------------------------------------------------------------------- adjoint
  void solve_adjoint() {
    const StructureView& view = *structure;
    data.multiply_At(s_m, t_n);
    for (int j = 0; j < view.n; ++j) rhs_n[j] -= t_n[j];
    apply_root(rhs_m, c_m);
    for (int i = 0; i < view.m; ++i) rhs_m[i] = c_m[i];
    adjoint_residual = solve_refined(rhs_n, rhs_m);
    // What is left of an inconsistent system is its part along null vectors of K, answered by
    // one of size 1/δ. Without that part the answer is the least-squares one.
    const M inconsistent = valid & O::gt(adjoint_residual, O::splat(kInconsistentAdjoint));
    for (int pass = 0; pass < kNullPasses && O::any(inconsistent); ++pass) {
      multiply(u_n, u_m, c_n, c_m);
      for (int j = 0; j < view.n; ++j) {
        rhs_n[j] = O::select(inconsistent, c_n[j], rhs_n[j]);
      }
      for (int i = 0; i < view.m; ++i) {
        rhs_m[i] = O::select(inconsistent, c_m[i], rhs_m[i]);
      }
      solve_refined(rhs_n, rhs_m);
    }
    apply_root(u_m, c_m);
    // λ, ν, x, y in user scaling.
    for (int j = 0; j < view.n; ++j) {
      u_n[j] *= data.cost * data.d[j];
      x[j] *= data.d[j];
    }
    for (int i = 0; i < view.m; ++i) {
      u_m[i] = data.e[i] * (s_m[i] + c_m[i]);
      y[i] *= data.e[i] / data.cost;
    }
  }

  void store(const AdjointData& io, long first, int count) const {
    const StructureView& view = *structure;
    for (int lane = 0; lane < count; ++lane) {
      const long row = first + lane;
      const bool ok = O::get_mask(valid, lane);
      auto of = [lane, ok](const V* array, int i) { return ok ? O::get(array[i], lane) : 0.0; };
      io.residual[row] = ok ? O::get(adjoint_residual, lane) : 0.0;
      if (io.q_bar.start != nullptr) {
        for (int j = 0; j < view.n; ++j) io.q_bar.at(row, j) = -of(u_n, j);
      }
      if (io.b_bar.start != nullptr) {
        for (int i = 0; i < view.m; ++i) io.b_bar.at(row, i) = of(u_m, i);
      }
      if (io.A_bar.start != nullptr) store_A(io, row, of);
      if (io.P_bar.start != nullptr) store_P(io, row, of);
    }
  }

  template <class Of>
  void store_A(const AdjointData& io, long row, const Of& of) const {
    const StructureView& view = *structure;
    for (int j = 0; j < view.n; ++j) {
      const double lambda = of(u_n, j), primal = of(x, j);
      for (int t = view.A_start[j]; t < view.A_start[j + 1]; ++t) {
        const int i = view.A_row[t];
        io.A_bar.at(row, t) = -(of(y, i) * lambda + of(u_m, i) * primal);
      }
    }
  }

  template <class Of>
  void store_P(const AdjointData& io, long row, const Of& of) const {
    const StructureView& view = *structure;
    for (int j = 0; j < view.n; ++j) {
      const double lambda = of(u_n, j), primal = of(x, j);
      for (int t = view.P_start[j]; t < view.P_start[j + 1]; ++t) {
        const int i = view.P_row[t];
        // An entry off the diagonal stands for P_ij and P_ji.
        io.P_bar.at(row, t) =
            i == j ? -lambda * primal : -(of(u_n, i) * primal + of(x, i) * lambda);
      }
    }
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
