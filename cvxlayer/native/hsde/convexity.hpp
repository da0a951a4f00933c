// SPDX-License-Identifier: Apache-2.0
//
// Is P positive semidefinite? Where it is not, a point that meets the optimality conditions may be
// a saddle. `cvxlayer/program/convexity.py` is the specification.
#pragma once

#include "../kkt/factor.hpp"
#include "../kkt/structure.hpp"
#include "lane_rows.hpp"
#include "status.hpp"

namespace cvxlayer::CVXLAYER_ISA {

// What is added to the diagonal before all pivots have to be positive: a share of the largest entry
// of P, as in the check of values that are declared PSD, and one of each entry of the diagonal
// times the norm of P with a diagonal of ones, for matrices computed in single precision.
constexpr double kConvexityRounding = 1e-8, kConvexityShare = 1e-6;

template <class L>
struct Convexity {
  using V = typename L::V;
  using M = typename L::M;
  using O = Ops<L>;

  const StructureView* structure;
  V *P, *root, *row_sum;
  Factor<L> factor;

  void lay_out(const StructureView& view, Arena& arena) {
    structure = &view;
    if (!view.tests_convexity) return;
    P = arena.take<V>(view.num_P);
    root = arena.take<V>(view.n);
    row_sum = arena.take<V>(view.n);
    factor.lay_out(view.convexity.symbolic, arena);
  }

  /// The lanes in which P is finite and indefinite beyond rounding.
  M find_indefinite(const ProblemData& problem, const LaneRows<L::width>& lanes) {
    const StructureView& s = *structure;
    V largest{};
    M finite = ~O::none();
    load_rows<L>(problem.P, lanes, s.num_P, [&](int t, V value) {
      P[t] = value;
      largest = O::max(largest, O::abs(value));
      finite = finite & O::is_finite(value);
    });
    if (!O::any(finite)) return O::none();
    // Beside its largest entry nothing overflows.
    const V inverse = 1.0 / O::select(O::gt(largest, V{}), largest, O::splat(1.0));
    for (int t = 0; t < s.num_P; ++t) P[t] *= inverse;
    assemble();
    factor.factorize(V{});  // a pivot that is not positive is replaced by 0
    M positive = ~O::none();
    for (int j = 0; j < s.n; ++j) positive = positive & O::gt(factor.pivot[j], V{});
    return finite & ~positive;
  }

 private:
  /// P and the shift into the storage of the factor.
  void assemble() {
    const StructureView& s = *structure;
    for (long k = 0; k < s.convexity.symbolic.storage; ++k) factor.storage[k] = V{};
    for (int j = 0; j < s.n; ++j) root[j] = row_sum[j] = V{};
    for (int t = 0; t < s.num_P; ++t) {
      const int j = s.P_column[t];
      factor.storage[s.convexity.entry[t]] = P[t];
      if (s.P_row[t] == j) root[j] = O::sqrt(O::abs(P[t]));
    }
    for (int t = 0; t < s.num_P; ++t) {
      const int i = s.P_row[t], j = s.P_column[t];
      // No entry of a positive semidefinite matrix is larger than these.
      const V bound = root[i] * root[j], size = O::min(O::abs(P[t]), bound);
      const V share = O::select(O::gt(bound, V{}), size / bound, V{});
      row_sum[j] += share;
      if (i != j) row_sum[i] += share;
    }
    V norm{};
    for (int j = 0; j < s.n; ++j) norm = O::max(norm, row_sum[j]);
    for (int j = 0; j < s.n; ++j) {
      factor.storage[s.convexity.diagonal[j]] +=
          kConvexityRounding + kConvexityShare * norm * root[j] * root[j];
    }
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
