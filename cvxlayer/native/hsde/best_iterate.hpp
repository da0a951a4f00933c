// SPDX-License-Identifier: Apache-2.0
//
// The best iterate of each lane so far: what a lane returns that does not reach its tolerance.
#pragma once

#include "../kkt/structure.hpp"
#include "../linalg/arena.hpp"
#include "../linalg/lanes.hpp"

namespace cvxlayer::CVXLAYER_ISA {

template <class L>
struct BestIterate {
  using V = typename L::V;
  using M = typename L::M;
  using O = Ops<L>;

  V *x, *y, *s, tau;
  V merit, primal_residual, dual_residual, gap;
  V age;  // iterations since

  void lay_out(const StructureView& view, Arena& arena) {
    x = arena.take<V>(view.n);
    y = arena.take<V>(view.m);
    s = arena.take<V>(view.m);
  }

  /// A new instance enters the lane.
  void reset(int lane) {
    O::set(merit, lane, __builtin_inf());
    O::set(age, lane, 0.0);
  }

  /// Take the current iterate of `solver` in the lanes where it is `better`.
  template <class Solver>
  void keep(M better, const Solver& solver) {
    age = O::select(better, V{}, age + 1.0);
    if (!O::any(better)) return;
    const StructureView& view = *solver.structure;
    for (int j = 0; j < view.n; ++j) x[j] = O::select(better, solver.x[j], x[j]);
    for (int i = 0; i < view.m; ++i) {
      y[i] = O::select(better, solver.y[i], y[i]);
      s[i] = O::select(better, solver.s[i], s[i]);
    }
    tau = O::select(better, solver.tau, tau);
    merit = O::select(better, solver.merit, merit);
    primal_residual = O::select(better, solver.primal_residual, primal_residual);
    dual_residual = O::select(better, solver.dual_residual, dual_residual);
    gap = O::select(better, solver.gap, gap);
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
