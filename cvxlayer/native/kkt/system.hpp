// SPDX-License-Identifier: Apache-2.0
//
// The reduced KKT system in lanes, with singleton rows eliminated by hand:
//
//     [ P   (GA)ᵀ ] [dx]   [r₁]
//     [ GA   −H   ] [dy] = [r₂],    H symmetric positive semidefinite, block diagonal
//
// G is the identity in the solve and the square root of DΠ in the adjoint.
#pragma once

#include "../hsde/scaled_data.hpp"
#include "factor.hpp"

namespace cvxlayer::CVXLAYER_ISA {

template <class L>
struct KktSystem {
  using V = typename L::V;
  using O = Ops<L>;

  const StructureView* structure;
  const KktPlan* plan;
  Factor<L> factor;
  V* inverse_h;  // 1/(H + δ) of the singleton rows, by singleton
  V* coupling;   // the entry of GA of each singleton row
  V* permuted;   // two right-hand sides, interleaved
  V regularization;

  void lay_out(const StructureView& view, const KktPlan& kkt_plan, Arena& arena) {
    structure = &view;
    plan = &kkt_plan;
    const SymbolicView& symbolic = kkt_plan.symbolic;
    factor.symbolic = symbolic;
    factor.storage = arena.take<V>(symbolic.storage);
    factor.pivot = arena.take<V>(symbolic.dim);
    factor.inverse = arena.take<V>(symbolic.dim);
    factor.update = arena.take<V>(symbolic.scratch);
    factor.rows = arena.take<long>(symbolic.dim);
    inverse_h = arena.take<V>(view.num_singletons);
    coupling = arena.take<V>(view.num_singletons);
    permuted = arena.take<V>(2L * symbolic.dim);
  }

  /// Write P + δI, and clear the rest of the factor storage.
  void begin_assembly(const V* P, V delta) {
    const StructureView& s = *structure;
    regularization = delta;
    for (long k = 0; k < plan->symbolic.storage; ++k) factor.storage[k] = V{};
    for (int k = 0; k < s.num_P; ++k) factor.storage[plan->P_entry[k]] = P[k];
    for (int j = 0; j < s.n; ++j) factor.storage[plan->variable_diagonal[j]] += delta;
  }

  /// Write H of a row that is not a singleton, regularized.
  CVXLAYER_INLINE void set_row_diagonal(int row, V h) {
    factor.storage[plan->row_diagonal[row]] = -(h + regularization);
  }

  /// Fold singleton row k (coupling a, diagonal h) into its variable: a²/(h + δ).
  CVXLAYER_INLINE void add_singleton(int k, V a, V h) {
    const V inverse = 1.0 / (h + regularization);
    inverse_h[k] = inverse;
    coupling[k] = a;
    factor.storage[plan->variable_diagonal[structure->singleton_column[k]]] += a * a * inverse;
  }

  /// Solve for `count` right-hand sides; entry j of the first block of side c is top(c, j),
  /// entry i of the second bottom(c, i). Writes dx (n each) and dy (m each), which the two
  /// functions may read only at the entry they are asked for.
  template <int count, class Top, class Bottom>
  void solve(const Top& top, const Bottom& bottom, V* const (&dx)[count], V* const (&dy)[count]) {
    const StructureView& s = *structure;
    for (int j = 0; j < s.n; ++j) {
      V* slot = permuted + static_cast<long>(plan->variable_position[j]) * count;
      for (int c = 0; c < count; ++c) slot[c] = top(c, j);
    }
    for (int i = 0; i < s.m; ++i) {
      if (plan->row_position[i] < 0) continue;
      V* slot = permuted + static_cast<long>(plan->row_position[i]) * count;
      for (int c = 0; c < count; ++c) slot[c] = bottom(c, i);
    }
    for (int k = 0; k < s.num_singletons; ++k) {
      V* slot =
          permuted + static_cast<long>(plan->variable_position[s.singleton_column[k]]) * count;
      const V factor = coupling[k] * inverse_h[k];
      for (int c = 0; c < count; ++c) slot[c] += factor * bottom(c, s.singleton_row[k]);
    }
    factor.template solve_in_place<count>(permuted);
    for (int k = 0; k < s.num_singletons; ++k) {
      const V* slot =
          permuted + static_cast<long>(plan->variable_position[s.singleton_column[k]]) * count;
      const int row = s.singleton_row[k];
      for (int c = 0; c < count; ++c) {
        dy[c][row] = (coupling[k] * slot[c] - bottom(c, row)) * inverse_h[k];
      }
    }
    for (int j = 0; j < s.n; ++j) {
      const V* slot = permuted + static_cast<long>(plan->variable_position[j]) * count;
      for (int c = 0; c < count; ++c) dx[c][j] = slot[c];
    }
    for (int i = 0; i < s.m; ++i) {
      if (plan->row_position[i] < 0) continue;
      const V* slot = permuted + static_cast<long>(plan->row_position[i]) * count;
      for (int c = 0; c < count; ++c) dy[c][i] = slot[c];
    }
  }

  /// Solve in place: (u, v) ← K⁻¹ (u, v).
  void solve_in_place(V* u, V* v) {
    solve<1>([u](int, int j) { return u[j]; }, [v](int, int i) { return v[i]; }, {u}, {v});
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
