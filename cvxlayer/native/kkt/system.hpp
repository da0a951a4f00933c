// SPDX-License-Identifier: Apache-2.0
//
// The reduced KKT system in lanes, with singleton rows and condensed cones eliminated by hand:
//
//     [ P   (GA)ᵀ ] [dx]   [r₁]
//     [ GA   −H   ] [dy] = [r₂],    H symmetric positive semidefinite, block diagonal
//
// G is the identity in the solve and the square root of DΠ in the adjoint. The rows of a
// condensed cone leave (GA)ᵀH⁻¹(GA) in the block of x and come back as dy = H⁻¹(GA dx − r₂).
#pragma once

#include "../cones/curved.hpp"
#include "../hsde/scaled_data.hpp"
#include "factor.hpp"
#include "folded_cones.hpp"

namespace cvxlayer::CVXLAYER_ISA {

template <class L, template <class> class Faces>
struct KktSystem {
  using V = typename L::V;
  using O = Ops<L>;

  const StructureView* structure;
  const KktPlan* plan;
  Factor<L> factor;
  const CurvedCones<L, Faces>* curved;
  FoldedCones<L> folded;
  const V* A;
  V *cone_rows, *cone_result;  // of one condensed cone
  V* inverse_h;                // 1/(H + δ) of the singleton rows, by singleton
  V* coupling;                 // the entry of GA of each singleton row
  V* permuted;                 // two right-hand sides, one after the other
  V regularization;

  void lay_out(const StructureView& view, const KktPlan& kkt_plan,
               const CurvedCones<L, Faces>& cones, Arena& arena) {
    structure = &view;
    plan = &kkt_plan;
    curved = &cones;
    int largest = 0;
    for (int k = 0; k < view.num_cones; ++k) {
      if (view.cones[k].size > largest) largest = view.cones[k].size;
    }
    cone_rows = arena.take<V>(largest);
    cone_result = arena.take<V>(largest);
    factor.lay_out(kkt_plan.symbolic, arena);
    folded.lay_out(kkt_plan, arena);
    inverse_h = arena.take<V>(view.num_singletons);
    coupling = arena.take<V>(view.num_singletons);
    permuted = arena.take<V>(2L * kkt_plan.symbolic.dim);
  }

  /// Write P + δI, and clear what is not assigned anyway.
  void begin_assembly(const V* P, const V* matrix, V delta) {
    const StructureView& s = *structure;
    regularization = delta;
    A = matrix;
    for (int r = 0; r < plan->num_clear_runs; ++r) {
      const EntryRun& run = plan->clear_run[r];
      V* target = factor.storage + run.target;
      for (int k = 0; k < run.count; ++k) target[k * run.stride] = V{};
    }
    write_runs(plan->P_run, plan->num_P_runs, P);
    for (int j = 0; j < s.n; ++j) {
      if (plan->variable_diagonal[j] >= 0) factor.storage[plan->variable_diagonal[j]] += delta;
    }
  }

  /// Write the entries of A that stand alone.
  void write_A(const V* A) { write_runs(plan->A_run, plan->num_A_runs, A); }

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

  /// Eliminate folded cone k, given the lower triangle of its H.
  void fold_cone(int k, const V* H) { folded.fold(k, H, A, regularization, factor.storage); }

  /// Add the Schur complements of the condensed cones to the block of x.
  void add_condensed() {
    const StructureView& s = *structure;
    const long* target = plan->condensed_entry;
    curved->for_each_condensed([&](int k, const auto& face) {
      const int begin = s.mixed_start[k], count = s.mixed_start[k + 1] - begin;
      const ConeColumns columns{count, s.term_start + begin, s.term_row, s.term_column,
                                s.term_entry};
      face.add_schur(columns, A, regularization, factor.storage, target);
      target += static_cast<long>(count) * (count + 1) / 2;
    });
  }

  /// Solve for `count` right-hand sides; entry j of the first block of side c is top(c, j),
  /// entry i of the second bottom(c, i). Writes dx (n each) and dy (m each), which the two
  /// functions may read only at the entry they are asked for.
  template <int count, class Top, class Bottom>
  void solve(const Top& top, const Bottom& bottom, V* const (&dx)[count], V* const (&dy)[count]) {
    const StructureView& s = *structure;
    const long dim = plan->symbolic.dim;
    for (int c = 0; c < count; ++c) {
      V* side = permuted + c * dim;
      for (int j = 0; j < s.n; ++j) {
        if (plan->variable_position[j] >= 0) side[plan->variable_position[j]] = top(c, j);
      }
      for (int i = 0; i < s.m; ++i) {
        if (plan->row_position[i] >= 0) side[plan->row_position[i]] = bottom(c, i);
      }
      for (int k = 0; k < s.num_singletons; ++k) {
        side[plan->variable_position[s.singleton_column[k]]] +=
            coupling[k] * inverse_h[k] * bottom(c, s.singleton_row[k]);
      }
      folded.reduce(A, [&](int j) { return top(c, j); }, [&](int i) { return bottom(c, i); }, side);
    }
    fold_condensed<count>(bottom);
    factor.template solve_in_place<count>(permuted);
    recover_condensed<count>(bottom, dy);
    for (int c = 0; c < count; ++c) {
      const V* side = permuted + c * dim;
      for (int k = 0; k < s.num_singletons; ++k) {
        const int row = s.singleton_row[k];
        const V value = side[plan->variable_position[s.singleton_column[k]]];
        dy[c][row] = (coupling[k] * value - bottom(c, row)) * inverse_h[k];
      }
      folded.recover(
          A, [&](int j) { return top(c, j); }, [&](int i) { return bottom(c, i); }, side, dx[c],
          dy[c]);
      for (int j = 0; j < s.n; ++j) {
        if (plan->variable_position[j] >= 0) dx[c][j] = side[plan->variable_position[j]];
      }
      for (int i = 0; i < s.m; ++i) {
        if (plan->row_position[i] >= 0) dy[c][i] = side[plan->row_position[i]];
      }
    }
  }

  /// Solve in place: (u, v) ← K⁻¹ (u, v).
  void solve_in_place(V* u, V* v) {
    solve<1>([u](int, int j) { return u[j]; }, [v](int, int i) { return v[i]; }, {u}, {v});
  }

 private:
  void write_runs(const EntryRun* runs, int count, const V* values) {
    for (int r = 0; r < count; ++r) {
      const EntryRun& run = runs[r];
      V* target = factor.storage + run.target;
      const V* source = values + run.source;
      if (run.stride == 1) {
        for (int k = 0; k < run.count; ++k) target[k] = source[k];
      } else {
        for (int k = 0; k < run.count; ++k) target[k * run.stride] = source[k];
      }
    }
  }

  /// Where right-hand side c holds a variable.
  CVXLAYER_INLINE V& slot_of(int c, int variable) const {
    return permuted[static_cast<long>(c) * plan->symbolic.dim + plan->variable_position[variable]];
  }

  /// r₁ += (GA)ᵀH⁻¹ r₂
  template <int count, class Bottom>
  void fold_condensed(const Bottom& bottom) {
    const StructureView& s = *structure;
    curved->for_each_condensed([&](int, const auto& face) {
      const int start = face.cone.start;
      for (int c = 0; c < count; ++c) {
        for (int a = 0; a < face.cone.size; ++a) cone_rows[a] = bottom(c, start + a);
        face.fold(cone_rows, cone_result);
        for (int a = 0; a < face.cone.size; ++a) {
          for (int t = s.row_start[start + a]; t < s.row_start[start + a + 1]; ++t) {
            slot_of(c, s.row_column[t]) += A[s.row_entry[t]] * cone_result[a];
          }
        }
      }
    });
  }

  /// dy = H⁻¹(GA dx − r₂)
  template <int count, class Bottom>
  void recover_condensed(const Bottom& bottom, V* const (&dy)[count]) {
    const StructureView& s = *structure;
    curved->for_each_condensed([&](int, const auto& face) {
      const int start = face.cone.start;
      for (int c = 0; c < count; ++c) {
        for (int a = 0; a < face.cone.size; ++a) {
          V sum{};
          for (int t = s.row_start[start + a]; t < s.row_start[start + a + 1]; ++t) {
            sum += A[s.row_entry[t]] * slot_of(c, s.row_column[t]);
          }
          cone_rows[a] = sum;
        }
        face.couple(cone_rows);
        for (int a = 0; a < face.cone.size; ++a) cone_rows[a] -= bottom(c, start + a);
        face.recover(cone_rows, dy[c] + start);
      }
    });
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
