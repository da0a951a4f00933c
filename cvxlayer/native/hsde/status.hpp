// SPDX-License-Identifier: Apache-2.0
#pragma once

#include <cstdint>

namespace cvxlayer {

/// How one instance ended; the numbers are those of `cvxlayer.errors.Status`.
enum class Status : std::int8_t {
  kSolved = 0,
  kInaccurate = 1,
  kInfeasible = 2,
  kUnbounded = 3,
  kMaxIterations = 4,
  kNumericalError = 5,
  kNotConvex = 6,    // P is not positive semidefinite
  kProvisional = 7,  // inside one call only: near enough for the polish to finish
  kWarmStarted = 8,  // inside one call only: solved by steps from another solution
  kUnsuited = 9,     // inside one call only: P has pivots that call for the other plan
};

/// Whether it says how the instance ends, and not how far the solver came.
constexpr bool is_certain(Status status) {
  return status == Status::kSolved || status == Status::kInfeasible || status == Status::kUnbounded;
}

}  // namespace cvxlayer
