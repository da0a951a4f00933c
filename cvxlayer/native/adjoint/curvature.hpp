// SPDX-License-Identifier: Apache-2.0
//
// D²Π(v)[p, p'] for many pairs of directions, W instances at once: zero on linear rows, on curved
// cones the second derivative of the projection onto the dual.
#pragma once

#include "../batch/kernels.hpp"
#include "../cones/curved.hpp"

namespace cvxlayer::CVXLAYER_ISA {

template <class L>
struct Curvature {
  using V = typename L::V;
  using O = Ops<L>;
  static constexpr int W = L::width;

  const StructureView* structure;
  CurvedCones<L, ProjectionFaces> curved;
  V *v, *first, *second, *result;

  void lay_out(const StructureView& view, Arena& arena) {
    structure = &view;
    V** const pointers[] = {&v, &first, &second, &result};
    for (V** pointer : pointers) *pointer = arena.take<V>(view.m);
    curved.lay_out(view.cones, view.num_cones, arena);
  }

  /// Instances begin, …, begin + count − 1 (count ≤ W).
  void run(const CurvatureData& io, long begin, int count) {
    const int linear = structure->num_linear, m = structure->m;
    for (int lane = 0; lane < W; ++lane) {
      const long row = begin + (lane < count ? lane : 0);
      const bool ok = io.has_solution[row] != 0;
      for (int i = linear; i < m; ++i) O::set(v[i], lane, ok ? io.v.at(row, i) : -1.0);
    }
    curved.for_each([&](const auto& face) { face.bend(v + face.cone.start); });
    for (long side = 0; side < io.num_sides; ++side) {
      load(io, begin, count, side);
      curved.for_each([&](const auto& face) {
        const int start = face.cone.start;
        face.curvature(v + start, first + start, second + start, result + start);
      });
      store(io, begin, count, side);
    }
  }

 private:
  void load(const CurvatureData& io, long begin, int count, long side) {
    for (int lane = 0; lane < W; ++lane) {
      const long row = begin + (lane < count ? lane : 0), place = row * io.num_sides + side;
      for (int i = structure->num_linear; i < structure->m; ++i) {
        O::set(first[i], lane, io.first.at(place, i));
        O::set(second[i], lane, io.second.at(place, i));
      }
    }
  }

  void store(const CurvatureData& io, long begin, int count, long side) const {
    for (int lane = 0; lane < count; ++lane) {
      const long row = begin + lane, place = row * io.num_sides + side;
      const bool ok = io.has_solution[row] != 0;
      for (int i = 0; i < structure->num_linear; ++i) io.result.at(place, i) = 0.0;
      for (int i = structure->num_linear; i < structure->m; ++i) {
        io.result.at(place, i) = ok ? O::get(result[i], lane) : 0.0;
      }
    }
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
