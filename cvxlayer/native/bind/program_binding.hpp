// SPDX-License-Identifier: Apache-2.0
//
// A `LayerProgram` from what Python hands over: matrices, offsets and lists of these.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/pair.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <map>
#include <memory>
#include <tuple>
#include <utility>
#include <vector>

#include "../batch/layer_program.hpp"

namespace cvxlayer {

namespace nb = nanobind;

using Weights = nb::ndarray<const double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Indices = nb::ndarray<const std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
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

inline ParametricMap map_of(const MapPair& pair, MapCopies& copies) {
  const auto& [offset, parts] = pair;
  ParametricMap map{{offset.data(), offset.data() + offset.shape(0)}, {}};
  for (const auto& [parameter, forward, linear, adjoint] : parts) {
    map.parts.push_back({parameter, copies.of(forward), copies.of(linear), copies.of(adjoint)});
  }
  return map;
}

/// (size, from_x, from_y, to_x, to_y, from_theta, is_exponential) of each output.
using OutputTuple = std::tuple<long, const SparseMap*, const SparseMap*, const SparseMap*,
                               const SparseMap*, MapPair, bool>;

inline void build_program(LayerProgram* self, Engine* engine, std::vector<long> part_sizes,
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

}  // namespace cvxlayer
