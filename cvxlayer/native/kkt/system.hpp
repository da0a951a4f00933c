// SPDX-License-Identifier: Apache-2.0
//
// The reduced KKT system in lanes, with singleton rows and condensed cones eliminated by hand:
//
//     [ P   (GA)ᵀ ] [dx]   [r₁]
//     [ GA   −H   ] [dy] = [r₂],    H symmetric positive semidefinite, block diagonal
//
// G is the identity in the solve and the square root of DΠ in the adjoint. The rows of a
// condensed cone leave (GA)ᵀH⁻¹(GA) in the block of x and come back as dy = H⁻¹(GA dx − r₂).
// Those of a bordered one are in the matrix, together with two more; see border.hpp.
#pragma once

#include "../cones/curved.hpp"
#include "../hsde/scaled_data.hpp"
#include "border.hpp"
#include "factor.hpp"
#include "folded_cones.hpp"
#include "gathered_rows.hpp"

namespace cvxlayer::CVXLAYER_ISA {

// Pivots of P, as a share of the largest, below which A P⁻¹Aᵀ costs too many digits.
constexpr double kLeastPivot = 1e-4;

template <class L, template <class> class Faces>
struct KktSystem {
  using V = typename L::V;
  using O = Ops<L>;

  const StructureView* structure;
  const KktPlan* plan;
  Factor<L> factor;
  const CurvedCones<L, Faces>* curved;
  FoldedCones<L> folded;
  GatheredRows<L> gathered;
  const V* A;
  V *cone_rows, *cone_result;  // of one condensed cone
  V* inverse_h;                // 1/(H + δ) of the singleton rows, by singleton
  V* coupling;                 // the entry of GA of each singleton row
  V* permuted;                 // two right-hand sides, one after the other
  BorderNumbers<V>* border_numbers;
  V* border_axes;                 // ζ of every bordered cone
  V* soft_sides;                  // fᵀr₂ of every bordered cone, for two right-hand sides
  V* along_soft;                  // fᵀA of every bordered cone, by column of its union
  V* kept;                        // −A P⁻¹Aᵀ, where P and A are eliminated once
  V kept_delta;                   // the δ it was found with
  V* kept_sides;                  // two right-hand sides (r₁, 0) with P and A eliminated
  bool is_constant_kept = false;  // whether the second of them is of this P and A
  V regularization;
  V condensed_delta;  // δ of condensed cones, the same unless set after `begin_assembly`

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
    gathered.lay_out(kkt_plan, arena);
    inverse_h = arena.take<V>(view.num_singletons);
    coupling = arena.take<V>(view.num_singletons);
    permuted = arena.take<V>(2L * kkt_plan.symbolic.dim);
    border_numbers = arena.take<BorderNumbers<V>>(view.num_bordered);
    border_axes = arena.take<V>(view.num_bordered_rows);
    soft_sides = arena.take<V>(2L * view.num_bordered);
    along_soft = arena.take<V>(view.num_bordered_columns);
    kept = arena.take<V>(kkt_plan.num_varying_entries);
    kept_sides = arena.take<V>(kkt_plan.num_fixed > 0 ? 2L * kkt_plan.symbolic.dim : 0);
  }

  /// Write P + δI, and clear what is not assigned anyway.
  void begin_assembly(const V* P, const V* matrix, V delta) {
    const StructureView& s = *structure;
    regularization = condensed_delta = delta;
    A = matrix;
    gathered.release(factor);
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

  /// Write the entries of A that stand alone, but for those that the factor borrows. Where they
  /// were `written` before and A is the same, only those that a factorization overwrites.
  void write_A(bool written) {
    factor.A = A;
    const int first = written ? plan->num_kept_A_runs : plan->num_borrowed_A_runs;
    write_runs(plan->A_run + first, plan->num_A_runs - first, A);
  }

  /// Write the entries of A in linear rows, times `root` of their row, which is 0 or 1 with
  /// `is_settled`. The diagonals of these rows have been written.
  void write_rooted_A(const V* root, bool is_settled) {
    const bool gathers = is_settled && plan->dense_rows.count > 0;
    if (gathers) gathered.gather(root, structure->A_row, A, regularization, factor);
    const int count = gathers ? plan->num_other_rooted_runs : plan->num_rooted_runs;
    for (int r = 0; r < count; ++r) {
      const EntryRun& run = plan->rooted_run[r];
      V* target = factor.storage + run.target;
      const V* source = A + run.source;
      const int* row = structure->A_row + run.source;
      if (run.stride == 1) {
        for (int k = 0; k < run.count; ++k) target[k] = source[k] * root[row[k]];
      } else {
        for (int k = 0; k < run.count; ++k) target[k * run.stride] = source[k] * root[row[k]];
      }
    }
  }

  /// The same without borrowing, so that entries may be changed.
  void copy_A() {
    factor.A = nullptr;
    write_runs(plan->A_run, plan->num_A_runs, A);
  }

  /// Eliminate P and A, which were just written, where the plan keeps what they leave.
  void factorize_fixed() {
    if (plan->num_fixed == 0) return;
    factor.factorize(regularization, 0, plan->num_fixed);
    copy_varying(factor.storage + varying_begin(), kept);
    kept_delta = regularization;
    is_constant_kept = false;
  }

  /// Begin with what P and A have left, if it was kept and for this δ.
  bool begin_with_fixed(V delta) {
    if (plan->num_fixed == 0 || O::any(~O::le(O::abs(delta - kept_delta), V{}))) return false;
    regularization = condensed_delta = delta;
    copy_varying(kept, factor.storage + varying_begin());
    return true;
  }

  /// The lanes in which the pivots of P are close enough to one another for what they leave to have
  /// its digits.
  typename L::M has_good_pivots() const {
    if (plan->num_fixed == 0) return ~O::none();
    V least = O::splat(__builtin_inf()), largest{};
    for (int j = 0; j < structure->n; ++j) {
      least = O::min(least, factor.pivot[j]);
      largest = O::max(largest, factor.pivot[j]);
    }
    return O::gt(least, kLeastPivot * largest);
  }

  void factorize() { factor.factorize(regularization, plan->num_fixed, plan->symbolic.num_nodes); }

  /// Write H of a row that is not a singleton, regularized.
  CVXLAYER_INLINE void set_row_diagonal(int row, V h) {
    V& diagonal = factor.storage[plan->row_diagonal[row]];
    diagonal = (plan->num_fixed > 0 ? diagonal : V{}) - (h + regularization);
  }

  /// Fold singleton row k (coupling a, diagonal h) into its variable: a²/(h + δ).
  CVXLAYER_INLINE void add_singleton(int k, V a, V h) {
    fold_singleton(k, a, 1.0 / (h + regularization));
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
      face.add_schur(columns, A, condensed_delta, factor.storage, target);
      target += static_cast<long>(count) * (count + 1) / 2;
    });
  }

  /// Write the rows of bordered cones, and their borders; `point` is what D was found at.
  void add_bordered(const V* point) {
    const StructureView& s = *structure;
    const long* entry = plan->border_entry;
    V* soft = along_soft;
    int singleton = s.num_linear_singletons;
    for_each_border([&](int k, const auto& face, const Border<L>& border, int index) {
      BorderNumbers<V>& b = border.numbers;
      b = face.border(point == nullptr ? nullptr : point + face.cone.start, regularization,
                      border.zeta);
      for (int i = face.cone.start; i < face.cone.end(); ++i) {
        if (plan->row_position[i] < 0) {
          fold_singleton(singleton, A[s.singleton_entry[singleton]] * b.couple, b.inverse);
          ++singleton;
          continue;
        }
        factor.storage[plan->row_diagonal[i]] = -b.diagonal;
        if (face.is_rooted) {
          for (int t = s.row_start[i]; t < s.row_start[i + 1]; ++t) {
            const int source = s.row_entry[t];
            factor.storage[plan->A_entry[source]] = A[source] * b.couple;
          }
        }
      }
      factor.storage[plan->border_diagonal[2 * index]] = -b.pivot_stiff;
      factor.storage[plan->border_diagonal[2 * index + 1]] = b.pivot_soft;
      const int begin = s.mixed_start[k], end = s.mixed_start[k + 1];
      border.write(s, begin, end, A, factor.storage, entry, soft);
      entry += 2L * (end - begin);
      soft += end - begin;
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
    fold_bordered<count>(bottom);
    for (int c = 0; c < count && gathered.in_use; ++c) gathered.reorder(permuted + c * dim);
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
      if (gathered.in_use) gathered.restore(side, regularization, s.A_row, dy[c]);
    }
    recover_bordered<count>(dy);
  }

  /// The same for two sides, of which the second has the top it had since P and A were eliminated.
  template <class Top, class Bottom>
  CVXLAYER_INLINE void solve_with_constant(const Top& top, const Bottom& bottom, V* const (&dx)[2],
                                           V* const (&dy)[2]) {
    if (plan->num_fixed == 0) return solve<2>(top, bottom, dx, dy);
    for (int c = 0; c < (is_constant_kept ? 1 : 2); ++c) {
      V* side = kept_sides + static_cast<long>(c) * plan->symbolic.dim;
      for (int j = 0; j < structure->n; ++j) side[plan->variable_position[j]] = top(c, j);
      for (int i = 0; i < structure->m; ++i) side[plan->row_position[i]] = V{};
      factor.template eliminate<1>(side, 0, plan->num_fixed);
    }
    is_constant_kept = true;
    solve_with_kept<2>(O::splat(1.0), bottom, dx, dy);
  }

  /// The same for one side, whose top is `share` times the first of the last call above.
  template <class Top, class Bottom>
  CVXLAYER_INLINE void solve_with_share(V share, const Top& top, const Bottom& bottom, V* dx,
                                        V* dy) {
    if (plan->num_fixed > 0) return solve_with_kept<1>(share, bottom, {dx}, {dy});
    solve<1>([&](int, int j) { return share * top(j); }, bottom, {dx}, {dy});
  }

  /// out −= f fᵀA u on the rows of bordered cones.
  void subtract_along_soft(const V* u, V* out) const {
    const StructureView& s = *structure;
    const V* soft = along_soft;
    for_each_border([&](int k, const auto& face, const Border<L>& border, int) {
      V sum{};
      for (int c = s.mixed_start[k]; c < s.mixed_start[k + 1]; ++c) {
        sum += *soft++ * u[s.mixed_column[c]];
      }
      border.add_soft(-sum, out + face.cone.start);
    });
  }

  /// Solve in place: (u, v) ← K⁻¹ (u, v).
  void solve_in_place(V* u, V* v) {
    solve<1>([u](int, int j) { return u[j]; }, [v](int, int i) { return v[i]; }, {u}, {v});
  }

 private:
  long varying_begin() const { return plan->symbolic.storage - plan->num_varying_entries; }

  /// Solve from right-hand sides in which P and A are eliminated, the first one times `share`.
  template <int count, class Bottom>
  void solve_with_kept(V share, const Bottom& bottom, V* const (&dx)[count],
                       V* const (&dy)[count]) {
    const long dim = plan->symbolic.dim;
    for (int k = 0; k < dim; ++k) permuted[k] = share * kept_sides[k];
    for (long k = dim; k < count * dim; ++k) permuted[k] = kept_sides[k];
    for (int c = 0; c < count; ++c) {
      V* side = permuted + c * dim;
      for (int i = 0; i < structure->m; ++i) side[plan->row_position[i]] += bottom(c, i);
    }
    factor.template eliminate<count>(permuted, plan->num_fixed, plan->symbolic.num_nodes);
    factor.template substitute_back<count>(permuted);
    for (int c = 0; c < count; ++c) {
      const V* side = permuted + c * dim;
      for (int j = 0; j < structure->n; ++j) dx[c][j] = side[plan->variable_position[j]];
      for (int i = 0; i < structure->m; ++i) dy[c][i] = side[plan->row_position[i]];
    }
  }

  /// The lower triangle of the only supernode that varies.
  void copy_varying(const V* from, V* to) const {
    const Supernode& node = plan->symbolic.nodes[plan->num_fixed];
    for (int i = 0; i < node.width; ++i, from += node.lead, to += node.lead) {
      for (int j = 0; j <= i; ++j) to[j] = from[j];
    }
  }

  /// Singleton k with its coupling a and 1/(H + δ).
  CVXLAYER_INLINE void fold_singleton(int k, V a, V inverse) {
    inverse_h[k] = inverse;
    coupling[k] = a;
    factor.storage[plan->variable_diagonal[structure->singleton_column[k]]] += a * a * inverse;
  }

  /// body(k, face, border, index) for every bordered cone k; `index` counts them.
  template <class Body>
  CVXLAYER_INLINE void for_each_border(const Body& body) const {
    int index = 0;
    V* zeta = border_axes;
    curved->for_each_bordered([&](int k, const auto& face) {
      body(k, face, Border<L>{border_numbers[index], zeta, face.cone.size}, index);
      zeta += face.cone.size;
      ++index;
    });
  }

  /// The right-hand sides of the borders.
  template <int count, class Bottom>
  void fold_bordered(const Bottom& bottom) {
    for_each_border([&](int, const auto& face, const Border<L>& border, int index) {
      const int start = face.cone.start, *position = plan->border_position + 2 * index;
      for (int c = 0; c < count; ++c) {
        const auto parts = border.parts_of([&](int a) { return bottom(c, start + a); });
        V* side = permuted + static_cast<long>(c) * plan->symbolic.dim;
        side[position[0]] = border.numbers.side_stiff * parts.stiff;
        side[position[1]] = border.numbers.side_soft * parts.soft;
        soft_sides[2 * index + c] = parts.soft;
      }
    });
  }

  template <int count>
  void recover_bordered(V* const (&dy)[count]) {
    for_each_border([&](int, const auto& face, const Border<L>& border, int index) {
      const int position = plan->border_position[2 * index];
      for (int c = 0; c < count; ++c) {
        const V stiff = permuted[static_cast<long>(c) * plan->symbolic.dim + position];
        border.recover(stiff, soft_sides[2 * index + c], dy[c] + face.cone.start);
      }
    });
  }

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
