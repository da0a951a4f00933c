// SPDX-License-Identifier: Apache-2.0
//
// The two faces of a curved cone in lanes, and the one place that chooses by kind.
//
// *Scaling*, what the interior point needs (H = W², Nesterov–Todd: W y = W⁻¹ s = λ):
//   state_size()               numbers that `update` writes and the other methods read
//   scratch_size()             numbers that any method may overwrite; shared by all cones
//   set_unit(u, lane)          u = e in one lane, the unit of the cone; the rest is zero before
//   update(s, y)               scale at (s, y), both inside
//   write_block(write)         write(h, is_diagonal) for the lower triangle of H, row by row
//   add_product(v, c, out)     out += c·H v
//   squared_norm(v)            vᵀH v
//   margin(u)                  smallest eigenvalue of u
//   shift(u, amount)           u += amount·e
//   corrector(s, ds, dy, center, out)  out = W (λ \ (λ∘λ + (W⁻¹ds)∘(W dy) − center·e))
//   step_length(s, ds, y, dy, limit)   longest step that keeps both inside, at most `limit`
// Formulas are those of symmetric cones. For the others `margin` and `shift` are missing, H is a
// quasi-Newton scaling, `corrector` has the third derivative of the barrier in the place of the
// Jordan product, and `step_length` may stop short of the boundary.
//
// *Projection*, what the derivative needs (D = DΠ(v), onto the dual cone, S = D^{1/2}):
//   state_size(), scratch_size()  as above
//   decompose(v, mu)           find D and S at v; in lanes where μ > 0, symmetric cones take the
//                              derivative of the v ↦ y with v = y − μy⁻¹, y inside, for D
//   apply(v, u, out)           out = D u at the decomposed v; out may be u
//   apply_root(v, u, out)      out = S u; out may be u
//   write_block(v, write)      write(d, is_diagonal) for the lower triangle of D, row by row
//   project(v, out)            out = Π(v) at any v; leaves the state alone
//   start_nearby(s, y)         the next search for a projection begins where it would end if s
//                              and y were the parts of v = y − s; only where it is by iteration
//   project_nearby(v, out)     as `project`, from there, or where the last search ended,
//   decompose_nearby(v)        as `decompose`, likewise; right from anywhere, sooner from nearby
//   project_decomposed(v, out) as `project`, at the decomposed v
//   bend(v)                    find D²Π at v; takes the place of D and S in the state
//   curvature(v, p, q, out)    out = D²Π(v)[p, q] at the bent v; out may be p or q
//
// A *condensed* kind (see kind.hpp) has no `write_block`; its rows leave the matrix, and its
// faces offer what replaces them. B stands for H⁻¹ or (I − D)⁻¹, bounded by about 1/δ, and G for
// I or S:
//   add_schur(columns, A, delta, storage, at)  add (GA)ᵀB(GA), pair by pair of its columns
//   fold(r, out)               out = GᵀB r;  out may be r
//   recover(r, out)            out = B r;  out may be r
//   couple(z)                  z ← G z
//   complete(dy, shift, feasible, ds)  (scaling only) ds from both of its equations
//   add_visible_product(v, lanes, r)   (scaling only) r += H v, less what is only rounding of v
//
// A *bordered* cone, a large second-order one, has no block either; see kkt/border.hpp:
//   border(v, delta, zeta)     its numbers there, and ζ; v as in `apply`, not read by a scaling
//   is_rooted                  whether its rows are multiplied by G
//
// A face is made from the cone, its state and the scratch wherever it is used; it owns nothing
// and never allocates.
#pragma once

#include "../linalg/arena.hpp"
#include "central_path.hpp"
#include "exponential.hpp"
#include "kind.hpp"
#include "power.hpp"
#include "second_order.hpp"
#include "semidefinite.hpp"

namespace cvxlayer::CVXLAYER_ISA {

/// The faces of the kinds that are implemented; see `is_implemented`.
template <class L>
struct ScalingFaces {
  using SecondOrder = SecondOrderScaling<L>;
  using Exponential = ExponentialScaling<L>;
  using Power = PowerScaling<L>;
  using Semidefinite = SemidefiniteScaling<L>;
};

template <class L>
struct ProjectionFaces {
  using SecondOrder = SecondOrderProjection<L>;
  using Exponential = ExponentialProjection<L>;
  using Power = PowerProjection<L>;
  using Semidefinite = SemidefiniteProjection<L>;
};

/// Every curved cone of a product with one of its faces: state of each, scratch for the one
/// at work.
template <class L, template <class> class Faces>
struct CurvedCones {
  using V = typename L::V;

  const CurvedCone* cones;
  int count;
  long* offset;  // of each cone in `state`
  V *state, *scratch;

  void lay_out(const CurvedCone* all, int number, Arena& arena) {
    cones = all;
    count = number;
    offset = arena.take<long>(count);
    long total = 0, largest = 0;
    for (int k = 0; k < count; ++k) {
      if (offset != nullptr) offset[k] = total;
      with_face<true>(cones[k], nullptr, nullptr, [&](const auto& face) {
        total += face.state_size();
        if (face.scratch_size() > largest) largest = face.scratch_size();
      });
    }
    state = arena.take<V>(total);
    scratch = arena.take<V>(largest);
  }

  /// Call body(k, face) for the cones whose rows are eliminated by hand.
  template <class Body>
  CVXLAYER_INLINE void for_each_condensed(const Body& body) const {
    for (int k = 0; k < count; ++k) {
      if (!cones[k].is_condensed()) continue;
      body(k, typename Faces<L>::Semidefinite{cones[k], state + offset[k], scratch});
    }
  }

  /// Call body(k, face) for the large second-order cones.
  template <class Body>
  CVXLAYER_INLINE void for_each_bordered(const Body& body) const {
    for (int k = 0; k < count; ++k) {
      if (!cones[k].is_bordered) continue;
      body(k, typename Faces<L>::SecondOrder{cones[k], state + offset[k], scratch});
    }
  }

  /// Call body(face) for every cone, in order; `face.cone` says which one.
  template <class Body>
  CVXLAYER_INLINE void for_each(const Body& body) const {
    for (int k = 0; k < count; ++k) with_face<true>(cones[k], state + offset[k], scratch, body);
  }

  /// Only those that have a block in the matrix.
  template <class Body>
  CVXLAYER_INLINE void for_each_block(const Body& body) const {
    for (int k = 0; k < count; ++k) {
      if (cones[k].has_block()) with_face<false>(cones[k], state + offset[k], scratch, body);
    }
  }

 private:
  template <bool also_condensed, class Body>
  static CVXLAYER_INLINE void with_face(const CurvedCone& cone, V* state, V* scratch,
                                        const Body& body) {
    switch (cone.kind) {
      case ConeKind::kSecondOrder:
        return body(typename Faces<L>::SecondOrder{cone, state, scratch});
      case ConeKind::kExponential:
        return body(typename Faces<L>::Exponential{cone, state, scratch});
      case ConeKind::kPower:
        return body(typename Faces<L>::Power{cone, state, scratch});
      case ConeKind::kSemidefinite:
        if constexpr (also_condensed) body(typename Faces<L>::Semidefinite{cone, state, scratch});
        return;
      default:
        return;  // refused before an engine is built
    }
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
