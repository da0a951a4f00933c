// SPDX-License-Identifier: Apache-2.0
//
// What the values of a call must satisfy, on all cores. A library's threads would do as well,
// but most wait busily after each call, in the way of ours.
#pragma once

#include "../cones/kind.hpp"

namespace cvxlayer {

/// Whether no number is NaN or infinite.
bool all_finite(const double* numbers, long count, int threads);

/// What the values of a parameter may be declared to be, as bits; as in `program/inspection.py`.
enum Domain : unsigned {
  kNonnegative = 1,
  kNonpositive = 2,
  kPositive = 4,
  kNegative = 8,
  kSymmetric = 16,  // this and those below: of square matrices, row-major
  kSemidefinite = 32,
  kNegativeSemidefinite = 64,
};

/// Whether each of `count` values, `size` finite numbers each, lies in all of the domains up to
/// the rounding of numbers with this machine epsilon, as `domains.py` has it. False, too, where
/// eigenvalues would have to tell.
bool all_in_domains(const double* values, long count, long size, unsigned domains, double epsilon,
                    int threads);

/// Project `count` points, rows of cone.size numbers, onto the dual cone, W = `width` at once,
/// with the derivative of the projection and its root (cone.size² numbers each). `starts` is null
/// or pairs (s, y), from which a projection by iteration begins.
void project_dual(const CurvedCone& cone, const double* points, const double* starts, long count,
                  int width, double* nearest, double* derivative, double* root);

}  // namespace cvxlayer
