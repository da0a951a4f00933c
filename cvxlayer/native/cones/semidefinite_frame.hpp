// SPDX-License-Identifier: Apache-2.0
//
// Symmetric matrices as vectors svec(X), and in the basis of eigenvectors of another.
#pragma once

#include "../linalg/dense.hpp"

namespace cvxlayer::CVXLAYER_ISA {

/// svec and what is linear in it. A full matrix is k × k, row-major.
template <class L>
struct SymmetricVector {
  using V = typename L::V;
  static constexpr double kRootTwo = 1.4142135623730951;

  static void unpack(const V* u, int k, V* full) {
    for (int j = 0; j < k; ++j) {
      full[j * k + j] = *u++;
      for (int i = j + 1; i < k; ++i) full[i * k + j] = full[j * k + i] = *u++ * (1 / kRootTwo);
    }
  }

  /// put(a, svec(X)ₐ) for every a.
  template <class Put>
  static CVXLAYER_INLINE void pack(const V* full, int k, const Put& put) {
    int a = 0;
    for (int j = 0; j < k; ++j) {
      put(a++, full[j * k + j]);
      for (int i = j + 1; i < k; ++i) put(a++, kRootTwo * full[j * k + i]);
    }
  }
};

/// Eigenvectors and functions of them. Owns nothing.
///   rows  vᵢ in row i;  columns  its transpose;  work  2k²
template <class L>
struct EigenFrame {
  using V = typename L::V;
  using D = Dense<L>;
  using Svec = SymmetricVector<L>;

  int k;
  V *rows, *columns, *work;

  /// out = Q (f ∘ Qᵀu) on vectors, f(i) an entry of a symmetric k × k matrix and Q the change
  /// from coordinates in the basis (vᵢ). out may be u.
  template <class Function>
  CVXLAYER_INLINE void weigh(const V* u, V* out, const Function& f) const {
    V *full = work, *other = work + k * k;
    Svec::unpack(u, k, full);
    D::congruence(rows, full, k, other, full);
    for (int i = 0; i < k * k; ++i) full[i] *= f(i);
    D::congruence(columns, full, k, other, full);
    Svec::pack(full, k, [&](int a, V value) { out[a] = value; });
  }

  /// out = Σ f(i) vᵢvᵢᵀ, f(i) a number of eigenvalue i.
  template <class Function>
  CVXLAYER_INLINE void sum(const Function& f, V* out) const {
    for (int i = 0; i < k; ++i) work[i] = f(i);
    V* weighted = work + k;  // up to k² of them: work is longer than k² + k
    for (int a = 0; a < k; ++a) {
      for (int i = 0; i < k; ++i) weighted[a * k + i] = columns[a * k + i] * work[i];
    }
    D::multiply_symmetric(weighted, columns, k, out);
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
