// SPDX-License-Identifier: Apache-2.0
//
// How regular W points of differentiation are: where they lie in the cones, and the extreme
// singular values of K, from a few power iterations with K and with its factors.
#pragma once

#include "path.hpp"

namespace cvxlayer::CVXLAYER_ISA {

constexpr int kPowerSteps = 4;       // for a singular value within a factor
constexpr double kSingular = 1e-11;  // of the largest singular value: what rounding leaves
constexpr double kLeastSize = 1e-6;  // of a solution, below which its margins are absolute
constexpr double kNoise = 1e-8;      // of a null vector, in what stands for its zeros

template <class L>
struct RegularityLinearization : protected PathLinearization<L> {
  using Base = PathLinearization<L>;
  using Base::apply_root;
  using Base::c_m;
  using Base::c_n;
  using Base::data;
  using Base::kkt;
  using Base::multiply;
  using Base::norm;
  using Base::r_m;
  using Base::r_n;
  using Base::structure;
  using Base::t_m;
  using Base::u_m;
  using Base::u_n;
  using Base::v;
  using Base::valid;
  using Base::x;
  using typename Base::M;
  using typename Base::O;
  using typename Base::V;

  /// Of the matrix that was factorized last; overwrites the answers.
  void measure_regularity(const ProblemData& problem, const RegularityData& io, long first,
                          int count) {
    const V largest = iterate([this] { multiply(u_n, u_m, r_n, r_m); });
    const V smallest = iterate([this] {
      for (int j = 0; j < structure->n; ++j) r_n[j] = u_n[j];
      for (int i = 0; i < structure->m; ++i) r_m[i] = u_m[i];
      kkt.solve_in_place(r_n, r_m);
    });
    store_regularity(problem, io, largest, smallest, first, count);
  }

 private:
  /// ‖K u‖ for the unit vector u that a few power iterations with `step`, (u_n, u_m) ↦ (r_n, r_m),
  /// lead to from scattered numbers.
  template <class Step>
  V iterate(const Step& step) {
    const auto scattered = [](int k) {
      const std::uint32_t mixed = (static_cast<std::uint32_t>(k) + 1u) * 2654435769u;
      return O::splat((mixed >> 8) * (1.0 / 16777216.0) - 0.5);
    };
    for (int j = 0; j < structure->n; ++j) u_n[j] = scattered(j);
    for (int i = 0; i < structure->m; ++i) u_m[i] = scattered(structure->n + i);
    for (int pass = 0; pass < kPowerSteps; ++pass) {
      step();
      const V scale = 1.0 / O::max(length(r_n, r_m), O::splat(1e-300));
      for (int j = 0; j < structure->n; ++j) u_n[j] = scale * r_n[j];
      for (int i = 0; i < structure->m; ++i) u_m[i] = scale * r_m[i];
    }
    multiply(u_n, u_m, c_n, c_m);
    return length(c_n, c_m);
  }

  V length(const V* a, const V* b) const {
    V total{};
    for (int j = 0; j < structure->n; ++j) total += a[j] * a[j];
    for (int i = 0; i < structure->m; ++i) total += b[i] * b[i];
    return O::sqrt(total);
  }

  /// (u_n, u_m), the answer of the inverse iteration, is a null vector where `smallest` is next to
  /// nothing; elsewhere zeros are written in its place.
  void store_regularity(const ProblemData& problem, const RegularityData& io, V largest, V smallest,
                        long first, int count) {
    const StructureView& view = *structure;
    const V size = O::max(O::max(norm(x, v), norm(data.q, data.b)), O::splat(kLeastSize));
    const M singular = valid & ~O::gt(smallest, kSingular * largest);
    apply_root(u_m, t_m);
    const V noise = kNoise * norm(u_n, t_m);
    const auto clean = [&](V value, V factor) {
      return O::select(singular & O::gt(O::abs(value), noise), factor * value, V{});
    };
    store_rows<L>(io.null_x, first, count, view.n,
                  [&](int j) { return clean(u_n[j], data.cost * data.d[j]); });
    store_rows<L>(io.null_y, first, count, view.m, [&](int i) { return clean(t_m[i], data.e[i]); });
    store_rows<L>(io.factors, first, count, view.n + view.m,
                  [&](int k) { return k < view.n ? data.d[k] : data.e[k - view.n]; });
    store_rows<L>(io.position, first, count, view.m,
                  [&](int i) { return O::select(valid, v[i] / size, V{}); });
    for (int lane = 0; lane < count; ++lane) {
      const long row = first + lane;
      io.cost[row] = O::get(data.cost, lane);
      io.largest[row] = O::get(largest, lane);
      io.smallest[row] = O::get(smallest, lane);
      for (int i = view.num_zero; i < view.num_linear; ++i) {
        const bool absent = O::get_mask(valid, lane) && __builtin_isinf(problem.b.at(row, i));
        if (absent) io.position.at(row, i) = -__builtin_inf();
      }
    }
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
