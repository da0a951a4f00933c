// SPDX-License-Identifier: Apache-2.0
//
// The batch as the engine sees it: strided views of the caller's arrays, settings, results.
#pragma once

#include <cstddef>
#include <cstdint>

namespace cvxlayer {

/// One row per instance; a row stride of 0 shares a row among all. Not owned.
template <class T>
struct Rows {
  T* start;
  std::ptrdiff_t row_stride;
  std::ptrdiff_t stride;

  T& at(std::ptrdiff_t row, std::ptrdiff_t i) const { return start[row * row_stride + i * stride]; }
  bool is_shared() const { return row_stride == 0; }
};

struct ProblemData {
  Rows<const double> P, q, A, b;
};

/// A queue of instances, [next, end), handed to lanes one by one.
struct Queue {
  const std::int64_t* index;  // instance of each place, or null for the identity
  long next, end;
  bool empty() const { return next >= end; }
  long pop() {
    const long place = next++;
    return index == nullptr ? place : index[place];
  }
};

struct SolveSettings {
  double eps_abs;
  double eps_rel;
  double eps_infeasible;
  int max_iterations;
  bool careful;                 // refine every solve with K, and regularize it less
  bool polish;                  // one semismooth Newton step from each solution
  bool stops_early;             // leave the last digits to the polish
  bool resumes;                 // go on from the points in the results, in one round of lanes
  bool in_range_space = false;  // use the plan that keeps what P and A leave
};

/// Outputs of a solve, all allocated by the caller, one row per instance.
struct SolveResults {
  Rows<double> x, y, s;
  std::int8_t* status;
  std::int32_t* iterations;
  double *primal_residual, *dual_residual, *gap;
  Rows<std::int8_t> is_active;
};

/// Solutions of other data to start from, in canonical scaling, one row per instance. A null
/// `is_usable` means: none. It is 1 where there is one; the solve clears it where that did not
/// lead to the solution.
struct StartingPoints {
  Rows<const double> x, y;
  std::int8_t* is_usable;
};

/// Scale factors of one instance: x = d ∘ x̃, s = s̃ / e, y = e ∘ ỹ / k.
/// `scale` holds one row (d, e) per instance, or one for all; `cost` one k per instance. With one
/// for all, `shared_mean` is the mean norm of the columns of d P d, which every k depends on.
struct Scaling {
  double* scale;
  std::ptrdiff_t row_stride;
  double* cost;
  double* shared_mean;

  bool is_shared() const { return row_stride == 0; }
  Rows<const double> rows() const { return {scale, row_stride, 1}; }
};

}  // namespace cvxlayer
