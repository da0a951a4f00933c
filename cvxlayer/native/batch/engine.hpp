// SPDX-License-Identifier: Apache-2.0
//
// A structure with everything needed to run batches on it.
#pragma once

#include <functional>
#include <utility>

#include "kernels.hpp"
#include "memory_pool.hpp"

namespace cvxlayer {

/// Immutable but for a pool of workspaces; every method may be called from several threads.
class Engine {
 public:
  explicit Engine(Structure&& structure) = delete;
  template <class... Arguments>
  explicit Engine(std::in_place_t, Arguments&&... arguments)
      : structure_(std::forward<Arguments>(arguments)...) {}

  /// Solve `count` instances; with `index`, those rows only (`count` of them). `threads` ≥ 1.
  /// `width` 0 chooses the number of lanes; `start` is for whole batches. Writes the scale factors
  /// to `scaling`: (d, e) once if P and A are shared, else one row per instance.
  void solve(const ProblemData& problem, long batch, const std::int64_t* index, long count,
             const SolveSettings& settings, const StartingPoints& start, int threads, int width,
             Scaling scaling, const SolveResults& results);

  /// Pull cotangents back to the data for `batch` instances. `scaling` is that of the solve; with
  /// a null `cost` it is found anew.
  void pull_back(const ProblemData& problem, long batch, int threads, int width, Scaling scaling,
                 const AdjointData& io);

  /// From the solutions in `io` to the points of differentiation; `scaling` as above.
  void refine(const ProblemData& problem, long batch, int threads, int width, Scaling scaling,
              const AdjointData& io, const PointData& points);

  /// The same, and how regular these points are.
  void examine(const ProblemData& problem, long batch, int threads, int width, Scaling scaling,
               const AdjointData& io, const PointData& points, const RegularityData& found);

  /// Solve the linearized optimality conditions at points.
  void apply(const ProblemData& problem, long batch, int threads, int width, const SystemData& io);

  /// Second derivatives of the projection for `batch` instances.
  void curvature(long batch, int threads, int width, const CurvatureData& io);

  const Structure& structure() const { return structure_; }
  size_t workspace_bytes(int width) const;

 private:
  const Kernels& choose(long count, int width) const;
  /// A workspace while it is used, also where the work throws.
  struct Lease {
    MemoryPool& pool;
    size_t bytes;
    Memory workspace = pool.take(bytes);
    ~Lease() { pool.give(std::move(workspace), bytes); }
  };
  /// Find (d, e), and what the costs have in common, if P and A are shared.
  void equilibrate_shared(const Kernels& kernels, const ProblemData& problem,
                          const Scaling& scaling);
  void equilibrate(const Kernels& kernels, char* workspace, const ProblemData& problem,
                   const Scaling& scaling, long begin, long end);
  /// At most `threads`, and no more than the work pays for; `share` is of a solve.
  int worthwhile_threads(long count, int threads, double share) const;
  /// Run body(kernels, workspace, scaling, begin, end) on pieces of a batch, its scaling known.
  void run_scaled(
      const ProblemData& problem, long batch, int threads, int width, double share, Scaling scaling,
      const std::function<void(const Kernels&, char*, const Scaling&, long, long)>& body);
  /// Run body(workspace, begin, end) over chunks of [0, count) on `threads` threads.
  void parallel(const Kernels& kernels, long count, int threads,
                const std::function<void(char*, long, long)>& body);

  Structure structure_;
  MemoryPool workspaces_;
};

}  // namespace cvxlayer
