// SPDX-License-Identifier: Apache-2.0
//
// Scaling of the whole product cone: H, the corrector and the step length. Linear rows are
// written out here; each curved cone brings its own, see cones/curved.hpp.
#pragma once

#include "../cones/curved.hpp"
#include "../kkt/system.hpp"

namespace cvxlayer::CVXLAYER_ISA {

// What a step may lose for the sake of the primal residual.
constexpr double kFeasibleShare = 0.99;

template <class L>
struct ConeScaling {
  using V = typename L::V;
  using M = typename L::M;
  using O = Ops<L>;

  const StructureView* structure;
  V* h;                      // H of linear rows, 0 for equalities
  V *inverse_s, *inverse_y;  // of inequality rows; divisions are what these rows cost
  CurvedCones<L, ScalingFaces> curved;

  void lay_out(const StructureView& view, Arena& arena) {
    structure = &view;
    for (V** pointer : {&h, &inverse_s, &inverse_y}) *pointer = arena.take<V>(view.num_linear);
    curved.lay_out(view.cones, view.num_cones, arena);
  }

  /// Put one lane of s and y at the unit of the cone.
  void set_unit(V* s, V* y, int lane) const {
    for (int i = 0; i < structure->m; ++i) {
      const bool is_inequality = i >= num_zero() && i < num_linear();
      O::set(s[i], lane, is_inequality ? 1.0 : 0.0);
      O::set(y[i], lane, is_inequality ? 1.0 : 0.0);
    }
    curved.for_each([&](const auto& face) {
      face.set_unit(s + face.cone.start, lane);
      face.set_unit(y + face.cone.start, lane);
    });
  }

  /// Scale at (s, y), both inside.
  void update(const V* s, const V* y) {
    for (int i = 0; i < num_zero(); ++i) h[i] = V{};
    for (int i = num_zero(); i < num_linear(); ++i) {
      inverse_s[i] = 1.0 / s[i];
      inverse_y[i] = 1.0 / y[i];
      h[i] = s[i] * inverse_y[i];
    }
    curved.for_each(
        [&](const auto& face) { face.update(s + face.cone.start, y + face.cone.start); });
  }

  /// Write −(H + δ) into the KKT matrix, singleton rows into their variables.
  void assemble(const V* A, KktSystem<L, ScalingFaces>& kkt) const {
    const StructureView& v = *structure;
    for (int i = 0; i < num_linear(); ++i) {
      if (kkt.plan->row_position[i] >= 0) kkt.set_row_diagonal(i, h[i]);
    }
    for (int k = 0; k < v.num_linear_singletons; ++k) {
      kkt.add_singleton(k, A[v.singleton_entry[k]], h[v.singleton_row[k]]);
    }
    const long* entry = kkt.plan->block;
    kkt.add_condensed();
    kkt.add_bordered(nullptr);
    curved.for_each_block([&](const auto& face) {
      if constexpr (requires { face.block(); }) {
        const int folded = kkt.plan->folded_index[&face.cone - v.cones];
        if (folded >= 0) return kkt.fold_cone(folded, face.block());
      }
      face.write_block([&](V value, bool is_diagonal) {
        kkt.factor.storage[*entry++] = is_diagonal ? -value - kkt.regularization : -value;
      });
    });
  }

  /// out = H v, unregularized; 0 on condensed cones.
  void multiply(const V* v, V* out) const {
    for (int i = 0; i < num_linear(); ++i) out[i] = h[i] * v[i];
    for (int i = num_linear(); i < structure->m; ++i) out[i] = V{};
    curved.for_each([&](const auto& face) {
      if constexpr (!requires { face.add_visible_product(nullptr, M{}, nullptr); }) {
        face.add_product(v + face.cone.start, 1.0, out + face.cone.start);
      }
    });
  }

  /// out += H v on condensed cones; in the lanes given without what rounding of v hides in the sum.
  void add_condensed(const V* v, M lanes, V* out) const {
    curved.for_each_condensed([&](int, const auto& face) {
      face.add_visible_product(v + face.cone.start, lanes, out + face.cone.start);
    });
  }

  /// out = b dτ − A dx − scale·r on the rows of condensed cones, and of bordered ones, there
  /// without the part of A dx that their `complete` does not look at; and, if `of_blocks`, on those
  /// of all others.
  void find_feasible(const ScaledData<L>& data, const KktSystem<L, ScalingFaces>& kkt, const V* dx,
                     V d_tau, V scale, const V* r, bool of_blocks, V* out) const {
    const StructureView& v = *structure;
    if (v.has_condensed || of_blocks) data.multiply_A(dx, out);
    for (int k = 0; k < v.num_cones; ++k) {
      const CurvedCone& cone = v.cones[k];
      if (cone.has_block() && !of_blocks) continue;
      for (int i = cone.start; i < cone.end(); ++i) {
        const V product = cone.is_bordered ? V{} : out[i];
        out[i] = data.b[i] * d_tau - scale * r[i] - product;
      }
    }
    kkt.subtract_along_soft(dx, out);
  }

  /// ds = −shift − H dy on the inequality rows, 0 on equalities. On condensed and bordered cones
  /// it is `feasible`, the same in exact arithmetic, as far as the cone bears.
  void complete(const V* dy, const V* shift, const V* feasible, V* ds) const {
    for (int i = 0; i < num_zero(); ++i) ds[i] = V{};
    for (int i = num_zero(); i < num_linear(); ++i) ds[i] = -shift[i] - h[i] * dy[i];
    for (int i = num_linear(); i < structure->m; ++i) ds[i] = -shift[i];
    curved.for_each([&](const auto& face) {
      const int start = face.cone.start;
      if constexpr (requires { face.complete(nullptr, nullptr, nullptr, nullptr); }) {
        face.complete(dy + start, shift + start, feasible + start, ds + start);
      } else {
        face.add_product(dy + start, -1.0, ds + start);
      }
    });
  }

  /// ds ← feasible, the same in exact arithmetic, on the cones with a block that allow the step α
  /// with it too, in the lanes given: where H is large, −shift − H dy magnifies the rounding of
  /// dy. Returns α, or hardly less.
  V prefer_feasible(const V* s, const V* y, const V* dy, V alpha, M lanes, const V* feasible,
                    V* ds) const {
    if (!O::any(lanes)) return alpha;
    const V least = kFeasibleShare * O::min(alpha, O::splat(1.0));
    curved.for_each_block([&](const auto& face) {
      const int start = face.cone.start;
      const V found = face.step_length(s + start, feasible + start, y + start, dy + start, alpha);
      const M taken = lanes & O::ge(found, least);
      alpha = O::select(taken, O::min(alpha, found), alpha);
      for (int i = start; i < face.cone.end(); ++i) ds[i] = O::select(taken, feasible[i], ds[i]);
    });
    return alpha;
  }

  /// vᵀH v.
  V squared_norm(const V* v) const {
    V sum{};
    for (int i = num_zero(); i < num_linear(); ++i) sum += h[i] * v[i] * v[i];
    curved.for_each([&](const auto& face) { sum += face.squared_norm(v + face.cone.start); });
    return sum;
  }

  /// Move the chosen lanes of a point along the unit of the cone until it lies well inside.
  /// Only for products of symmetric cones.
  void shift_into_cone(V* point, M chosen) const {
    const StructureView& v = *structure;
    V smallest = O::splat(__builtin_inf()), total{};
    for (int i = num_zero(); i < num_linear(); ++i) {
      smallest = O::min(smallest, point[i]);
      total += O::max(point[i], V{});
    }
    for_each_symmetric([&](const auto& face) {
      const V margin = face.margin(point + face.cone.start);
      smallest = O::min(smallest, margin);
      total += O::max(margin, V{});
    });
    const double degree = v.degree > 0 ? v.degree : 1;
    const V target = O::max(O::splat(1.0), total * (0.1 / degree));
    V amount = O::select(O::le(smallest, V{}), target - smallest, O::max(target - smallest, V{}));
    amount = O::select(chosen, amount, V{});
    for (int i = num_zero(); i < num_linear(); ++i) point[i] += amount;
    for_each_symmetric([&](const auto& face) { face.shift(point + face.cone.start, amount); });
  }

  /// The second-order correction and the centering of ds = −shift − H dy, on inequality rows.
  void corrector(const V* s, const V* ds, const V* dy, V center, V* shift) {
    for (int i = num_zero(); i < num_linear(); ++i) {
      shift[i] = s[i] + (ds[i] * dy[i] - center) * inverse_y[i];
    }
    curved.for_each([&](const auto& face) {
      const int start = face.cone.start;
      face.corrector(s + start, ds + start, dy + start, center, shift + start);
    });
  }

  /// Longest step along (ds, dy) that keeps s and y in their cones, at most `limit`.
  V step_length(const V* s, const V* ds, const V* y, const V* dy, V limit) const {
    // 1/α = max(−du/u) needs no branch on the sign of du.
    V inverse = 1.0 / limit;
    for (int i = num_zero(); i < num_linear(); ++i) {
      inverse = O::max(inverse, O::max(-ds[i] * inverse_s[i], -dy[i] * inverse_y[i]));
    }
    V alpha = 1.0 / inverse;
    curved.for_each([&](const auto& face) {
      const int start = face.cone.start;
      alpha = face.step_length(s + start, ds + start, y + start, dy + start, alpha);
    });
    return alpha;
  }

 private:
  template <class Body>
  CVXLAYER_INLINE void for_each_symmetric(const Body& body) const {
    curved.for_each([&](const auto& face) {
      if constexpr (requires { face.shift(nullptr, V{}); }) body(face);
    });
  }
  int num_zero() const { return structure->num_zero; }
  int num_linear() const { return structure->num_linear; }
};

}  // namespace cvxlayer::CVXLAYER_ISA
