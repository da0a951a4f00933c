// SPDX-License-Identifier: Apache-2.0
//
// Nesterov–Todd scaling of the whole product cone: H = W², the corrector and the step length.
// One λ on both sides: W y = W⁻¹ s = λ. A new cone adds its branch to each function here.
#pragma once

#include "../cones/second_order.hpp"
#include "../kkt/system.hpp"

namespace cvxlayer::CVXLAYER_ISA {

template <class L>
struct ConeScaling {
  using V = typename L::V;
  using M = typename L::M;
  using O = Ops<L>;
  using Soc = SecondOrder<L>;

  const StructureView* structure;
  V* h;                      // H of linear rows, 0 for equalities
  V *inverse_s, *inverse_y;  // of inequality rows; divisions are what these rows cost
  V *w, *eta, *lambda;       // second-order cones: W = η W(w)
  V* scratch;

  void lay_out(const StructureView& view, Arena& arena) {
    structure = &view;
    for (V** pointer : {&h, &inverse_s, &inverse_y, &w, &lambda, &scratch})
      *pointer = arena.take<V>(view.m);
    eta = arena.take<V>(view.num_cones);
  }

  /// Scale at (s, y), both inside.
  void update(const V* s, const V* y) {
    for (int i = 0; i < num_zero(); ++i) h[i] = V{};
    for (int i = num_zero(); i < num_linear(); ++i) {
      inverse_s[i] = 1.0 / s[i];
      inverse_y[i] = 1.0 / y[i];
      h[i] = s[i] * inverse_y[i];
    }
    for (int k = 0; k < structure->num_cones; ++k) {
      const int size = structure->cone_size[k];
      Soc::scaling_point(cone(s, k), cone(y, k), size, cone(w, k), eta[k]);
      Soc::template multiply_scaling<1>(cone(w, k), eta[k], cone(y, k), size, cone(lambda, k));
    }
  }

  /// Write −(H + δ) into the KKT matrix, singleton rows into their variables.
  void assemble(const V* A, KktSystem<L>& kkt) const {
    const StructureView& v = *structure;
    for (int i = 0; i < num_linear(); ++i) {
      if (kkt.plan->row_position[i] >= 0) kkt.set_row_diagonal(i, h[i]);
    }
    for (int k = 0; k < v.num_singletons; ++k) {
      kkt.add_singleton(k, A[v.singleton_entry[k]], h[v.singleton_row[k]]);
    }
    const long* entry = kkt.plan->block;
    for (int k = 0; k < v.num_cones; ++k) {
      const V* wk = cone(w, k);
      const V squared = eta[k] * eta[k];
      for (int i = 0; i < v.cone_size[k]; ++i) {
        for (int j = 0; j <= i; ++j, ++entry) {
          V value = -2.0 * squared * wk[i] * wk[j];
          if (i == j) value += (i == 0 ? squared : -squared) - kkt.regularization;
          kkt.factor.storage[*entry] = value;
        }
      }
    }
  }

  /// out = H v, unregularized.
  void multiply(const V* v, V* out) const {
    for (int i = 0; i < num_linear(); ++i) out[i] = h[i] * v[i];
    for (int k = 0; k < structure->num_cones; ++k) {
      const int size = structure->cone_size[k];
      V* part = cone(out, k);
      for (int i = 0; i < size; ++i) part[i] = V{};
      Soc::add_squared(cone(w, k), eta[k], cone(v, k), size, 1.0, part);
    }
  }

  /// ds = −shift − H dy on the inequality rows, 0 on equalities.
  void complete(const V* dy, const V* shift, V* ds) const {
    for (int i = 0; i < num_zero(); ++i) ds[i] = V{};
    for (int i = num_zero(); i < num_linear(); ++i) ds[i] = -shift[i] - h[i] * dy[i];
    for (int k = 0; k < structure->num_cones; ++k) {
      const int begin = structure->cone_start[k], size = structure->cone_size[k];
      for (int i = begin; i < begin + size; ++i) ds[i] = -shift[i];
      Soc::add_squared(cone(w, k), eta[k], cone(dy, k), size, -1.0, cone(ds, k));
    }
  }

  /// vᵀH v.
  V squared_norm(const V* v) const {
    V sum{};
    for (int i = num_zero(); i < num_linear(); ++i) sum += h[i] * v[i] * v[i];
    for (int k = 0; k < structure->num_cones; ++k) {
      const int size = structure->cone_size[k];
      V* part = cone(scratch, k);
      Soc::template multiply_scaling<1>(cone(w, k), eta[k], cone(v, k), size, part);
      for (int i = 0; i < size; ++i) sum += part[i] * part[i];
    }
    return sum;
  }

  /// Move the chosen lanes of a point along (1, e₁) until it lies well inside.
  void shift_into_cone(V* point, M chosen) const {
    const StructureView& v = *structure;
    V smallest = O::splat(__builtin_inf()), total{};
    for (int i = num_zero(); i < num_linear(); ++i) {
      smallest = O::min(smallest, point[i]);
      total += O::max(point[i], V{});
    }
    for (int k = 0; k < v.num_cones; ++k) {
      const V margin = Soc::margin(cone(point, k), v.cone_size[k]);
      smallest = O::min(smallest, margin);
      total += O::max(margin, V{});
    }
    const double degree = v.degree > 0 ? v.degree : 1;
    const V target = O::max(O::splat(1.0), total * (0.1 / degree));
    V amount = O::select(O::le(smallest, V{}), target - smallest, O::max(target - smallest, V{}));
    amount = O::select(chosen, amount, V{});
    for (int i = num_zero(); i < num_linear(); ++i) point[i] += amount;
    for (int k = 0; k < v.num_cones; ++k) cone(point, k)[0] += amount;
  }

  /// shift = W (λ \ (λ∘λ + (W⁻¹ds)∘(W dy) − center·e)) on the inequality rows.
  void corrector(const V* s, const V* ds, const V* dy, V center, V* shift) {
    for (int i = num_zero(); i < num_linear(); ++i) {
      shift[i] = s[i] + (ds[i] * dy[i] - center) * inverse_y[i];
    }
    for (int k = 0; k < structure->num_cones; ++k) {
      cone_corrector(k, cone(ds, k), cone(dy, k), center, cone(shift, k));
    }
  }

  /// Longest step along (ds, dy) that keeps s and y in their cones, at most `limit`.
  V step_length(const V* s, const V* ds, const V* y, const V* dy, V limit) const {
    // 1/α = max(−du/u) needs no branch on the sign of du.
    V inverse = 1.0 / limit;
    for (int i = num_zero(); i < num_linear(); ++i) {
      inverse = O::max(inverse, O::max(-ds[i] * inverse_s[i], -dy[i] * inverse_y[i]));
    }
    V alpha = 1.0 / inverse;
    for (int k = 0; k < structure->num_cones; ++k) {
      const int size = structure->cone_size[k];
      alpha = Soc::step_length(cone(s, k), cone(ds, k), size, alpha);
      alpha = Soc::step_length(cone(y, k), cone(dy, k), size, alpha);
    }
    return alpha;
  }

 private:
  void cone_corrector(int k, const V* ds, const V* dy, V center, V* u) {
    const int size = structure->cone_size[k];
    V* left = cone(scratch, k);
    const V *wk = cone(w, k), *l = cone(lambda, k);
    Soc::template multiply_scaling<-1>(wk, eta[k], ds, size, left);
    Soc::template multiply_scaling<1>(wk, eta[k], dy, size, u);
    V inner{}, square{};
    for (int i = 0; i < size; ++i) {
      inner += left[i] * u[i];
      square += l[i] * l[i];
    }
    const V left_head = left[0], u_head = u[0];
    for (int i = 1; i < size; ++i) {
      u[i] = left_head * u[i] + u_head * left[i] + 2.0 * l[0] * l[i];
    }
    u[0] = inner + square - center;
    divide(l, u, size);
    Soc::template multiply_scaling<1>(wk, eta[k], u, size, u);
  }

  /// u ← λ \ u, the inverse of the Jordan product with λ.
  static void divide(const V* l, V* u, int size) {
    V tail{};
    for (int i = 1; i < size; ++i) tail += l[i] * u[i];
    const V head = (l[0] * u[0] - tail) / Soc::determinant(l, size);
    u[0] = head;
    const V inverse = 1.0 / l[0];
    for (int i = 1; i < size; ++i) u[i] = (u[i] - head * l[i]) * inverse;
  }

  int num_zero() const { return structure->num_zero; }
  int num_linear() const { return structure->num_linear; }
  V* cone(V* array, int k) const { return array + structure->cone_start[k]; }
  const V* cone(const V* array, int k) const { return array + structure->cone_start[k]; }
};

}  // namespace cvxlayer::CVXLAYER_ISA
