// SPDX-License-Identifier: Apache-2.0
//
// Large second-order cones in the KKT matrix, without a dense block. Their H̃ = H + δ and the G of
// system.hpp are multiples of the identity but for two directions,
//
//     e = (1, ζ)/√2, the *stiff* one,   f = (1, −ζ)/√2, the *soft* one,   ‖ζ‖ = 1,
//
// so that what such a cone leaves in the block of x is a sum of three terms,
//
//     (GA)ᵀH̃⁻¹(GA) = α AᵀA + (α_e − α) AᵀeeᵀA − (α − α_f) AᵀffᵀA,   α_e ≥ α = g²/h̃ ≥ α_f.
//
// The first is that of rows without a coupling, like those of inequalities: they stay in the
// matrix, or are eliminated by hand if they have a single entry. Each of the others borders the
// matrix with a row, that of e with a negative pivot and that of f with a positive one, whatever
// the order of elimination. Derivation: docs/derivations/engine.md.
#pragma once

#include "../cones/border_numbers.hpp"
#include "../linalg/lanes.hpp"
#include "structure.hpp"

namespace cvxlayer::CVXLAYER_ISA {

constexpr double kRootHalf = 0.70710678118654752;

/// The parts of a vector along e and f.
template <class V>
struct BorderParts {
  V stiff, soft;
};

/// The two rows of one cone in the matrix. Owns nothing.
template <class L>
struct Border {
  using V = typename L::V;
  using Parts = BorderParts<V>;

  BorderNumbers<V>& numbers;
  V* zeta;  // by row of the cone; the place of the head is not used
  int size;

  template <class Entry>
  CVXLAYER_INLINE Parts parts_of(const Entry& entry) const {
    V tail{};
    for (int a = 1; a < size; ++a) tail += zeta[a] * entry(a);
    const V head = entry(0);
    return {kRootHalf * (head + tail), kRootHalf * (head - tail)};
  }

  /// Columns `begin` to `end` of its union: entries at[0], at[1] for the first and so on, and
  /// fᵀA itself.
  void write(const StructureView& s, int begin, int end, const V* A, V* storage, const long* at,
             V* along_soft) const {
    const V stiff = numbers.couple_stiff * kRootHalf;
    for (int c = begin; c < end; ++c, at += 2) {
      V head{}, tail{};
      for (int t = s.term_start[c]; t < s.term_start[c + 1]; ++t) {
        const V value = A[s.term_entry[t]];
        const int row = s.term_row[t];
        if (row == 0) {
          head = value;
        } else {
          tail += zeta[row] * value;
        }
      }
      storage[at[0]] = stiff * (head + tail);
      *along_soft = kRootHalf * (head - tail);
      storage[at[1]] = numbers.couple_soft * *along_soft++;
    }
  }

  /// rows += amount · f
  void add_soft(V amount, V* rows) const {
    const V head = kRootHalf * amount;
    rows[0] += head;
    for (int a = 1; a < size; ++a) rows[a] -= zeta[a] * head;
  }

  /// From ξ of the rows to the unknowns of the cone, in place.
  void recover(V stiff_solution, V soft_side, V* rows) const {
    const BorderNumbers<V>& b = numbers;
    const Parts xi = parts_of([rows](int a) { return rows[a]; });
    const V stiff = b.keep_stiff * xi.stiff + b.give_stiff * stiff_solution;
    const V soft = b.keep_soft * xi.soft + b.take_soft * soft_side;
    const V along = kRootHalf * (stiff - soft);
    rows[0] += kRootHalf * (stiff + soft);
    for (int a = 1; a < size; ++a) rows[a] += zeta[a] * along;
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
