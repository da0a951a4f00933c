// SPDX-License-Identifier: Apache-2.0
//
// The curved cones of a product: kind, rows and parameter of each.
#pragma once

namespace cvxlayer {

/// The numbers are those of `cvxlayer.cones.product.ConeKind`.
enum class ConeKind : int {
  kSecondOrder = 0,
  kSemidefinite = 1,
  kExponential = 2,
  kPower = 3,
};

/// Whether lane code has a branch for it; see curved.hpp.
inline bool is_implemented(ConeKind kind) {
  return kind == ConeKind::kSecondOrder || kind == ConeKind::kSemidefinite ||
         kind == ConeKind::kExponential || kind == ConeKind::kPower;
}

/// One curved cone and the rows it owns.
struct CurvedCone {
  ConeKind kind;
  int start, size;           // first row and number of rows
  double parameter;          // order of the matrix, exponent α, or 0
  bool is_bordered = false;  // a large second-order cone without a block, see kkt/border.hpp

  int end() const { return start + size; }
  /// Whether Nesterov–Todd scaling and Mehrotra's starting point exist.
  bool is_symmetric() const {
    return kind == ConeKind::kSecondOrder || kind == ConeKind::kSemidefinite;
  }
  /// Order of the matrices of a semidefinite cone.
  int order() const { return static_cast<int>(parameter); }
  /// Whether its rows are eliminated by hand, see kkt/system.hpp.
  bool is_condensed() const { return kind == ConeKind::kSemidefinite; }
  /// Whether it has a dense block of rows in the matrix.
  bool has_block() const { return !is_condensed() && !is_bordered; }
  /// Barrier parameter ν.
  int degree() const {
    switch (kind) {
      case ConeKind::kSecondOrder:
        return 1;
      case ConeKind::kSemidefinite:
        return order();
      case ConeKind::kExponential:
      case ConeKind::kPower:
        return 3;
    }
    return 0;
  }
};

}  // namespace cvxlayer
