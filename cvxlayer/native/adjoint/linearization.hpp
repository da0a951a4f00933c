// SPDX-License-Identifier: Apache-2.0
//
// W solutions, the piece of the solution map each lies on, and the matrix of its derivative
//
//     K = [P AᵀS; SA −(I − D)],   D = DΠ_{K*}(v),  S = D^{1/2},  v = y − s
//
// with what moves a point within its piece: classification, the reduction of dependent rows,
// and the semismooth Newton step (Busseti, Moursi & Boyd, COAP 74, 2019).
#pragma once

#include "lane_residuals.hpp"
#include "points.hpp"
#include "reduce.hpp"

namespace cvxlayer::CVXLAYER_ISA {

constexpr double kAdjointRegularization = 1e-8;
constexpr double kRefinedResidual = 1e-13;
constexpr double kRounded = 1e-15;      // of the size of an answer: what its product is rounded by
constexpr double kTinyIterate = 1e-14;  // below, an outside solver's zero
constexpr double kDependent = 1e5;      // size of a probe's answer that reveals a null vector
constexpr double kVanishing = 1e-100;   // an entry of a scaled row that is zero
constexpr int kMaxRefinements = 60;     // few need more than three
constexpr double kStagnation = 0.9;     // near the regularization corrections shrink slowly
constexpr double kNearlyRefined = 1e-10, kSmallStagnation = 0.5;
constexpr double kPolished = 1e-12;  // a residual not worth another step

template <class L>
struct Linearization : protected Points<L> {
  using Base = Points<L>;
  using Base::c_m;
  using Base::c_n;
  using Base::column;
  using Base::curved;
  using Base::data;
  using Base::dense;
  using Base::factor_lags;
  using Base::flags;
  using Base::kkt;
  using Base::norm;
  using Base::num_linear;
  using Base::on_path;
  using Base::project;
  using Base::project_linearized;
  using Base::r_m;
  using Base::r_n;
  using Base::residual_norm;
  using Base::root;
  using Base::slack_of_row;
  using Base::smoothing;
  using Base::starts_nearby;
  using Base::stiffness;
  using Base::structure;
  using Base::t_m;
  using Base::t_n;
  using Base::trial_v;
  using Base::trial_x;
  using Base::u_m;
  using Base::u_n;
  using Base::unclassified;
  using Base::v;
  using Base::valid;
  using Base::x;
  using Base::y;
  using typename Base::M;
  using typename Base::O;
  using typename Base::V;

  /// Active rows of lanes whose solver did not say, from one affine step at (s, y): with
  /// Δs/s = −1 − Δy/y, a row is active when |Δs|/s > |Δy|/y, whatever its scale.
  void classify() {
    const StructureView& view = *structure;
    kkt.begin_assembly(data.P, data.A, O::splat(kAdjointRegularization));
    const V tiny = O::splat(kTinyIterate);
    auto ratio = [&](int i) {
      return i < view.num_zero ? V{} : O::max(slack_of_row[i], tiny) / O::max(y[i], tiny);
    };
    for (int i = 0; i < num_linear(); ++i) {
      if (view.adjoint.row_position[i] >= 0) kkt.set_row_diagonal(i, ratio(i));
    }
    kkt.copy_A();
    for (int k = 0; k < view.num_linear_singletons; ++k) {
      kkt.add_singleton(k, data.A[view.singleton_entry[k]], ratio(view.singleton_row[k]));
    }
    linearize_curved_cones();
    kkt.factor.factorize(O::splat(kAdjointRegularization));

    data.multiply_P(x, r_n);
    data.multiply_At(y, t_n);
    for (int j = 0; j < view.n; ++j) r_n[j] = -(r_n[j] + t_n[j] + data.q[j]);
    data.multiply_A(x, t_m);
    for (int i = 0; i < num_linear(); ++i) r_m[i] = data.b[i] - t_m[i];
    for (int i = num_linear(); i < view.m; ++i) t_m[i] = data.b[i] - t_m[i] - slack_of_row[i];
    curved.for_each([&](const auto& face) {
      const int start = face.cone.start;
      face.apply_root(v + start, t_m + start, r_m + start);
    });
    kkt.solve_in_place(r_n, r_m);
    for (int i = view.num_zero; i < num_linear(); ++i) {
      const M active = O::gt(r_m[i], -0.5 * O::max(y[i], tiny));
      root[i] = O::select(unclassified, O::select(active, O::splat(1.0), V{}), root[i]);
    }
  }

  // -------------------------------------------------------------------------- the matrix K
  /// 1 − D of a linear row.
  CVXLAYER_INLINE V rest(int i) const { return on_path ? stiffness[i] : 1.0 - root[i]; }

  template <class Face>
  CVXLAYER_INLINE void decompose(const Face& face) const {
    if (on_path) return CentralPath<L>::decompose(face, v + face.cone.start, smoothing);
    if constexpr (requires { face.decompose_nearby(v); }) {
      if (starts_nearby) return face.decompose_nearby(v + face.cone.start);
    }
    face.decompose(v + face.cone.start, face.cone.is_bordered ? V{} : smoothing);
  }

  void linearize() {
    const StructureView& view = *structure;
    kkt.begin_assembly(data.P, data.A, O::splat(kAdjointRegularization));
    for (int i = 0; i < num_linear(); ++i) {
      if (view.adjoint.row_position[i] >= 0) kkt.set_row_diagonal(i, rest(i));
    }
    kkt.write_rooted_A(root, !on_path);
    for (int k = 0; k < view.num_linear_singletons; ++k) {
      const int i = view.singleton_row[k];
      kkt.add_singleton(k, data.A[view.singleton_entry[k]] * root[i], rest(i));
    }
    linearize_curved_cones();
    kkt.factor.factorize(O::splat(kAdjointRegularization));
    factor_lags = false;
  }

  /// Find D and S of every curved cone where v has moved by little, and keep the factor: refinement
  /// makes up for what has changed as it does for δ, or tells that it cannot.
  void follow_curved_cones() {
    if (structure->has_condensed) return linearize();  // whose solves need more than the factor
    curved.for_each([&](const auto& face) { decompose(face); });
    starts_nearby = !on_path;
    factor_lags = true;
  }

  /// Find D and S of every curved cone, and write D − I and the rows of SA.
  void linearize_curved_cones() {
    const StructureView& view = *structure;
    const long* entry = view.adjoint.block;
    const long* target = view.adjoint.mixed_entry;
    const int* source = view.mixed_source;
    curved.for_each_block([&](const auto& face) {
      const V* point = v + face.cone.start;
      decompose(face);
      face.write_block(point, [&](V value, bool is_diagonal) {
        const V identity = O::splat(is_diagonal ? 1.0 + kAdjointRegularization : 0.0);
        kkt.factor.storage[*entry++] = value - identity;
      });
      const int size = face.cone.size;
      const int* columns = view.mixed_start + (&face.cone - view.cones);
      for (int c = columns[0]; c < columns[1]; ++c, source += size, target += size) {
        for (int a = 0; a < size; ++a) column[a] = source[a] < 0 ? V{} : data.A[source[a]];
        face.apply_root(point, column, column);
        for (int a = 0; a < size; ++a) kkt.factor.storage[target[a]] = column[a];
      }
    });
    curved.for_each_condensed([&](int, const auto& face) { decompose(face); });
    starts_nearby = !on_path;
    kkt.add_condensed();
    curved.for_each_bordered([&](int, const auto& face) { decompose(face); });
    kkt.add_bordered(v);
  }

  /// out = S u.
  void apply_root(const V* u, V* out) const {
    for (int i = 0; i < num_linear(); ++i) out[i] = root[i] * u[i];
    curved.for_each([&](const auto& face) {
      const int start = face.cone.start;
      face.apply_root(v + start, u + start, out + start);
    });
  }

  /// (out_n, out_m) = K (u, eta); uses t_n, t_m.
  void multiply(const V* u, const V* eta, V* out_n, V* out_m) {
    const StructureView& view = *structure;
    apply_root(eta, t_m);
    data.multiply_both(u, out_m, t_m, t_n);
    data.multiply_P(u, out_n);
    for (int j = 0; j < view.n; ++j) out_n[j] += t_n[j];
    apply_root(out_m, out_m);
    for (int i = 0; i < num_linear(); ++i) out_m[i] -= rest(i) * eta[i];
    curved.for_each([&](const auto& face) {
      const int start = face.cone.start;
      face.apply(v + start, eta + start, t_m + start);
    });
    for (int i = num_linear(); i < view.m; ++i) out_m[i] += t_m[i] - eta[i];
  }

  /// Solve K (u_n, u_m) = (b_n, b_m), refined against K itself; returns the relative residual.
  V solve_refined(const V* b_n, const V* b_m) {
    const StructureView& view = *structure;
    for (int j = 0; j < view.n; ++j) r_n[j] = b_n[j];
    for (int i = 0; i < view.m; ++i) r_m[i] = b_m[i];
    kkt.solve_in_place(r_n, r_m);
    return refine_answer(b_n, b_m);
  }

  /// The same from the first answer to it, which is in (r_n, r_m).
  V refine_answer(const V* b_n, const V* b_m) {
    const StructureView& view = *structure;
    for (int j = 0; j < view.n; ++j) u_n[j] = V{};
    for (int i = 0; i < view.m; ++i) u_m[i] = V{};
    const V size = O::max(norm(b_n, b_m), O::splat(1e-300));
    V residual = O::splat(1.0);
    M running = valid;
    for (int pass = 0; pass < kMaxRefinements && O::any(running); ++pass) {
      if (pass > 0) kkt.solve_in_place(r_n, r_m);
      add_correction(running, 1.0);
      multiply(u_n, u_m, c_n, c_m);
      for (int j = 0; j < view.n; ++j) c_n[j] = b_n[j] - c_n[j];
      for (int i = 0; i < view.m; ++i) c_m[i] = b_m[i] - c_m[i];
      const V reached = norm(c_n, c_m) / size;
      const M improved = O::lt(reached, residual);
      // A step that did not help is taken back.
      const M worse = running & ~improved;
      if (O::any(worse)) add_correction(worse, -1.0);
      // Close to rounding level nothing contracts slowly for another reason than rounding.
      const M is_small = O::lt(reached, O::splat(kNearlyRefined));
      const V least = O::select(is_small, O::splat(kSmallStagnation), O::splat(kStagnation));
      const M stagnates = O::gt(reached, residual * least);
      residual = O::select(running & improved, reached, residual);
      const V rounded = O::max(O::splat(kRefinedResidual), kRounded * norm(u_n, u_m) / size);
      running = running & improved & ~stagnates & O::gt(residual, rounded);
      for (int j = 0; j < view.n; ++j) r_n[j] = c_n[j];
      for (int i = 0; i < view.m; ++i) r_m[i] = c_m[i];
    }
    return residual;
  }

  /// (u_n, u_m) += sign · (r_n, r_m) in the chosen lanes.
  void add_correction(M chosen, double sign) {
    for (int j = 0; j < structure->n; ++j) u_n[j] += O::select(chosen, sign * r_n[j], V{});
    for (int i = 0; i < structure->m; ++i) u_m[i] += O::select(chosen, sign * r_m[i], V{});
  }

  // ------------------------------------------------------------------------- degenerate rows
  /// The size of the probe's answer on the rows tells which lanes to look at; see `probe`.
  bool reduce_dependent_rows(const V* answer, int count) {
    V largest{};
    for (int i = 0; i < num_linear(); ++i) largest = O::max(largest, O::abs(answer[i] * root[i]));
    const M suspicious = valid & ~O::lt(largest, O::splat(kDependent));
    if (!O::any(suspicious)) return false;
    bool changed = false;
    for (int lane = 0; lane < count; ++lane) {
      if (O::get_mask(suspicious, lane)) changed |= reduce_lane(lane);
    }
    return changed;
  }

  bool reduce_lane(int lane) {
    const StructureView& view = *structure;
    int count = 0;
    for (int i = 0; i < num_linear(); ++i) count += O::get(root[i], lane) != 0.0;
    ActiveRows rows(count, view.n, view.num_A);
    double* multiplier = dense;
    bool *is_equality = flags, *is_kept = flags + view.m;
    int next = 0;
    for (int i = 0; i < num_linear(); ++i) {
      if (O::get(root[i], lane) == 0.0) continue;
      for (int t = view.row_start[i]; t < view.row_start[i + 1]; ++t) {
        const double entry = O::get(data.A[view.row_entry[t]], lane);
        // What is next to nothing underflows when it is squared.
        if (__builtin_fabs(entry) > kVanishing) rows.add(view.row_column[t], entry);
      }
      rows.close_row();
      is_equality[next] = i < view.num_zero;
      multiplier[next++] = O::get(v[i], lane);
    }
    const int dropped = reduce_active_rows(rows, is_equality, multiplier, is_kept);
    next = 0;
    for (int i = 0; i < num_linear(); ++i) {
      if (O::get(root[i], lane) == 0.0) continue;
      O::set(v[i], lane, multiplier[next]);
      if (!is_kept[next]) O::set(root[i], lane, 0.0);
      ++next;
    }
    return dropped > 0;
  }

  // ---------------------------------------------------------------------------------- polish
  /// (out_n, out_m) = (Px + Aᵀy + q, Ax + y − v − b) with y = Π(v); returns its norm.
  V residual_map(const V* primal, const V* point, V* dual, V* out_n, V* out_m) {
    project(point, dual);
    return residual_at(primal, point, dual, out_n, out_m);
  }

  V residual_at(const V* primal, const V* point, const V* dual, V* out_n, V* out_m) {
    const StructureView& view = *structure;
    data.multiply_P(primal, out_n);
    data.multiply_both(primal, out_m, dual, t_n);
    for (int j = 0; j < view.n; ++j) out_n[j] += t_n[j] + data.q[j];
    for (int i = 0; i < view.m; ++i) out_m[i] += dual[i] - point[i] - data.b[i];
    return norm(out_n, out_m);
  }

  /// Scattered numbers on the active linear rows. A right-hand side with a component along a
  /// null vector of K is answered by one of size 1/δ, so they reveal dependent rows.
  CVXLAYER_INLINE V probe(int i) const {
    const std::uint32_t mixed = (static_cast<std::uint32_t>(i) + 1u) * 2654435769u;
    return root[i] * (0.5 + (mixed >> 8) * (1.0 / 16777216.0));
  }

  /// (u_n, u_m) solves K u = −(r₁, S r₂) at (x, v), where K was found and whose residual (r₁, r₂)
  /// stays in (trial_x, trial_v) and its norm in `residual_norm`. With `probing`, (r_n, r_m) is the
  /// answer to the probe.
  void find_newton_step(bool probing) {
    measure_point();
    solve_newton_step(probing);
  }

  void measure_point() {
    project_linearized(y);
    residual_norm = residual_at(x, v, y, trial_x, trial_v);
  }

  void solve_newton_step(bool probing) {
    apply_root(trial_v, c_m);
    const auto top = [this](int c, int j) { return c == 0 ? -trial_x[j] : V{}; };
    const auto bottom = [this](int c, int i) {
      return c == 0 ? -c_m[i] : i < num_linear() ? probe(i) : V{};
    };
    if (probing) {
      kkt.template solve<2>(top, bottom, {u_n, r_n}, {u_m, r_m});
    } else {
      kkt.template solve<1>(top, bottom, {u_n}, {u_m});
    }
  }

  /// The semismooth Newton step from a measured point, kept where its residual is below `before`.
  /// Returns where.
  M take_newton_step(V before) {
    const StructureView& view = *structure;
    data.multiply_A(u_n, c_m);
    apply_root(u_m, t_m);
    for (int i = 0; i < view.m; ++i) trial_v[i] = v[i] + t_m[i] + c_m[i] + trial_v[i];
    for (int j = 0; j < view.n; ++j) trial_x[j] = x[j] + u_n[j];
    const V after = residual_map(trial_x, trial_v, u_m, c_n, c_m);
    const M better = valid & O::lt(after, before) & O::gt(before, O::splat(kPolished));
    for (int j = 0; j < view.n; ++j) x[j] = O::select(better, trial_x[j], x[j]);
    for (int i = 0; i < view.m; ++i) {
      v[i] = O::select(better, trial_v[i], v[i]);
      y[i] = O::select(better, u_m[i], y[i]);
    }
    residual_norm = O::select(better, after, residual_norm);
    return better;
  }

  // --------------------------------------------------------------------------------- answers
  struct Objective {
    V value, gap;  // |½xᵀPx + qᵀx| and |xᵀPx + qᵀx + bᵀy|, in the user's units
  };

  /// At (x, y); uses t_n.
  Objective evaluate_objective() {
    const StructureView& view = *structure;
    data.multiply_P(x, t_n);
    const V quadratic = dot(x, t_n, view.n), linear = dot(data.q, x, view.n);
    return {O::abs(0.5 * quadratic + linear) / data.cost,
            O::abs(quadratic + linear + dot(data.b, y, view.m)) / data.cost};
  }

  /// The residuals (top, bottom) of one lane in the user's units, and whether they meet the
  /// tolerance, measured against the data alone.
  LaneResiduals measure_lane(const SolveSettings& settings, const Objective& objective,
                             const V* top, const V* bottom, int lane) const {
    const double k = O::get(data.cost, lane), unit = k > 1.0 ? 1.0 / k : 1.0;
    LaneResiduals reached{0.0, 0.0, O::get(objective.gap, lane), false};
    double b_norm = 0.0, q_norm = 0.0;
    for (int j = 0; j < structure->n; ++j) {
      const double unscale = O::get(data.inverse_kd[j], lane);
      reached.dual = larger(reached.dual, __builtin_fabs(O::get(top[j], lane)) * unscale);
      q_norm = larger(q_norm, __builtin_fabs(O::get(data.q[j], lane)) * unscale);
    }
    for (int i = 0; i < structure->m; ++i) {
      const double unscale = O::get(data.inverse_e[i], lane);
      const double size = __builtin_fabs(O::get(bottom[i], lane)) * unscale;
      reached.primal = larger(reached.primal, size);
      b_norm = larger(b_norm, __builtin_fabs(O::get(data.b[i], lane)) * unscale);
    }
    const double abs = settings.eps_abs, rel = settings.eps_rel;
    reached.meet_tolerance = reached.primal <= abs + rel * b_norm &&
                             reached.dual <= abs * unit + rel * q_norm &&
                             reached.gap <= abs * unit + rel * O::get(objective.value, lane);
    return reached;
  }

  /// Write (x, y, s) of one lane, unscaled, and its residuals. Rows with an infinite bound
  /// constrain nothing.
  void store_lane(const ProblemData& problem, const SolveResults& results, long row, int lane,
                  const LaneResiduals& reached) const {
    const StructureView& view = *structure;
    const double k = O::get(data.cost, lane);
    for (int j = 0; j < view.n; ++j) {
      results.x.at(row, j) = O::get(data.d[j], lane) * O::get(x[j], lane);
    }
    for (int i = 0; i < view.m; ++i) {
      const bool inequality = i >= view.num_zero && i < view.num_linear;
      const bool absent = inequality && problem.b.at(row, i) == __builtin_inf();
      const double slack = O::get(y[i] - v[i], lane) * O::get(data.inverse_e[i], lane);
      results.y.at(row, i) = absent ? 0.0 : O::get(data.e[i], lane) * O::get(y[i], lane) / k;
      results.s.at(row, i) = absent ? __builtin_inf() : slack;
    }
    results.primal_residual[row] = reached.primal;
    results.dual_residual[row] = reached.dual;
    results.gap[row] = reached.gap;
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
