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
  V* inverse_h;        // 1/(H + δ) of the singleton rows, by singleton
  V* coupling;         // the entry of GA of each singleton row
  V* permuted;         // two right-hand sides, interleaved
  double regularization;

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
  void begin_assembly(const V* P, double delta) {
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

  /// Solve for `count` right-hand sides; dx, dy overwrite r1 (n each) and r2 (m each).
  template <int count>
  void solve(V* const (&r1)[count], V* const (&r2)[count]) {
    const StructureView& s = *structure;
    for (int c = 0; c < count; ++c) {
      for (int j = 0; j < s.n; ++j) permuted[plan->variable_position[j] * count + c] = r1[c][j];
      for (int i = 0; i < s.m; ++i) {
        if (plan->row_position[i] >= 0) permuted[plan->row_position[i] * count + c] = r2[c][i];
      }
      for (int k = 0; k < s.num_singletons; ++k) {
        permuted[plan->variable_position[s.singleton_column[k]] * count + c] +=
            coupling[k] * inverse_h[k] * r2[c][s.singleton_row[k]];
      }
    }
    factor.template solve_in_place<count>(permuted);
    for (int c = 0; c < count; ++c) {
      for (int j = 0; j < s.n; ++j) r1[c][j] = permuted[plan->variable_position[j] * count + c];
      for (int i = 0; i < s.m; ++i) {
        if (plan->row_position[i] >= 0) r2[c][i] = permuted[plan->row_position[i] * count + c];
      }
      for (int k = 0; k < s.num_singletons; ++k) {
        V& row = r2[c][s.singleton_row[k]];
        row = (coupling[k] * r1[c][s.singleton_column[k]] - row) * inverse_h[k];
      }
    }
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
