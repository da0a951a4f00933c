// SPDX-License-Identifier: Apache-2.0
//
// D²Π(v)[p, p'] for many pairs of directions, W instances at once: zero on linear rows, on curved
// cones the second derivative of the projection onto the dual; on the central path that of Π_μ.
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
    const bool on_path = io.mu > 0.0;
    const V mu = O::splat(io.mu);
    flat = on_path ? structure->num_zero : structure->num_linear;
    for (int lane = 0; lane < W; ++lane) {
      const long row = begin + (lane < count ? lane : 0);
      const bool ok = io.has_solution[row] != 0;
      for (int i = flat; i < structure->m; ++i) O::set(v[i], lane, ok ? io.v.at(row, i) : -1.0);
    }
    curved.for_each([&](const auto& face) {
      const V* point = v + face.cone.start;
      on_path ? CentralPath<L>::bend(face, point, mu) : face.bend(point);
    });
    for (long side = 0; side < io.num_sides; ++side) {
      load(io, begin, count, side);
      for (int i = flat; i < structure->num_linear; ++i) {
        // The slack of an infinite bound does not move.
        const V bend = O::select(O::is_finite(v[i]), CentralPath<L>::bend(v[i], mu), V{});
        result[i] = bend * first[i] * second[i];
      }
      curved.for_each([&](const auto& face) {
        const int start = face.cone.start;
        const V *point = v + start, *p = first + start, *q = second + start;
        if (on_path) return CentralPath<L>::curvature(face, point, mu, p, q, result + start);
        face.curvature(point, p, q, result + start);
      });
      store(io, begin, count, side);
    }
  }

 private:
  int flat;  // rows without a second derivative, the first ones

  void load(const CurvatureData& io, long begin, int count, long side) {
    for (int lane = 0; lane < W; ++lane) {
      const long row = begin + (lane < count ? lane : 0), place = row * io.num_sides + side;
      for (int i = flat; i < structure->m; ++i) {
        O::set(first[i], lane, io.first.at(place, i));
        O::set(second[i], lane, io.second.at(place, i));
      }
    }
  }

  void store(const CurvatureData& io, long begin, int count, long side) const {
    for (int lane = 0; lane < count; ++lane) {
      const long row = begin + lane, place = row * io.num_sides + side;
      const bool ok = io.has_solution[row] != 0;
      for (int i = 0; i < flat; ++i) io.result.at(place, i) = 0.0;
      for (int i = flat; i < structure->m; ++i) {
        io.result.at(place, i) = ok ? O::get(result[i], lane) : 0.0;
      }
    }
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
