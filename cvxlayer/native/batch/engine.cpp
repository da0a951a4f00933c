// SPDX-License-Identifier: Apache-2.0
#include "engine.hpp"

#include <algorithm>
#include <numeric>
#include <vector>

#include "../hsde/status.hpp"
#include "threads.hpp"

namespace cvxlayer {

namespace {

// A chunk holds this many rounds of lanes, if there are enough for two chunks a thread: enough for
// refilling to keep lanes busy, few enough to balance threads. Below the least, lanes that run
// empty at the end of each chunk cost more than threads that wait for one another.
constexpr long kRoundsPerChunk = 8, kLeastRounds = 4;
// Waking a thread costs more than it saves below this much work for each.
constexpr double kMicrosecondsPerThread = 40.0;
// A rough clock, fitted to the benchmarks: microseconds per stored number and per
// multiply-add of one factorization, over a whole solve of one instance in full lanes.
constexpr double kPerNumber = 0.045, kPerMultiplyAdd = 6e-4;
constexpr double kSemidefiniteWork = 120;  // multiply-adds of a semidefinite cone, over order³
constexpr double kPullBackShare = 0.2;     // of a solve
constexpr double kSideShare = 0.03, kCurvatureShare = 0.05;

constexpr std::int8_t code(Status status) { return static_cast<std::int8_t>(status); }

using Indices = std::vector<std::int64_t>;

/// Those of the rows [begin, end) that have a status.
Indices rows_with(const SolveResults& results, long begin, long end, Status status) {
  Indices rows;
  for (long row = begin; row < end; ++row) {
    if (results.status[row] == code(status)) rows.push_back(row);
  }
  return rows;
}

/// What one thread does in a solve.
struct RowSolver {
  const Kernels& kernels;
  const StructureView& view;
  char* workspace;
  const ProblemData& problem;
  const Scaling& scaling;
  const SolveSettings& settings;
  const SolveResults& results;

  /// Solve these rows, one after the other, and by the plan that serves all.
  void solve_again(const Indices& rows) const {
    solve_rows(settings, rows);
    for (const std::int64_t row : rows) {
      if (settings.polish) polish_rows(row, row + 1);
    }
    test_convexity(rows);
  }

  /// Solve the rows [begin, end). Returns those whose P was not seen to be positive definite.
  Indices solve_first(const StartingPoints& start, long begin, long end) const {
    const bool is_warm = start.is_usable != nullptr;
    Indices all(is_warm || !view.has_range_space ? static_cast<size_t>(end - begin) : 0);
    std::iota(all.begin(), all.end(), begin);
    if (!is_warm && !view.has_range_space) {
      kernels.solve(view, workspace, problem, scaling, settings, nullptr, begin, end, results);
      return all;
    }
    Status unsolved = Status::kNumericalError;
    if (is_warm) {
      std::fill(results.status + begin, results.status + end, code(unsolved));
      kernels.warm_start(view, workspace, problem, scaling, settings, start, begin, end, results);
    } else {
      SolveSettings first = settings;
      first.in_range_space = true;
      unsolved = Status::kUnsuited;
      kernels.solve(view, workspace, problem, scaling, first, nullptr, begin, end, results);
    }
    const Indices left = rows_with(results, begin, end, unsolved);
    solve_rows(settings, left);
    return is_warm ? all : left;
  }

  void polish(long begin, long end) const {
    polish_rows(begin, end);
    // Rows that the polish could not finish go all the way, from where they stand.
    SolveSettings whole = settings;
    whole.stops_early = false;
    whole.resumes = true;
    const Indices unfinished = rows_with(results, begin, end, Status::kProvisional);
    const auto left = static_cast<long>(unfinished.size());
    for (long first = 0; first < left; first += kernels.width) {
      kernels.solve(view, workspace, problem, scaling, whole, unfinished.data(), first,
                    std::min<long>(first + kernels.width, left), results);
    }
    // They have come closer, and their rows may be told apart by now.
    for (const std::int64_t row : unfinished) polish_rows(row, row + 1);
  }

  void test_convexity(const Indices& rows) const {
    if (!view.tests_convexity || rows.empty()) return;
    kernels.test_convexity(view, workspace, problem, rows.data(), 0, static_cast<long>(rows.size()),
                           results);
  }

 private:
  void solve_rows(const SolveSettings& how, const Indices& rows) const {
    if (rows.empty()) return;
    kernels.solve(view, workspace, problem, scaling, how, rows.data(), 0,
                  static_cast<long>(rows.size()), results);
  }

  void polish_rows(long begin, long end) const {
    kernels.polish(view, workspace, problem, scaling, settings, begin, end, results);
  }
};

}  // namespace

size_t Engine::workspace_bytes(int width) const {
  return choose(width, width).workspace_bytes(structure_.view());
}

const Kernels& Engine::choose(long count, int width) const {
  int available = 0;
  const Kernels* const* kernels = available_kernels(&available);
  for (int k = 0; k < available; ++k) {
    if (width > 0 ? kernels[k]->width == width : kernels[k]->width >= count) return *kernels[k];
  }
  return *kernels[available - 1];
}

int Engine::worthwhile_threads(long count, int threads, double share) const {
  const StructureView& view = structure_.view();
  const double numbers = static_cast<double>(view.n) + view.m + view.num_P + view.num_A;
  double work = structure_.solve_symbolic().multiply_adds();
  for (int k = 0; k < view.num_cones; ++k) {
    const double order = view.cones[k].is_condensed() ? view.cones[k].order() : 0;
    work += kSemidefiniteWork * order * order * order;
  }
  const double each = share * (kPerNumber * numbers + kPerMultiplyAdd * work);
  const double worth = each * static_cast<double>(count) / kMicrosecondsPerThread;
  return worth < threads ? std::max(1, static_cast<int>(worth)) : threads;
}

void Engine::parallel(const Kernels& kernels, long count, int threads,
                      const std::function<void(char*, long, long)>& body) {
  const long width = kernels.width;
  const long groups = (count + width - 1) / width;
  const long num_threads = std::max<long>(1, std::min<long>(threads, groups));
  const long each = groups / num_threads;
  const long rounds =
      std::min(kRoundsPerChunk, std::max({1L, each / 2, std::min(kLeastRounds, each)}));
  const long chunk = num_threads == 1 ? count : rounds * width;
  const size_t bytes = kernels.workspace_bytes(structure_.view());
  share_range(count, chunk, static_cast<int>(num_threads), [&](long begin, long end) {
    const Lease lease{workspaces_, bytes};
    body(lease.workspace.get(), begin, end);
  });
}

void Engine::equilibrate(const Kernels& kernels, char* workspace, const ProblemData& problem,
                         const Scaling& scaling, long begin, long end) {
  const bool own_matrices = !scaling.is_shared();
  for (long first = begin; first < end; first += kernels.width) {
    kernels.equilibrate(structure_.view(), workspace, problem, scaling, first,
                        std::min<long>(kernels.width, end - first), own_matrices);
  }
}

void Engine::equilibrate_shared(const Kernels& kernels, const ProblemData& problem,
                                const Scaling& scaling) {
  if (!scaling.is_shared()) return;
  const Lease lease{workspaces_, kernels.workspace_bytes(structure_.view())};
  kernels.equilibrate(structure_.view(), lease.workspace.get(), problem, scaling, 0, 1, true);
}

void Engine::solve(const ProblemData& problem, long batch, const std::int64_t* index, long count,
                   const SolveSettings& settings, const StartingPoints& start, int threads,
                   int width, Scaling scaling, const SolveResults& results) {
  if (count == 0) return;
  const Kernels& kernels = choose(count, width);
  double shared_mean = 0.0;
  scaling.shared_mean = &shared_mean;
  equilibrate_shared(kernels, problem, scaling);
  threads = worthwhile_threads(count, threads, 1.0);
  parallel(kernels, count, threads, [&](char* workspace, long begin, long end) {
    const RowSolver solver{kernels, structure_.view(), workspace, problem,
                           scaling, settings,          results};
    if (index != nullptr) {
      for (long k = begin; k < end; ++k) {
        equilibrate(kernels, workspace, problem, scaling, index[k], index[k] + 1);
      }
      return solver.solve_again({index + begin, index + end});
    }
    equilibrate(kernels, workspace, problem, scaling, begin, end);
    const Indices unseen = solver.solve_first(start, begin, end);
    if (settings.polish) solver.polish(begin, end);
    for (long row = begin; start.is_usable != nullptr && row < end; ++row) {
      start.is_usable[row] = results.status[row] == code(Status::kWarmStarted);
      if (start.is_usable[row] != 0) results.status[row] = code(Status::kSolved);
    }
    solver.test_convexity(unseen);
  });
}

void Engine::run_scaled(
    const ProblemData& problem, long batch, int threads, int width, double share, Scaling scaling,
    const std::function<void(const Kernels&, char*, const Scaling&, long, long)>& body) {
  if (batch == 0) return;
  const Kernels& kernels = choose(batch, width);
  const bool is_known = scaling.cost != nullptr;
  std::vector<double> scale, cost;
  double shared_mean = 0.0;
  if (!is_known) {
    const long length = static_cast<long>(structure_.n()) + structure_.m();
    const bool shared = problem.P.is_shared() && problem.A.is_shared();
    scale.resize(static_cast<size_t>(shared ? length : length * batch));
    cost.resize(static_cast<size_t>(batch));
    scaling = {scale.data(), shared ? 0 : length, cost.data(), &shared_mean};
    equilibrate_shared(kernels, problem, scaling);
  }
  threads = worthwhile_threads(batch, threads, share);
  parallel(kernels, batch, threads, [&](char* workspace, long begin, long end) {
    if (!is_known) equilibrate(kernels, workspace, problem, scaling, begin, end);
    body(kernels, workspace, scaling, begin, end);
  });
}

void Engine::pull_back(const ProblemData& problem, long batch, int threads, int width,
                       Scaling scaling, const AdjointData& io) {
  run_scaled(
      problem, batch, threads, width, kPullBackShare, scaling,
      [&](const Kernels& kernels, char* workspace, const Scaling& known, long begin, long end) {
        kernels.pull_back(structure_.view(), workspace, problem, known, io, begin, end);
      });
}

void Engine::refine(const ProblemData& problem, long batch, int threads, int width, Scaling scaling,
                    const AdjointData& io, const PointData& points) {
  run_scaled(
      problem, batch, threads, width, kPullBackShare, scaling,
      [&](const Kernels& kernels, char* workspace, const Scaling& known, long begin, long end) {
        kernels.refine(structure_.view(), workspace, problem, known, io, points, begin, end);
      });
}

void Engine::examine(const ProblemData& problem, long batch, int threads, int width,
                     Scaling scaling, const AdjointData& io, const PointData& points,
                     const RegularityData& found) {
  run_scaled(
      problem, batch, threads, width, kPullBackShare, scaling,
      [&](const Kernels& kernels, char* workspace, const Scaling& known, long begin, long end) {
        kernels.examine(structure_.view(), workspace, problem, known, io, points, found, begin,
                        end);
      });
}

void Engine::apply(const ProblemData& problem, long batch, int threads, int width,
                   const SystemData& io) {
  const double share = kPullBackShare + kSideShare * static_cast<double>(io.num_sides);
  run_scaled(
      problem, batch, threads, width, share, Scaling{},
      [&](const Kernels& kernels, char* workspace, const Scaling& known, long begin, long end) {
        kernels.apply(structure_.view(), workspace, problem, known, io, begin, end);
      });
}

void Engine::curvature(long batch, int threads, int width, const CurvatureData& io) {
  if (batch == 0) return;
  const Kernels& kernels = choose(batch, width);
  threads = worthwhile_threads(batch, threads, kCurvatureShare);
  parallel(kernels, batch, threads, [&](char* workspace, long begin, long end) {
    kernels.curvature(structure_.view(), workspace, io, begin, end);
  });
}

}  // namespace cvxlayer
