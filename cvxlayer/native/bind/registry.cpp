// SPDX-License-Identifier: Apache-2.0
#include "registry.hpp"

#include <nanobind/ndarray.h>

#include <mutex>
#include <shared_mutex>
#include <stdexcept>
#include <unordered_map>

namespace nb = nanobind;

namespace cvxlayer {

namespace {

std::shared_mutex programs_mutex;
std::unordered_map<std::int64_t, const LayerProgram*> programs;
// Never destroyed: compiled code may outlive the interpreter's own variables.
nb::object *finisher = nullptr, *warner = nullptr;

template <class T>
nb::object array(T* start, long rows) {
  const auto count = static_cast<size_t>(rows);
  return nb::cast(nb::ndarray<nb::numpy, T, nb::ndim<1>>(start, {count}, nb::handle()),
                  nb::rv_policy::reference);
}

template <class T>
nb::object matrix(T* start, long rows, long columns) {
  return nb::cast(
      nb::ndarray<nb::numpy, T, nb::ndim<2>>(
          start, {static_cast<size_t>(rows), static_cast<size_t>(columns)}, nb::handle()),
      nb::rv_policy::reference);
}

nb::object block(const Rows<const double>& rows, long size, long columns) {
  return matrix(rows.start, rows.is_shared() ? 1 : size, columns);
}

}  // namespace

void register_program(std::int64_t number, const LayerProgram* program) {
  const std::unique_lock<std::shared_mutex> lock(programs_mutex);
  programs.emplace(number, program);
}

const LayerProgram& find_program(std::int64_t number) {
  const std::shared_lock<std::shared_mutex> lock(programs_mutex);
  const auto found = programs.find(number);
  if (found == programs.end()) {
    throw std::invalid_argument(
        "this compiled function solves a problem that this process has not seen: build its "
        "cvxlayer.jax.Layer, and call or trace it once, before the function is run");
  }
  return *found->second;
}

void set_finisher(nb::object function) {
  if (finisher == nullptr) finisher = new nb::object();
  *finisher = std::move(function);
}

void set_warner(nb::object function) {
  if (warner == nullptr) warner = new nb::object();
  *warner = std::move(function);
}

void warn_in_python(const double* residual, long batch) {
  if (warner == nullptr) return;
  const nb::gil_scoped_acquire gil;
  try {
    (*warner)(array(residual, batch));
  } catch (nb::python_error& error) {
    // A warning that is an error: there is nobody in a derivative to raise it to.
    error.discard_as_unraisable("a derivative of a cvxlayer.jax.Layer");
  }
}

std::string finish_in_python(std::int64_t route, const UnfinishedBatch& batch) {
  const nb::gil_scoped_acquire gil;
  try {
    const long size = batch.size, n = batch.structure->n, m = batch.structure->m;
    const ProblemData& problem = batch.problem;
    const nb::object blocks =
        nb::make_tuple(block(problem.P, size, batch.structure->num_P), block(problem.q, size, n),
                       block(problem.A, size, batch.structure->num_A), block(problem.b, size, m));
    const nb::object results = nb::make_tuple(
        matrix(batch.x, size, n), matrix(batch.y, size, m), matrix(batch.s, size, m),
        array(batch.status, size), array(batch.iterations, size),
        array(batch.primal_residual, size), array(batch.dual_residual, size),
        array(batch.gap, size), array(batch.solved_by, size), matrix(batch.is_active, size, m));
    const nb::object wrong = (*finisher)(route, size, blocks, results);
    return wrong.is_none() ? std::string() : std::string(nb::str(wrong).c_str());
  } catch (const nb::python_error& error) {
    return error.what();
  }
}

}  // namespace cvxlayer
