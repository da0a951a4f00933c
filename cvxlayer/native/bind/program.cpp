// SPDX-License-Identifier: Apache-2.0
//
// `LayerProgram`, made from what Python hands over (matrices, offsets and lists of these), and
// `LayerRun`, a plain call of it.
#include "program.hpp"

#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <algorithm>
#include <map>
#include <memory>
#include <optional>
#include <tuple>
#include <utility>
#include <vector>

#include "../batch/layer_run.hpp"
#include "arrays.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace cvxlayer {
namespace {

using Shared = std::shared_ptr<const SparseMap>;

/// A copy of a map that Python may drop; one copy of one map.
class MapCopies {
 public:
  Shared of(const SparseMap* map) {
    if (map == nullptr) return nullptr;
    Shared& copy = copies_[map];
    if (!copy) copy = std::make_shared<const SparseMap>(*map);
    return copy;
  }

 private:
  std::map<const SparseMap*, Shared> copies_;
};

/// (offset, [(parameter, forward, linear, adjoint), …]), as Python hands a map over.
using PartList = std::vector<std::tuple<int, const SparseMap*, const SparseMap*, const SparseMap*>>;
using MapPair = std::pair<Weights, PartList>;

ParametricMap map_of(const MapPair& pair, MapCopies& copies) {
  const auto& [offset, parts] = pair;
  ParametricMap map{{offset.data(), offset.data() + offset.shape(0)}, {}};
  map.has_offset =
      std::any_of(map.offset.begin(), map.offset.end(), [](double c) { return c != 0; });
  for (const auto& [parameter, forward, linear, adjoint] : parts) {
    map.parts.push_back({parameter, copies.of(forward), copies.of(linear), copies.of(adjoint)});
  }
  return map;
}

/// (size, from_x, from_y, to_x, to_y, from_theta, is_exponential) of each output.
using OutputTuple = std::tuple<long, const SparseMap*, const SparseMap*, const SparseMap*,
                               const SparseMap*, MapPair, bool>;

void build_program(LayerProgram* self, Engine* engine, std::vector<long> part_sizes,
                   const std::vector<MapPair>& blocks, bool has_bounds, Indices constant_row,
                   Indices constant_column, Weights constant_weight,
                   const std::vector<OutputTuple>& outputs) {
  if (blocks.size() != 4) throw nb::value_error("native engine: four blocks make a program");
  MapCopies copies;
  const auto count = constant_weight.shape(0);
  QuadraticForm constant{{constant_row.data(), constant_row.data() + count},
                         {constant_column.data(), constant_column.data() + count},
                         {constant_weight.data(), constant_weight.data() + count}};
  std::vector<OutputMap> maps;
  for (const auto& [size, from_x, from_y, to_x, to_y, from_theta, is_exponential] : outputs) {
    maps.push_back({size, copies.of(from_x), copies.of(from_y), copies.of(to_x), copies.of(to_y),
                    map_of(from_theta, copies), is_exponential});
  }
  new (self)
      LayerProgram(engine, std::move(part_sizes), map_of(blocks[0], copies),
                   map_of(blocks[1], copies), map_of(blocks[2], copies), map_of(blocks[3], copies),
                   has_bounds, std::move(constant), std::move(maps));
}

// Arrays of any shape: what matters is that the rows lie one after the other.
using Values = nb::ndarray<const double, nb::c_contig, nb::device::cpu>;
using MutableValues = nb::ndarray<double, nb::c_contig, nb::device::cpu>;

/// The rows of an array: as many as the batch, or one. Throws if it has neither.
RowBlock block_of(const double* start, size_t size, long length, long batch, bool may_be_shared) {
  const auto count = static_cast<long>(size);
  if (count == batch * length) return {start, batch, length};
  if (may_be_shared && count == length) return {start, 1, length};
  throw nb::value_error("native engine: an array does not have the size of the batch");
}

/// The caller's to delete; null if a value is not finite.
LayerRun* run(const LayerProgram& program, const std::vector<Values>& values, long batch,
              double eps_abs, double eps_rel, int max_iterations, bool polish, int threads,
              int width, const std::vector<MutableValues>& outputs) {
  if (static_cast<long>(values.size()) != program.num_parts() ||
      outputs.size() > program.outputs().size() || batch < 1) {
    throw nb::value_error("native engine: one array per parameter and at least one instance");
  }
  Theta theta;
  std::vector<double*> starts;
  for (size_t k = 0; k < values.size(); ++k) {
    const long length = program.part_size(static_cast<long>(k));
    theta.push_back(block_of(values[k].data(), values[k].size(), length, batch, true));
  }
  for (size_t k = 0; k < outputs.size(); ++k) {
    block_of(outputs[k].data(), outputs[k].size(), program.outputs()[k].size, batch, false);
    starts.push_back(outputs[k].data());
  }
  const nb::gil_scoped_release release;
  bool is_finite = false;
  ProgramData data = program.evaluate(theta, batch, threads, &is_finite);
  if (!is_finite) return nullptr;
  const SolveSettings settings = layer_settings(eps_abs, eps_rel, max_iterations, polish);
  return new LayerRun(program, std::move(data), theta, batch, settings, threads, width, starts);
}

/// Writes the cotangents of the values and each residual; returns whether none is above `bound`.
bool pull_back(const LayerRun& run, const std::vector<std::optional<Values>>& outputs_bar,
               const std::vector<std::optional<MutableValues>>& values_bar, Reals residual,
               double bound) {
  const LayerProgram& program = run.program();
  const long batch = run.batch();
  if (static_cast<long>(values_bar.size()) != program.num_parts() ||
      outputs_bar.size() > program.outputs().size() ||
      static_cast<long>(residual.shape(0)) != batch) {
    throw nb::value_error("native engine: one array per parameter, one residual per instance");
  }
  std::vector<RowBlock> bars(outputs_bar.size()), theta_bar(values_bar.size());
  for (size_t k = 0; k < bars.size(); ++k) {
    if (!outputs_bar[k].has_value()) continue;
    const Values& bar = *outputs_bar[k];
    bars[k] = block_of(bar.data(), bar.size(), program.outputs()[k].size, batch, false);
  }
  for (size_t k = 0; k < theta_bar.size(); ++k) {
    if (!values_bar[k].has_value()) continue;
    const MutableValues& bar = *values_bar[k];
    const long length = program.part_size(static_cast<long>(k));
    theta_bar[k] = block_of(bar.data(), bar.size(), length, batch, true);
  }
  const nb::gil_scoped_release release;
  run.pull_back(bars, theta_bar, residual.data());
  return std::all_of(residual.data(), residual.data() + batch,
                     [bound](double value) { return value <= bound; });
}

template <class T>
nb::object array(T* start, long rows, nb::handle owner) {
  return nb::cast(
      nb::ndarray<nb::numpy, T, nb::ndim<1>>(start, {static_cast<size_t>(rows)}, owner));
}

template <class T>
nb::object matrix(T* start, long rows, long columns, nb::handle owner) {
  return nb::cast(nb::ndarray<nb::numpy, T, nb::ndim<2>>(
      start, {static_cast<size_t>(rows), static_cast<size_t>(columns)}, owner));
}

/// The results of a run as arrays that keep it alive.
nb::tuple results(nb::handle_t<LayerRun> self) {
  const LayerRun& run = *nb::inst_ptr<LayerRun>(self);
  const SolveResults found = run.results();
  const Scaling scaling = run.scaling();
  const long batch = run.batch(), n = run.structure().n, m = run.structure().m;
  return nb::make_tuple(
      matrix(found.x.start, batch, n, self), matrix(found.y.start, batch, m, self),
      matrix(found.s.start, batch, m, self), array(found.status, batch, self),
      array(found.iterations, batch, self), array(found.primal_residual, batch, self),
      array(found.dual_residual, batch, self), array(found.gap, batch, self),
      matrix(found.is_active.start, batch, m, self),
      matrix(scaling.scale, run.has_shared_scaling() ? 1 : batch, n + m, self),
      array(scaling.cost, batch, self));
}

}  // namespace

void bind_program(nb::module_& module) {
  nb::class_<LayerRun>(module, "LayerRun", "A plain call of a layer that was solved.")
      .def_prop_ro("is_solved", &LayerRun::is_solved, "Whether every row is.")
      .def_prop_ro("seconds", &LayerRun::seconds, "Wall time of the solve.")
      .def("results", &results,
           "x, y, s, status, iterations, three residuals, the active rows, (d, e) and the cost "
           "factors, as arrays that keep this alive.")
      .def("pull_back", &pull_back, "outputs_bar"_a, "values_bar"_a, "residual"_a, "bound"_a,
           "Write the cotangents of the values from those of the outputs, and the residual of "
           "each row's linear system; return whether none is above the bound.");
  nb::class_<LayerProgram>(module, "LayerProgram",
                           "A whole compiled program, for code that runs without Python.")
      .def("__init__", &build_program, "engine"_a, "part_sizes"_a, "blocks"_a, "has_bounds"_a,
           "constant_row"_a, "constant_column"_a, "constant_weight"_a, "outputs"_a,
           nb::keep_alive<1, 2>())
      .def("run", &run, "values"_a, "batch"_a, "eps_abs"_a, "eps_rel"_a, "max_iterations"_a,
           "polish"_a, "threads"_a, "width"_a, "outputs"_a, nb::keep_alive<0, 1>(),
           nb::rv_policy::take_ownership,
           "Solve a batch and write its outputs, unless a row is not solved; None if a value is "
           "not finite.");
}

}  // namespace cvxlayer
