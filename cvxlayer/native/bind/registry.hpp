// SPDX-License-Identifier: Apache-2.0
//
// Programs under numbers that compiled XLA code can hold, and the way back to Python for what
// the core cannot finish by itself.
#pragma once

#include <nanobind/nanobind.h>

#include <cstdint>
#include <string>

#include "../batch/layer_program.hpp"

namespace cvxlayer {

/// The caller keeps `program` alive for as long as the process.
void register_program(std::int64_t number, const LayerProgram* program);

/// Throws std::invalid_argument if there is none.
const LayerProgram& find_program(std::int64_t number);

/// One batch between the core's first pass and its results; everything is written in place.
struct UnfinishedBatch {
  long size;
  ProblemData problem;
  const StructureView* structure;
  double *x, *y, *s;
  std::int8_t *status, *solved_by, *is_active;
  std::int32_t* iterations;
  double *primal_residual, *dual_residual, *gap;
};

/// Set the function of Python that `finish_in_python` calls.
void set_finisher(nanobind::object finisher);

/// Set the function of Python that `warn_in_python` calls.
void set_warner(nanobind::object warner);

/// Hand the residuals of the linear systems of a derivative, one for each row, to Python, with
/// the GIL.
void warn_in_python(const double* residual, long batch);

/// Let Python finish a batch along the given route, with the GIL. Returns what is wrong with it
/// in words, or nothing.
std::string finish_in_python(std::int64_t route, const UnfinishedBatch& batch);

/// The handlers of XLA, by name; none where the core was built without JAX.
nanobind::dict xla_handlers();

}  // namespace cvxlayer
