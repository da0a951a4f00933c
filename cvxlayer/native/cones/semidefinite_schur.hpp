// SPDX-License-Identifier: Apache-2.0
//
// The Schur complement of semidefinite rows that are eliminated by hand, from the sparse
// matrices Aᵢ that the columns of A hold: entries tr(Aᵢ B Aⱼ C).
// Source: Fujisawa, Kojima & Nakata, Exploiting sparsity in primal-dual interior-point methods
// for semidefinite programming (Mathematical Programming 79, 1997).
#pragma once

#include "../linalg/dense.hpp"

namespace cvxlayer::CVXLAYER_ISA {

/// The columns of A inside one cone, those with the most entries first. Entry t stands at
/// (row[t], column[t]), row ≥ column, and has the value A[entry[t]] in svec.
struct ConeColumns {
  int count;
  const int* start;  // count + 1, into the next three
  const int *row, *column, *entry;
};

template <class L>
struct SemidefiniteSchur {
  using V = typename L::V;

  const ConeColumns& columns;
  const V* A;
  int k;
  V* work;         // 2k²
  V* storage;      // where the entries are added
  const long* at;  // place of entry (i, j ≥ i), row by row

  /// Add factor · tr(Aᵢ B Aⱼ C) for symmetric B and C. A column with many entries multiplies
  /// once by B and C, one with few goes entry by entry.
  void add(const V* b, const V* c, V factor) const {
    const long* target = at;
    const int end = columns.start[columns.count];
    for (int i = 0; i < columns.count; target += columns.count - i++) {
      const double own = columns.start[i + 1] - columns.start[i];
      const double rest = end - columns.start[i];
      const double whole = (static_cast<double>(k) * k + 2.0 * own) * k + 2.0 * rest;
      if (whole < 4.0 * own * rest) {
        add_products(i, b, c, factor, target);
      } else {
        add_entries(i, b, c, factor, target);
      }
    }
  }

 private:
  /// Aᵢ is the sum of value · (e_p e_qᵀ + e_q e_pᵀ).
  CVXLAYER_INLINE V value(int t) const {
    return A[columns.entry[t]] * (columns.row[t] == columns.column[t] ? 0.5 : 0.70710678118654752);
  }

  void add_products(int i, const V* b, const V* c, V factor, const long* target) const {
    V *left = work, *product = work + static_cast<long>(k) * k;
    for (int a = 0; a < k * k; ++a) left[a] = V{};
    for (int t = columns.start[i]; t < columns.start[i + 1]; ++t) {
      const int p = columns.row[t], q = columns.column[t];
      const V v = factor * value(t);
      for (int r = 0; r < k; ++r) {
        left[r * k + p] += v * c[r * k + q];
        left[r * k + q] += v * c[r * k + p];
      }
    }
    Dense<L>::multiply(b, left, k, product);
    for (int j = i; j < columns.count; ++j) {
      V sum{};
      for (int t = columns.start[j]; t < columns.start[j + 1]; ++t) {
        const int p = columns.row[t], q = columns.column[t];
        sum += value(t) * (product[p * k + q] + product[q * k + p]);
      }
      storage[*target++] += sum;
    }
  }

  void add_entries(int i, const V* b, const V* c, V factor, const long* target) const {
    for (int j = i; j < columns.count; ++j) {
      V sum{};
      for (int t = columns.start[i]; t < columns.start[i + 1]; ++t) {
        const V *bp = b + columns.row[t] * k, *bq = b + columns.column[t] * k;
        const V *cp = c + columns.row[t] * k, *cq = c + columns.column[t] * k;
        V inner{};
        for (int u = columns.start[j]; u < columns.start[j + 1]; ++u) {
          const int p = columns.row[u], q = columns.column[u];
          inner += value(u) * (bq[p] * cp[q] + bq[q] * cp[p] + bp[p] * cq[q] + bp[q] * cq[p]);
        }
        sum += value(t) * inner;
      }
      storage[*target++] += factor * sum;
    }
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
