// SPDX-License-Identifier: Apache-2.0
//
// W solutions, equilibrated and with their active rows, and how their points project onto the
// dual cone: what the matrix of the derivative is found from.
#pragma once

#include "../batch/kernels.hpp"
#include "../cones/curved.hpp"
#include "../hsde/status.hpp"
#include "../kkt/system.hpp"

namespace cvxlayer::CVXLAYER_ISA {

template <class L>
struct Points {
  using V = typename L::V;
  using M = typename L::M;
  using O = Ops<L>;
  static constexpr int W = L::width;

  const StructureView* structure;
  ScaledData<L> data;
  KktSystem<L, ProjectionFaces> kkt;
  V *x, *v, *y;         // primal, v = y − s, and y = Π(v)
  V *root, *stiffness;  // S of linear rows, 0 or 1; on the central path between, with 1 − S²
  CurvedCones<L, ProjectionFaces> curved;
  V* column;  // one column of A inside one curved cone
  V *u_n, *u_m, *r_n, *r_m, *c_n, *c_m, *t_n, *t_m, *trial_x, *trial_v;
  V* slack_of_row;
  double* dense;  // scratch of the reduction: rows × n, multipliers
  bool* flags;
  M valid, unclassified;
  // Whether projections onto curved cones that are found by iteration know where to begin: at the
  // pair (s, y) that was loaded, then where they ended last.
  bool starts_nearby;
  V residual_norm;
  V smoothing;           // μ of lanes whose curved cones are taken on the central path, 0 elsewhere
  bool on_path = false;  // all cones in all lanes, see central_path.hpp
  bool factor_lags;      // it is of the last point, D and S are of this one

  void lay_out(const StructureView& view, Arena& arena) {
    structure = &view;
    data.lay_out(view, arena);
    kkt.lay_out(view, view.adjoint, curved, arena);
    V** const of_n[] = {&x, &u_n, &r_n, &c_n, &t_n, &trial_x};
    for (V** pointer : of_n) *pointer = arena.take<V>(view.n);
    V** const of_m[] = {&v, &y, &root, &stiffness, &u_m, &r_m, &c_m, &t_m, &trial_v, &slack_of_row};
    for (V** pointer : of_m) *pointer = arena.take<V>(view.m);
    int largest = 0;
    for (int k = 0; k < view.num_cones; ++k) {
      if (view.cones[k].size > largest) largest = view.cones[k].size;
    }
    column = arena.take<V>(largest);
    curved.lay_out(view.cones, view.num_cones, arena);
    dense = arena.take<double>(static_cast<long>(view.n) + 2L * view.m);
    flags = arena.take<bool>(2L * view.m);
  }

  int num_linear() const { return structure->num_linear; }

  /// Instances first, …, first + count − 1 (count ≤ W). `matrices_ready`: A and its scaling
  /// are shared by the batch and in every lane since the last group.
  void load(const ProblemData& problem, const Scaling& scaling, const AdjointData& io, long first,
            int count, bool matrices_ready) {
    valid = O::none();
    smoothing = V{};
    const LaneRows<W> lanes(first, count);
    data.load_lanes(problem, scaling, lanes, matrices_ready);
    for (int lane = 0; lane < W; ++lane) {
      const auto status = static_cast<Status>(io.status[lanes.row[lane]]);
      const bool ok = lane < count && (status == Status::kSolved || status == Status::kInaccurate ||
                                       status == Status::kProvisional);
      O::set_mask(valid, lane, ok);
    }
    load_points(io, lanes);
    load_activity(io, lanes);
    start_nearby(slack_of_row, y);
  }

  void load_points(const AdjointData& io, const LaneRows<W>& lanes) {
    const StructureView& view = *structure;
    load_rows<L>(io.x, lanes, view.n,
                 [&](int j, V value) { x[j] = O::select(valid, value / data.d[j], V{}); });
    load_rows<L>(io.y, lanes, view.m, [&](int i, V value) {
      y[i] = O::select(valid, data.cost * value / data.e[i], V{});
    });
    load_rows<L>(io.s, lanes, view.m, [&](int i, V value) {
      // The slack of an infinite bound is infinite; its row was erased when loaded.
      const M counts = valid & O::is_finite(value);
      slack_of_row[i] = O::select(counts, data.e[i] * value, O::splat(1.0));
      v[i] = y[i] - slack_of_row[i];
    });
  }

  /// The next projections onto curved cones that are found by iteration begin at the pair (s, y).
  void start_nearby(const V* s, const V* dual) {
    curved.for_each([&](const auto& face) {
      const int start = face.cone.start;
      if constexpr (requires { face.start_nearby(s, dual); }) {
        face.start_nearby(s + start, dual + start);
      }
    });
    starts_nearby = true;
  }

  void load_activity(const AdjointData& io, const LaneRows<W>& lanes) {
    unclassified = O::none();
    for (int i = 0; i < num_linear(); ++i) {
      const V found = O::gather(
          [&](int lane) { return static_cast<double>(io.is_active.at(lanes.row[lane], i)); });
      const V known = O::select(valid, found, V{});
      unclassified = unclassified | O::lt(known, V{});
      const M active = i < structure->num_zero ? ~O::none() : O::gt(known, V{});
      root[i] = O::select(active, O::splat(1.0), V{});
    }
  }

  /// μ = sᵀy over the degree, of the curved cones at the point that was loaded.
  V curved_complementarity() const {
    V inner{};
    for (int i = num_linear(); i < structure->m; ++i) inner += slack_of_row[i] * y[i];
    const int degree = structure->degree - (num_linear() - structure->num_zero);
    return inner * (1.0 / (degree > 0 ? degree : 1));
  }

  /// Move linear rows onto the piece they belong to: v = y if active, −s if not.
  void settle_rows() {
    for (int i = 0; i < num_linear(); ++i) {
      v[i] = O::select(O::gt(root[i], V{}), y[i], -slack_of_row[i]);
    }
  }

  /// out = Π(point), onto K*; equality rows dropped by the reduction stay at zero.
  void project(const V* point, V* out) const {
    project_linear_rows(point, out);
    curved.for_each([&](const auto& face) {
      const int start = face.cone.start;
      if constexpr (requires { face.project_nearby(point, out); }) {
        if (starts_nearby) return face.project_nearby(point + start, out + start);
      }
      face.project(point + start, out + start);
    });
  }

  /// The same at v, where the cones are decomposed.
  void project_linearized(V* out) const {
    project_linear_rows(v, out);
    curved.for_each([&](const auto& face) {
      const int start = face.cone.start;
      if constexpr (requires { face.project_decomposed(v, out); }) {
        return face.project_decomposed(v + start, out + start);
      }
      face.project(v + start, out + start);
    });
  }

  void project_linear_rows(const V* point, V* out) const {
    const StructureView& view = *structure;
    for (int i = 0; i < view.num_zero; ++i) out[i] = root[i] * point[i];
    for (int i = view.num_zero; i < num_linear(); ++i) out[i] = O::max(point[i], V{});
  }

  V norm(const V* a, const V* b) const {
    V largest{}, total{};  // the maximum overlooks NaN, the sum does not
    for (int j = 0; j < structure->n; ++j) {
      largest = O::max(largest, O::abs(a[j]));
      total += a[j];
    }
    for (int i = 0; i < structure->m; ++i) {
      largest = O::max(largest, O::abs(b[i]));
      total += b[i];
    }
    return O::select(O::is_finite(total), largest, O::splat(__builtin_inf()));
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
