// SPDX-License-Identifier: Apache-2.0
//
// The second derivative of the projection onto the semidefinite cone, in the basis of the
// eigenvectors. Source: cvxlayer/cones/semidefinite.py.
#pragma once

#include "../linalg/dense.hpp"

namespace cvxlayer::CVXLAYER_ISA {

/// Entry (i, j) of the result is Σ_k f[λᵢ, λ_k, λⱼ] (H_ik H'_kj + H'_ik H_kj). With N_ij = 1/(|λᵢ|
/// + |λⱼ|) where the signs differ and else zero, every divided difference is |λ| of the lone sign
/// times two of the N, so that with G = N ∘ H and T = H₀G' + H₀'G, H₀ the entries of H without
/// those of G,
///
///     G|Λ|G' + G'|Λ|G + N ∘ (T|Λ| + |Λ|Tᵀ)
template <class L>
struct SemidefiniteCurvature {
  using V = typename L::V;
  using O = Ops<L>;
  using D = Dense<L>;

  int k;
  const V *size, *inverse;  // |λ| and N
  V *left, *right, *first, *second;

  /// Both k × k and symmetric; H is overwritten by the result, H' lost. Uses k² numbers at each of
  /// left, right, first and second.
  void run(V* H, V* other) const {
    split<true>(H, left, size);
    split<true>(other, right, nullptr);
    D::multiply(left, right, k, first);  // G|Λ|G'
    split<false>(H, left, nullptr);
    D::multiply(left, right, k, second);  // H₀G'
    split<false>(other, left, nullptr);
    split<true>(H, right, nullptr);
    D::multiply(left, right, k, H);  // H₀'G
    for (int i = 0; i < k; ++i) {
      for (int j = 0; j <= i; ++j) {
        const V below = second[i * k + j] + H[i * k + j], above = second[j * k + i] + H[j * k + i];
        const V mixed = inverse[i * k + j] * (below * size[j] + size[i] * above);
        H[i * k + j] = H[j * k + i] = first[i * k + j] + first[j * k + i] + mixed;
      }
    }
  }

 private:
  /// out = G, its columns weighted, or else H₀.
  template <bool is_mixed>
  void split(const V* H, V* out, const V* weight) const {
    for (int i = 0; i < k; ++i) {
      for (int j = 0; j < k; ++j) {
        const V share = inverse[i * k + j], value = H[i * k + j];
        if constexpr (is_mixed) {
          out[i * k + j] = share * (weight == nullptr ? value : value * weight[j]);
        } else {
          out[i * k + j] = O::select(O::gt(share, V{}), V{}, value);
        }
      }
    }
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
