// SPDX-License-Identifier: Apache-2.0
//
// Cones of three rows, one of which holds a variable t and nothing else, as epigraphs do, where t
// appears besides only in linear rows, with duals z, as terms of a sum do. They are eliminated by
// hand, t included:
//
//     [ δ   a eᵣᵀ    ] [t]   [b_t − dᵀz]
//     [ aeᵣ −(H + δ) ] [y] = [b − B x  ]
//
// Row r goes first, with t in a pivot of order 2 whose determinant is −(a² + δh) and never small:
// δ alone would take the digits of H away. −M is the inverse of the matrix in rows p, q and t, and
// (B, d)ᵀM(B, d) goes into the block of x and z. Factors are kept for the solves, not M: H is
// large in one direction, and M times a multiple of that would be rounding alone.
#pragma once

#include "../linalg/arena.hpp"
#include "../linalg/lanes.hpp"
#include "structure.hpp"

namespace cvxlayer::CVXLAYER_ISA {

template <class L>
struct FoldedCones {
  using V = typename L::V;
  using O = Ops<L>;

  /// w = δ/(a² + δh), f = a/(a² + δh), c = h/(a² + δh) with h = H_rr + δ.
  struct Pivots {
    V hpr, hqr, w, f, c;
    V first, ratio, last;  // 1/pivot of row p, the multiplier of row q, 1/pivot of row q
  };

  const KktPlan* plan;
  Pivots* pivots;

  void lay_out(const KktPlan& kkt_plan, Arena& arena) {
    plan = &kkt_plan;
    pivots = arena.take<Pivots>(kkt_plan.num_folded);
  }

  /// Factorize cone k, given the lower triangle of H, and add (B, d)ᵀM(B, d) to the matrix.
  void fold(int k, const V* H, const V* A, V delta, V* storage) {
    const FoldedCone& cone = plan->folded[k];
    Pivots& at = pivots[k];
    factorize(cone, H, A[cone.own_entry], delta, at);
    const V across = -at.ratio * at.last;
    // (p, q) is what a unit of t in row r makes of the others.
    const V q = at.last * (at.hqr - at.ratio * at.hpr), p = at.first * at.hpr - at.ratio * q;
    const V own = at.c - at.f * at.f * (at.hpr * p + at.hqr * q);
    const V M[6] = {
        at.first - at.ratio * across, across, at.last, at.f * p, at.f * q, -O::max(own, V{})};
    for (int t = cone.terms_begin; t < cone.terms_end; ++t) {
      const FoldedTerm& term = plan->folded_term[t];
      storage[term.target] += A[term.first] * A[term.second] * M[term.place];
    }
  }

  /// Take what the cones contribute from the right-hand side of x and z: −Bᵀy and −dt where both
  /// are 0.
  template <class Top, class Bottom>
  void reduce(const V* A, const Top& top, const Bottom& bottom, V* side) const {
    for (int k = 0; k < plan->num_folded; ++k) {
      const FoldedCone& cone = plan->folded[k];
      const V right[3] = {bottom(cone.start), bottom(cone.start + 1), bottom(cone.start + 2)};
      V y[4];
      y[3] = solve(cone, pivots[k], top(cone.own_variable), right, y);
      for (int t = cone.entries_begin; t < cone.entries_end; ++t) {
        const FoldedEntry& at = plan->folded_entry[t];
        side[at.position] -= A[at.entry] * y[at.row];
      }
    }
  }

  /// Find y and t of every cone from the solution for x and z.
  template <class Top, class Bottom>
  void recover(const V* A, const Top& top, const Bottom& bottom, const V* side, V* dx,
               V* dy) const {
    for (int k = 0; k < plan->num_folded; ++k) {
      const FoldedCone& cone = plan->folded[k];
      V right[4] = {bottom(cone.start), bottom(cone.start + 1), bottom(cone.start + 2),
                    top(cone.own_variable)};
      for (int t = cone.entries_begin; t < cone.entries_end; ++t) {
        const FoldedEntry& at = plan->folded_entry[t];
        right[at.row] -= A[at.entry] * side[at.position];
      }
      dx[cone.own_variable] = solve(cone, pivots[k], right[3], right, dy + cone.start);
    }
  }

 private:
  static constexpr int place(int i, int j) {
    return i >= j ? i * (i + 1) / 2 + j : j * (j + 1) / 2 + i;
  }

  /// y, and t as the result, for (b_t, b) = (own, right).
  static CVXLAYER_INLINE V solve(const FoldedCone& cone, const Pivots& at, V own, const V* right,
                                 V* y) {
    const int r = cone.own_row, p = cone.other_rows[0], q = cone.other_rows[1];
    const V head = at.f * own - at.w * right[r];
    const V zp = right[p] + at.hpr * head, zq = right[q] + at.hqr * head;
    const V yq = -at.last * (zq - at.ratio * zp), yp = -at.first * zp - at.ratio * yq;
    const V coupled = at.hpr * yp + at.hqr * yq, t = at.c * own + at.f * (right[r] + coupled);
    y[p] = yp;
    y[q] = yq;
    y[r] = head - at.w * coupled;
    return t;
  }

  /// In exact arithmetic no pivot is below δ.
  static void factorize(const FoldedCone& cone, const V* H, V a, V delta, Pivots& out) {
    const int r = cone.own_row, p = cone.other_rows[0], q = cone.other_rows[1];
    const V h = H[place(r, r)] + delta, hpr = H[place(p, r)], hqr = H[place(q, r)];
    const V share = 1.0 / (a * a + delta * h);
    const auto pivot = [delta](V value) { return O::select(O::gt(value, delta), value, delta); };
    out.hpr = hpr;
    out.hqr = hqr;
    out.w = delta * share;
    out.f = a * share;
    out.c = h * share;
    out.first = 1.0 / pivot(H[place(p, p)] + delta - out.w * hpr * hpr);
    const V across = H[place(p, q)] - out.w * hpr * hqr;
    out.ratio = across * out.first;
    out.last = 1.0 / pivot(H[place(q, q)] + delta - out.w * hqr * hqr - out.ratio * across);
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
