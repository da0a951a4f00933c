// SPDX-License-Identifier: Apache-2.0
//
// Projections of plain points, W at once: the native projection to be held against its
// specification, cone by cone.
#pragma once

#include "curved.hpp"

namespace cvxlayer::CVXLAYER_ISA {

template <class L>
struct PointProjection {
  using V = typename L::V;
  using O = Ops<L>;

  CurvedCones<L, ProjectionFaces> curved;
  CurvedCone cone;
  V *point, *out, *unit, *block, *start;

  /// The cone starts at row 0.
  void lay_out(const CurvedCone& one, Arena& arena) {
    cone = one;
    cone.start = 0;
    curved.lay_out(&cone, 1, arena);
    point = arena.take<V>(cone.size);
    out = arena.take<V>(cone.size);
    unit = arena.take<V>(cone.size);
    start = arena.take<V>(2L * cone.size);
    block = arena.take<V>(static_cast<long>(cone.size) * cone.size);
  }

  /// Rows first, …, first + count − 1 (count ≤ W) of `points`, `nearest` (size each) and of
  /// `derivative` and `root` (size × size each); found from the pairs (s, y) of `starts`, unless it
  /// is null, where the cone's projection can start somewhere.
  void run(const double* points, const double* starts, long first, int count, double* nearest,
           double* derivative, double* root) {
    const int size = cone.size;
    for (int lane = 0; lane < L::width; ++lane) {
      const double* row = points + (first + (lane < count ? lane : 0)) * size;
      for (int i = 0; i < size; ++i) O::set(point[i], lane, row[i]);
      if (starts == nullptr) continue;
      const double* pair = starts + (first + (lane < count ? lane : 0)) * 2 * size;
      for (int i = 0; i < 2 * size; ++i) O::set(start[i], lane, pair[i]);
    }
    curved.for_each([&](const auto& face) {
      project_and_decompose(face, starts != nullptr);
      store(out, 1, first, count, nearest);
      for_each_unit([&](V* column) { face.apply_root(point, unit, column); });
      store(block, size, first, count, root);
      for_each_unit([&](V* column) { face.apply(point, unit, column); });
      store(block, size, first, count, derivative);
    });
    // A cone with a block in the matrix writes it there by itself.
    curved.for_each_block([&](const auto& face) {
      int i = 0, j = 0;
      face.write_block(point, [&](V value, bool is_diagonal) {
        block[i * size + j] = block[j * size + i] = value;
        j = is_diagonal ? 0 : j + 1;
        i += is_diagonal;
      });
      store(block, size, first, count, derivative);
    });
  }

 private:
  template <class Face>
  void project_and_decompose(const Face& face, bool is_started) {
    if constexpr (requires { face.start_nearby(point, point); }) {
      if (is_started) {
        face.start_nearby(start, start + cone.size);
        face.project_nearby(point, out);
        face.start_nearby(start, start + cone.size);
        return face.decompose_nearby(point);
      }
    }
    face.project(point, out);
    face.decompose(point);
  }

  /// Call body(column of `block`) with every unit vector in `unit`.
  template <class Body>
  void for_each_unit(const Body& body) {
    for (int k = 0; k < cone.size; ++k) {
      for (int a = 0; a < cone.size; ++a) unit[a] = O::splat(a == k ? 1.0 : 0.0);
      body(block + static_cast<long>(k) * cone.size);
    }
  }

  void store(const V* values, int rows, long first, int count, double* target) const {
    const long length = static_cast<long>(rows) * cone.size;
    for (int lane = 0; lane < count; ++lane) {
      for (long k = 0; k < length; ++k) {
        target[(first + lane) * length + k] = O::get(values[k], lane);
      }
    }
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
