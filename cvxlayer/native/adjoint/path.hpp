// SPDX-License-Identifier: Apache-2.0
//
// W solutions moved onto the central path of one μ, where s = −μ∇f*(y), f* the barrier of K*:
// Newton's method on F(x, v) = (Px + AᵀΠ_μ(v) + q, Ax + Π_μ(v) − v − b) = 0, whose derivative is
// the matrix K of linearization.hpp with D = DΠ_μ(v). In the units of the program μ is given in,
// y s = μ; equilibrated, y s = kμ with k the scale of the cost. A row of zeros bounds nothing: its
// multiplier and its derivative vanish.
#pragma once

#include "linearization.hpp"

namespace cvxlayer::CVXLAYER_ISA {

constexpr int kMaxCenterSteps = 60;
constexpr int kMaxHalvings = 30;
constexpr double kCentered = 1e-14;       // of the size of the point: a residual that is rounding,
constexpr double kNearlyCentered = 1e-9;  // and one from which a step that halves it is the last
constexpr double kDecrease = 1e-4;        // of what the residual may fall by at most

template <class L>
struct PathLinearization : protected Linearization<L> {
  using Base = Linearization<L>;
  using Base::apply_root;
  using Base::c_m;
  using Base::c_n;
  using Base::curved;
  using Base::data;
  using Base::linearize;
  using Base::norm;
  using Base::num_linear;
  using Base::on_path;
  using Base::r_m;
  using Base::residual_norm;
  using Base::root;
  using Base::slack_of_row;
  using Base::smoothing;
  using Base::solve_refined;
  using Base::stiffness;
  using Base::structure;
  using Base::t_m;
  using Base::t_n;
  using Base::trial_v;
  using Base::trial_x;
  using Base::u_m;
  using Base::u_n;
  using Base::v;
  using Base::valid;
  using Base::x;
  using Base::y;
  using typename Base::M;
  using typename Base::O;
  using typename Base::V;
  using Path = CentralPath<L>;

  V *rhs_n, *rhs_m;  // a right-hand side

  void lay_out(const StructureView& view, Arena& arena) {
    Base::lay_out(view, arena);
    rhs_n = arena.take<V>(view.n);
    rhs_m = arena.take<V>(view.m);
  }

  /// From solutions that were loaded to the points (x, y, v) of the path.
  void center(double mu) {
    begin_path(mu);
    for (int i = 0; i < structure->num_zero; ++i) v[i] = y[i];
    for (int i = structure->num_zero; i < structure->m; ++i) v[i] = y[i] - slack_of_row[i];
    residual_norm = path_residual(x, v, y, trial_x, trial_v);
    M running = valid;
    for (int step = 0; step < kMaxCenterSteps && O::any(running); ++step) {
      linearize_path();
      find_step();
      const V before = residual_norm;
      const M moved = search(running);
      const V size = O::max(norm(x, v), norm(data.q, data.b));
      const M is_last = O::lt(before, kNearlyCentered * size) & ~O::lt(residual_norm, 0.5 * before);
      running = moved & ~is_last & O::gt(residual_norm, kCentered * size);
    }
  }

  /// What `load_linearization` left in v and, as ω, in t_m: points of the path.
  void load_path(double mu) {
    begin_path(mu);
    const V canonical = O::splat(mu);
    for (int i = structure->num_zero; i < num_linear(); ++i) y[i] = Path::project(v[i], canonical);
    curved.for_each([&](const auto& face) {
      Path::project(face, v + face.cone.start, canonical, y + face.cone.start);
    });
    for (int i = structure->num_zero; i < structure->m; ++i) {
      v[i] = data.cost * t_m[i] / data.e[i] * y[i] - data.e[i] / t_m[i] * (y[i] - v[i]);
    }
  }

  /// D, S and K at v.
  void linearize_path() {
    for (int i = 0; i < num_linear(); ++i) {
      root[i] = O::splat(1.0);
      stiffness[i] = V{};
      if (i < structure->num_zero) continue;
      V derivative, rest;
      Path::differentiate(v[i], smoothing, derivative, rest);
      const M is_empty = empty_row(i);
      root[i] = O::select(is_empty, V{}, O::sqrt(derivative));
      stiffness[i] = O::select(is_empty, O::splat(1.0), rest);
    }
    linearize();
  }

 private:
  void begin_path(double mu) {
    on_path = true;
    smoothing = O::select(valid, data.cost * mu, O::splat(1.0));
  }

  /// Lanes in which no entry of the row is anything but zero.
  M empty_row(int i) const {
    const StructureView& view = *structure;
    V largest{};
    for (int t = view.row_start[i]; t < view.row_start[i + 1]; ++t) {
      largest = O::max(largest, O::abs(data.A[view.row_entry[t]]));
    }
    return O::le(largest, V{});
  }

  void project_path(const V* point, V* out) const {
    for (int i = 0; i < structure->num_zero; ++i) out[i] = point[i];
    for (int i = structure->num_zero; i < num_linear(); ++i) {
      out[i] = O::select(empty_row(i), V{}, Path::project(point[i], smoothing));
    }
    curved.for_each([&](const auto& face) {
      Path::project(face, point + face.cone.start, smoothing, out + face.cone.start);
    });
  }

  /// F at (primal, point), its norm as the result, and y = Π_μ(point).
  V path_residual(const V* primal, const V* point, V* dual, V* out_n, V* out_m) {
    project_path(point, dual);
    data.multiply_P(primal, out_n);
    data.multiply_both(primal, out_m, dual, t_n);
    for (int j = 0; j < structure->n; ++j) out_n[j] += t_n[j] + data.q[j];
    for (int i = 0; i < structure->m; ++i) out_m[i] += dual[i] - point[i] - data.b[i];
    return norm(out_n, out_m);
  }

  /// The Newton step (dx, dv) into (u_n, r_m), from the residual in (trial_x, trial_v).
  void find_step() {
    apply_root(trial_v, rhs_m);
    for (int j = 0; j < structure->n; ++j) rhs_n[j] = -trial_x[j];
    for (int i = 0; i < structure->m; ++i) rhs_m[i] = -rhs_m[i];
    solve_refined(rhs_n, rhs_m);
    data.multiply_A(u_n, c_m);
    apply_root(u_m, t_m);
    for (int i = 0; i < structure->m; ++i) r_m[i] = t_m[i] + c_m[i] + trial_v[i];
  }

  /// Go along it, half as far until the residual falls; where it does not, stay. Newton's direction
  /// lowers the norm of a smooth F at first.
  M search(M running) {
    const StructureView& view = *structure;
    V length = O::splat(1.0);
    M searching = running, moved = O::none();
    for (int halving = 0; halving < kMaxHalvings && O::any(searching); ++halving) {
      for (int j = 0; j < view.n; ++j) trial_x[j] = x[j] + length * u_n[j];
      for (int i = 0; i < view.m; ++i) trial_v[i] = v[i] + length * r_m[i];
      const V after = path_residual(trial_x, trial_v, u_m, c_n, c_m);
      const M falls = searching & O::le(after, residual_norm * (1.0 - kDecrease * length));
      for (int j = 0; j < view.n; ++j) x[j] = O::select(falls, trial_x[j], x[j]);
      for (int i = 0; i < view.m; ++i) {
        v[i] = O::select(falls, trial_v[i], v[i]);
        y[i] = O::select(falls, u_m[i], y[i]);
      }
      residual_norm = O::select(falls, after, residual_norm);
      moved = moved | falls;
      searching = searching & ~falls;
      length = O::select(searching, 0.5 * length, V{});
    }
    residual_norm = path_residual(x, v, y, trial_x, trial_v);
    return moved;
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
