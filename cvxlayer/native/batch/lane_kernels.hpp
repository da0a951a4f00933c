// SPDX-License-Identifier: Apache-2.0
//
// Instantiates the lane code for one width; included once per instruction set.
#pragma once

#include "../adjoint/adjoint.hpp"
#include "../adjoint/curvature.hpp"
#include "../adjoint/polish.hpp"
#include "../adjoint/warm.hpp"
#include "../cones/point_projection.hpp"
#include "../hsde/convexity.hpp"
#include "../hsde/equilibrate.hpp"
#include "../hsde/solver.hpp"
#include "../kkt/definite.hpp"
#include "kernels.hpp"

namespace cvxlayer::CVXLAYER_ISA {

template <class L>
struct LaneKernels {
  static size_t workspace_bytes(const StructureView& view) {
    Arena equilibration(nullptr), solver(nullptr), adjoint(nullptr), curvature(nullptr);
    Arena convexity(nullptr), range_space(nullptr);
    Equilibration<L>().lay_out(view, equilibration);
    HsdeSolver<L>().lay_out(view, view.solve, solver);
    if (view.has_range_space) HsdeSolver<L>().lay_out(view, view.range_space, range_space);
    Adjoint<L>().lay_out(view, adjoint);
    Curvature<L>().lay_out(view, curvature);
    Convexity<L>().lay_out(view, convexity);
    size_t bytes = equilibration.used();
    if (solver.used() > bytes) bytes = solver.used();
    if (range_space.used() > bytes) bytes = range_space.used();
    if (adjoint.used() > bytes) bytes = adjoint.used();
    if (curvature.used() > bytes) bytes = curvature.used();
    if (convexity.used() > bytes) bytes = convexity.used();
    return bytes;
  }

  static void equilibrate(const StructureView& view, char* workspace, const ProblemData& problem,
                          const Scaling& scaling, long first, long count, bool compute_matrices) {
    Arena arena(workspace);
    Equilibration<L> equilibration;
    equilibration.lay_out(view, arena);
    equilibration.run(problem, scaling, first, static_cast<int>(count), compute_matrices);
  }

  static void solve(const StructureView& view, char* workspace, const ProblemData& problem,
                    const Scaling& scaling, const SolveSettings& settings,
                    const std::int64_t* index, long begin, long end, const SolveResults& results) {
    Arena arena(workspace);
    HsdeSolver<L> solver;
    solver.lay_out(view, settings.in_range_space ? view.range_space : view.solve, arena);
    Queue queue{index, begin, end};
    solver.run(problem, scaling, settings, queue, results);
  }

  static void polish(const StructureView& view, char* workspace, const ProblemData& problem,
                     const Scaling& scaling, const SolveSettings& settings, long begin, long end,
                     const SolveResults& results) {
    Arena arena(workspace);
    Polish<L> polish;
    polish.lay_out(view, arena);
    AdjointData io{};
    io.x = {results.x.start, results.x.row_stride, results.x.stride};
    io.y = {results.y.start, results.y.row_stride, results.y.stride};
    io.s = {results.s.start, results.s.row_stride, results.s.stride};
    io.status = results.status;
    io.is_active = {results.is_active.start, results.is_active.row_stride,
                    results.is_active.stride};
    for (long first = begin; first < end; first += L::width) {
      const long left = end - first;
      const bool ready = first > begin && problem.A.is_shared() && scaling.row_stride == 0;
      polish.run(problem, scaling, io, first, static_cast<int>(left < L::width ? left : L::width),
                 ready, settings, results);
    }
  }

  static void warm_start(const StructureView& view, char* workspace, const ProblemData& problem,
                         const Scaling& scaling, const SolveSettings& settings,
                         const StartingPoints& start, long begin, long end,
                         const SolveResults& results) {
    Arena arena(workspace);
    WarmStart<L> warm_start;
    warm_start.lay_out(view, arena);
    for (long first = begin; first < end; first += L::width) {
      const long left = end - first;
      const bool ready = first > begin && problem.A.is_shared() && scaling.row_stride == 0;
      warm_start.run(problem, scaling, start, first,
                     static_cast<int>(left < L::width ? left : L::width), ready, settings, results);
    }
  }

  static void test_convexity(const StructureView& view, char* workspace, const ProblemData& problem,
                             const std::int64_t* index, long begin, long end,
                             const SolveResults& results) {
    Arena arena(workspace);
    Convexity<L> convexity;
    convexity.lay_out(view, arena);
    typename L::M indefinite{};
    for (long first = begin; first < end; first += L::width) {
      const int count = end - first < L::width ? static_cast<int>(end - first) : L::width;
      LaneRows<L::width> lanes(first, count);
      for (int lane = 0; lane < L::width; ++lane) lanes.row[lane] = index[lanes.row[lane]];
      // One test does for all that share P.
      if (first == begin || !problem.P.is_shared()) {
        indefinite = convexity.find_indefinite(problem, lanes);
      }
      for (int lane = 0; lane < count; ++lane) {
        if (!Ops<L>::get_mask(indefinite, lane)) continue;
        std::int8_t& status = results.status[lanes.row[lane]];
        const bool is_certain = status == static_cast<std::int8_t>(Status::kInfeasible) ||
                                status == static_cast<std::int8_t>(Status::kUnbounded);
        if (!is_certain) status = static_cast<std::int8_t>(Status::kNotConvex);
      }
    }
  }

  /// body(adjoint, first, count, matrices_ready) for each group of lanes.
  template <class Body>
  static void for_each_group(const StructureView& view, char* workspace, const ProblemData& problem,
                             const Scaling& scaling, long begin, long end, const Body& body) {
    Arena arena(workspace);
    Adjoint<L> adjoint;
    adjoint.lay_out(view, arena);
    for (long first = begin; first < end; first += L::width) {
      const long left = end - first;
      const bool ready = first > begin && problem.A.is_shared() && scaling.row_stride == 0;
      body(adjoint, first, static_cast<int>(left < L::width ? left : L::width), ready);
    }
  }

  static void pull_back(const StructureView& view, char* workspace, const ProblemData& problem,
                        const Scaling& scaling, const AdjointData& io, long begin, long end) {
    for_each_group(view, workspace, problem, scaling, begin, end,
                   [&](Adjoint<L>& adjoint, long first, int count, bool ready) {
                     adjoint.run(problem, scaling, io, first, count, ready);
                   });
  }

  static void refine(const StructureView& view, char* workspace, const ProblemData& problem,
                     const Scaling& scaling, const AdjointData& io, const PointData& points,
                     long begin, long end) {
    for_each_group(view, workspace, problem, scaling, begin, end,
                   [&](Adjoint<L>& adjoint, long first, int count, bool ready) {
                     adjoint.refine(problem, scaling, io, points, first, count, ready);
                   });
  }

  static void examine(const StructureView& view, char* workspace, const ProblemData& problem,
                      const Scaling& scaling, const AdjointData& io, const PointData& points,
                      const RegularityData& found, long begin, long end) {
    for_each_group(view, workspace, problem, scaling, begin, end,
                   [&](Adjoint<L>& adjoint, long first, int count, bool ready) {
                     adjoint.examine(problem, scaling, io, points, found, first, count, ready);
                   });
  }

  static void apply(const StructureView& view, char* workspace, const ProblemData& problem,
                    const Scaling& scaling, const SystemData& io, long begin, long end) {
    for_each_group(view, workspace, problem, scaling, begin, end,
                   [&](Adjoint<L>& adjoint, long first, int count, bool ready) {
                     adjoint.apply(problem, scaling, io, first, count, ready);
                   });
  }

  static void curvature(const StructureView& view, char* workspace, const CurvatureData& io,
                        long begin, long end) {
    Arena arena(workspace);
    Curvature<L> curvature;
    curvature.lay_out(view, arena);
    for (long first = begin; first < end; first += L::width) {
      const long left = end - first;
      curvature.run(io, first, static_cast<int>(left < L::width ? left : L::width));
    }
  }

  static size_t projection_bytes(const CurvedCone& cone) {
    Arena arena(nullptr);
    PointProjection<L>().lay_out(cone, arena);
    return arena.used();
  }

  static void project_dual(const CurvedCone& cone, char* workspace, const double* points,
                           const double* starts, long count, double* nearest, double* derivative,
                           double* root) {
    Arena arena(workspace);
    PointProjection<L> projection;
    projection.lay_out(cone, arena);
    for (long first = 0; first < count; first += L::width) {
      const long left = count - first;
      projection.run(points, starts, first, static_cast<int>(left < L::width ? left : L::width),
                     nearest, derivative, root);
    }
  }

  static size_t definite_bytes(int n) {
    Arena arena(nullptr);
    Definiteness<L>().lay_out(n, arena);
    return arena.used();
  }

  static bool is_definite(char* workspace, const double* matrix, int n, double sign,
                          double rounding) {
    Arena arena(workspace);
    Definiteness<L> definiteness;
    definiteness.lay_out(n, arena);
    return definiteness.is_definite(matrix, sign, rounding);
  }

  static constexpr Kernels table(const char* isa) {
    Kernels kernels{L::width, isa,         &workspace_bytes, &equilibrate,      &solve,
                    &polish,  &warm_start, &test_convexity,  &pull_back,        &refine,
                    &examine, &apply,      &curvature,       &projection_bytes, &project_dual,
                    nullptr,  nullptr};
    if constexpr (L::width == 1) {
      kernels.definite_bytes = &definite_bytes;
      kernels.is_definite = &is_definite;
    }
    return kernels;
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
