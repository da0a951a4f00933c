// SPDX-License-Identifier: Apache-2.0
//
// What the values of a call must satisfy, on all cores. A library's threads would do as well,
// but most wait busily after each call, in the way of ours.
#pragma once

#include "../cones/kind.hpp"

namespace cvxlayer {

/// Whether no number is NaN or infinite.
bool all_finite(const double* numbers, long count, int threads);

/// Whether each of `count` matrices, n × n, row-major, equals its transpose.
bool all_symmetric(const double* matrices, long count, int n, int threads);

/// Whether each has positive pivots only; the lower triangles are read.
bool all_positive_definite(const double* matrices, long count, int n, int threads);

/// Project `count` points, rows of cone.size numbers, onto the dual cone, W = `width` at once,
/// with the derivative of the projection and its root (cone.size² numbers each). `starts` is null
/// or pairs (s, y), from which a projection by iteration begins.
void project_dual(const CurvedCone& cone, const double* points, const double* starts, long count,
                  int width, double* nearest, double* derivative, double* root);

}  // namespace cvxlayer
