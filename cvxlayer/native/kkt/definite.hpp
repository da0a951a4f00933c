// SPDX-License-Identifier: Apache-2.0
//
// Is a dense symmetric matrix positive definite? It is when all pivots of its LDLᵀ are positive.
#pragma once

#include "../linalg/arena.hpp"
#include "factor.hpp"

namespace cvxlayer::CVXLAYER_ISA {

template <class L>
struct Definiteness {
  using V = typename L::V;
  using O = Ops<L>;
  static_assert(L::width == 1, "one matrix at a time: it has to fit into the cache");

  Factor<L> factor;
  Supernode node;
  signed char* sign;

  /// The factor is one dense supernode.
  void lay_out(int n, Arena& arena) {
    node = Supernode{};
    node.width = node.lead = n;
    sign = arena.take<signed char>(n);
    SymbolicView symbolic{};
    symbolic.dim = n;
    symbolic.num_nodes = 1;
    symbolic.nodes = &node;
    symbolic.sign = sign;
    symbolic.storage = static_cast<long>(n) * n;
    symbolic.scratch = 4L * n;
    factor.lay_out(symbolic, arena);
  }

  /// Whether `matrix` · `side` + `rounding` · max(1, |entries|) · I is. It is n × n, row-major;
  /// only its lower triangle is read.
  bool is_definite(const double* matrix, double side, double rounding) {
    const int n = node.width;
    double largest = 1.0;
    for (int i = 0; i < n; ++i) {
      sign[i] = 1;
      const long row = static_cast<long>(i) * n;
      for (int j = 0; j <= i; ++j) {
        factor.storage[row + j] = side * matrix[row + j];
        largest = O::max(largest, O::abs(matrix[row + j]));
      }
    }
    for (int i = 0; i < n; ++i) factor.storage[static_cast<long>(i) * n + i] += rounding * largest;
    factor.factorize(0.0);  // a pivot that is not positive, or NaN, is replaced by 0
    bool positive = true;
    for (int i = 0; i < n; ++i) positive &= factor.pivot[i] > 0.0;
    return positive;
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
