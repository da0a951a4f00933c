// SPDX-License-Identifier: Apache-2.0
//
// Arrays of Python as rows of the core, their shapes checked.
#pragma once

#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>

#include <optional>
#include <string>

#include "../batch/engine.hpp"

namespace cvxlayer {

namespace nb = nanobind;

using Matrix = nb::ndarray<const double, nb::ndim<2>, nb::device::cpu>;
using MutableMatrix = nb::ndarray<double, nb::ndim<2>, nb::device::cpu>;
using Indices = nb::ndarray<const std::int64_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Weights = nb::ndarray<const double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Codes = nb::ndarray<std::int8_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using CodeMatrix = nb::ndarray<std::int8_t, nb::ndim<2>, nb::device::cpu>;
using Counts = nb::ndarray<std::int32_t, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Reals = nb::ndarray<double, nb::ndim<1>, nb::c_contig, nb::device::cpu>;
using Table = nb::ndarray<const double, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using MutableTable = nb::ndarray<double, nb::ndim<2>, nb::c_contig, nb::device::cpu>;
using Stack = nb::ndarray<const double, nb::ndim<3>, nb::c_contig, nb::device::cpu>;
using MutableStack = nb::ndarray<double, nb::ndim<3>, nb::c_contig, nb::device::cpu>;

[[noreturn]] inline void refuse(const std::string& name, size_t rows, size_t columns) {
  throw nb::value_error(("native engine: `" + name + "` must have shape (" + std::to_string(rows) +
                         ", " + std::to_string(columns) + ")")
                            .c_str());
}

template <class T, class Array>
Rows<T> rows_of(const Array& array, const char* name, long batch, long columns) {
  const auto rows = static_cast<long>(array.shape(0));
  if (static_cast<long>(array.shape(1)) != columns || (rows != batch && rows != 1)) {
    refuse(name, static_cast<size_t>(batch), static_cast<size_t>(columns));
  }
  const bool shared = rows == 1 && batch != 1;
  return {array.data(), shared ? 0 : array.stride(0), array.stride(1)};
}

template <class T, class Array>
Rows<T> optional_rows(const std::optional<Array>& array, const char* name, long batch,
                      long columns) {
  if (!array.has_value()) return {nullptr, 0, 0};
  return rows_of<T>(*array, name, batch, columns);
}

template <class Array>
void check_length(const Array& array, const char* name, long batch) {
  if (static_cast<long>(array.shape(0)) != batch) refuse(name, static_cast<size_t>(batch), 1);
}

inline ProblemData problem_of(const Engine& engine, long batch, const Matrix& P, const Matrix& q,
                              const Matrix& A, const Matrix& b) {
  const StructureView& view = engine.structure().view();
  return {rows_of<const double>(P, "P", batch, view.num_P),
          rows_of<const double>(q, "q", batch, view.n),
          rows_of<const double>(A, "A", batch, view.num_A),
          rows_of<const double>(b, "b", batch, view.m)};
}

/// Where the scale factors of a batch are: one row (d, e) if P and A are shared.
inline Scaling scaling_of(const Engine& engine, const ProblemData& problem, long batch,
                          const MutableTable& scale, const Reals& cost) {
  const StructureView& view = engine.structure().view();
  const Rows<double> rows = rows_of<double>(scale, "scale", batch, view.n + view.m);
  check_length(cost, "cost", batch);
  const bool is_once = batch > 0 && rows.is_shared();  // strides of no rows say nothing
  if (is_once && !(problem.P.is_shared() && problem.A.is_shared())) {
    refuse("scale", static_cast<size_t>(batch), static_cast<size_t>(view.n + view.m));
  }
  return {rows.start, rows.row_stride, cost.data(), nullptr};
}

inline Scaling optional_scaling(const Engine& engine, const ProblemData& problem, long batch,
                                const std::optional<MutableTable>& scale,
                                const std::optional<Reals>& cost) {
  if (!scale.has_value() || !cost.has_value()) return Scaling{};
  return scaling_of(engine, problem, batch, *scale, *cost);
}

}  // namespace cvxlayer
