// SPDX-License-Identifier: Apache-2.0
//
// Python sees the classes `Engine` and `SparseMap`, those of `program.cpp`, and functions on
// arrays. Shapes and strides are checked here; arrays are not copied and the GIL is released while
// the core works.
#include <nanobind/nanobind.h>
#include <nanobind/ndarray.h>
#include <nanobind/stl/optional.h>
#include <nanobind/stl/string.h>
#include <nanobind/stl/tuple.h>
#include <nanobind/stl/vector.h>

#include <cmath>
#include <limits>
#include <optional>
#include <string>
#include <tuple>

#include "../batch/engine.hpp"
#include "../batch/inspect.hpp"
#include "../batch/sparse_map.hpp"
#include "arrays.hpp"
#include "program.hpp"
#include "registry.hpp"

namespace nb = nanobind;
using namespace nb::literals;

namespace cvxlayer {
namespace {

void solve(Engine& engine, long batch, Matrix P, Matrix q, Matrix A, Matrix b,
           std::optional<Indices> index, double eps_abs, double eps_rel, double eps_infeasible,
           int max_iterations, bool careful, bool polish, std::optional<Matrix> start_x,
           std::optional<Matrix> start_y, std::optional<Codes> is_usable, int threads, int width,
           MutableMatrix x, MutableMatrix y, MutableMatrix s, Codes status, Counts iterations,
           Reals primal_residual, Reals dual_residual, Reals gap, CodeMatrix is_active,
           MutableTable scale, Reals cost) {
  const StructureView& view = engine.structure().view();
  const ProblemData problem = problem_of(engine, batch, P, q, A, b);
  check_length(status, "status", batch);
  check_length(iterations, "iterations", batch);
  check_length(primal_residual, "primal_residual", batch);
  check_length(dual_residual, "dual_residual", batch);
  check_length(gap, "gap", batch);
  const SolveResults results{rows_of<double>(x, "x", batch, view.n),
                             rows_of<double>(y, "y", batch, view.m),
                             rows_of<double>(s, "s", batch, view.m),
                             status.data(),
                             iterations.data(),
                             primal_residual.data(),
                             dual_residual.data(),
                             gap.data(),
                             rows_of<std::int8_t>(is_active, "is_active", batch, view.m)};
  const SolveSettings settings{eps_abs,
                               eps_rel,
                               eps_infeasible,
                               max_iterations,
                               careful,
                               polish,
                               polish && !careful && !index.has_value(),
                               false};
  if (is_usable.has_value()) check_length(*is_usable, "is_usable", batch);
  const StartingPoints start{optional_rows<const double>(start_x, "start_x", batch, view.n),
                             optional_rows<const double>(start_y, "start_y", batch, view.m),
                             is_usable.has_value() ? is_usable->data() : nullptr};
  if (start.is_usable != nullptr && (start.x.start == nullptr || start.y.start == nullptr)) {
    throw nb::value_error("native engine: a starting point is x and y");
  }
  const std::int64_t* selected = index.has_value() ? index->data() : nullptr;
  const long count = index.has_value() ? static_cast<long>(index->shape(0)) : batch;
  for (long k = 0; selected != nullptr && k < count; ++k) {
    if (selected[k] < 0 || selected[k] >= batch) throw nb::value_error("native engine: bad index");
  }
  const Scaling scaling = scaling_of(engine, problem, batch, scale, cost);
  const nb::gil_scoped_release release;
  engine.solve(problem, batch, selected, count, settings, start, threads, width, scaling, results);
}

void pull_back(Engine& engine, long batch, Matrix P, Matrix q, Matrix A, Matrix b, Matrix x,
               Matrix y, Matrix s, Codes status, CodeMatrix is_active,
               std::optional<MutableTable> scale, std::optional<Reals> cost,
               std::optional<Matrix> x_bar, std::optional<Matrix> y_bar,
               std::optional<Matrix> s_bar, std::optional<MutableMatrix> P_bar,
               std::optional<MutableMatrix> q_bar, std::optional<MutableMatrix> A_bar,
               std::optional<MutableMatrix> b_bar, Reals residual, double mu, int threads,
               int width) {
  const StructureView& view = engine.structure().view();
  const ProblemData problem = problem_of(engine, batch, P, q, A, b);
  check_length(status, "status", batch);
  check_length(residual, "residual", batch);
  const AdjointData io{rows_of<const double>(x, "x", batch, view.n),
                       rows_of<const double>(y, "y", batch, view.m),
                       rows_of<const double>(s, "s", batch, view.m),
                       status.data(),
                       rows_of<const std::int8_t>(is_active, "is_active", batch, view.m),
                       optional_rows<const double>(x_bar, "x_bar", batch, view.n),
                       optional_rows<const double>(y_bar, "y_bar", batch, view.m),
                       optional_rows<const double>(s_bar, "s_bar", batch, view.m),
                       optional_rows<double>(P_bar, "P_bar", batch, view.num_P),
                       optional_rows<double>(q_bar, "q_bar", batch, view.n),
                       optional_rows<double>(A_bar, "A_bar", batch, view.num_A),
                       optional_rows<double>(b_bar, "b_bar", batch, view.m),
                       residual.data(),
                       mu};
  const Scaling scaling = optional_scaling(engine, problem, batch, scale, cost);
  const nb::gil_scoped_release release;
  engine.pull_back(problem, batch, threads, width, scaling, io);
}

/// The rows of a (batch, sides, columns) array, one side after the other.
Rows<const double> sides_of(const Stack& stack, const char* name, long batch, long sides,
                            long columns) {
  if (static_cast<long>(stack.shape(0)) != batch || static_cast<long>(stack.shape(1)) != sides ||
      static_cast<long>(stack.shape(2)) != columns) {
    refuse(name, static_cast<size_t>(batch * sides), static_cast<size_t>(columns));
  }
  return {stack.data(), columns, 1};
}

Rows<const double> optional_sides(const std::optional<Stack>& stack, const char* name, long batch,
                                  long sides, long columns) {
  return stack ? sides_of(*stack, name, batch, sides, columns) : Rows<const double>{nullptr, 0, 0};
}

/// The inputs of AdjointData.
AdjointData solutions_of(const StructureView& view, long batch, const Matrix& x, const Matrix& y,
                         const Matrix& s, const Codes& status, const CodeMatrix& is_active) {
  check_length(status, "status", batch);
  AdjointData io{};
  io.x = rows_of<const double>(x, "x", batch, view.n);
  io.y = rows_of<const double>(y, "y", batch, view.m);
  io.s = rows_of<const double>(s, "s", batch, view.m);
  io.status = status.data();
  const Rows<std::int8_t> active = rows_of<std::int8_t>(is_active, "is_active", batch, view.m);
  io.is_active = {active.start, active.row_stride, active.stride};
  return io;
}

PointData points_of(const StructureView& view, long batch, const MutableMatrix& x,
                    const MutableMatrix& y, const MutableMatrix& v, const MutableMatrix& balance,
                    const CodeMatrix& is_active, const Codes& has_solution, const Reals& residual,
                    double mu) {
  check_length(has_solution, "has_solution", batch);
  check_length(residual, "residual", batch);
  return {rows_of<double>(x, "point_x", batch, view.n),
          rows_of<double>(y, "point_y", batch, view.m),
          rows_of<double>(v, "point_v", batch, view.m),
          rows_of<double>(balance, "balance", batch, view.m),
          rows_of<std::int8_t>(is_active, "point_active", batch, view.m),
          has_solution.data(),
          residual.data(),
          mu};
}

void refine(Engine& engine, long batch, Matrix P, Matrix q, Matrix A, Matrix b, Matrix x, Matrix y,
            Matrix s, Codes status, CodeMatrix is_active, std::optional<MutableTable> scale,
            std::optional<Reals> cost, MutableMatrix point_x, MutableMatrix point_y,
            MutableMatrix point_v, MutableMatrix balance, CodeMatrix point_active,
            Codes has_solution, Reals residual, double mu, int threads, int width) {
  const StructureView& view = engine.structure().view();
  const ProblemData problem = problem_of(engine, batch, P, q, A, b);
  const AdjointData io = solutions_of(view, batch, x, y, s, status, is_active);
  const PointData points = points_of(view, batch, point_x, point_y, point_v, balance, point_active,
                                     has_solution, residual, mu);
  const Scaling scaling = optional_scaling(engine, problem, batch, scale, cost);
  const nb::gil_scoped_release release;
  engine.refine(problem, batch, threads, width, scaling, io, points);
}

void examine(Engine& engine, long batch, Matrix P, Matrix q, Matrix A, Matrix b, Matrix x, Matrix y,
             Matrix s, Codes status, CodeMatrix is_active, std::optional<MutableTable> scale,
             std::optional<Reals> cost, MutableMatrix point_x, MutableMatrix point_y,
             MutableMatrix point_v, MutableMatrix balance, CodeMatrix point_active,
             Codes has_solution, Reals residual, MutableMatrix position, MutableMatrix factors,
             Reals cost_factor, MutableMatrix null_x, MutableMatrix null_y, Reals largest,
             Reals smallest, int threads, int width) {
  const StructureView& view = engine.structure().view();
  const ProblemData problem = problem_of(engine, batch, P, q, A, b);
  check_length(cost_factor, "cost_factor", batch);
  check_length(largest, "largest", batch);
  check_length(smallest, "smallest", batch);
  const AdjointData io = solutions_of(view, batch, x, y, s, status, is_active);
  const PointData points = points_of(view, batch, point_x, point_y, point_v, balance, point_active,
                                     has_solution, residual, 0.0);
  const RegularityData found{rows_of<double>(position, "position", batch, view.m),
                             rows_of<double>(factors, "factors", batch, view.n + view.m),
                             cost_factor.data(),
                             rows_of<double>(null_x, "null_x", batch, view.n),
                             rows_of<double>(null_y, "null_y", batch, view.m),
                             largest.data(),
                             smallest.data()};
  const Scaling scaling = optional_scaling(engine, problem, batch, scale, cost);
  const nb::gil_scoped_release release;
  engine.examine(problem, batch, threads, width, scaling, io, points, found);
}

void apply(Engine& engine, long batch, Matrix P, Matrix q, Matrix A, Matrix b, Matrix v,
           Matrix balance, CodeMatrix is_active, Codes has_solution, std::optional<Stack> gx,
           std::optional<Stack> gy, std::optional<Stack> gs, MutableStack lambda, MutableStack nu,
           MutableTable residual, double mu, int threads, int width) {
  const StructureView& view = engine.structure().view();
  const ProblemData problem = problem_of(engine, batch, P, q, A, b);
  const auto sides = static_cast<long>(lambda.shape(1));
  check_length(has_solution, "has_solution", batch);
  sides_of(Stack(lambda), "lambda", batch, sides, view.n);
  sides_of(Stack(nu), "nu", batch, sides, view.m);
  rows_of<double>(residual, "residual", batch, sides);
  const SystemData io{rows_of<const double>(v, "v", batch, view.m),
                      rows_of<const double>(balance, "balance", batch, view.m),
                      rows_of<const std::int8_t>(is_active, "is_active", batch, view.m),
                      has_solution.data(),
                      sides,
                      optional_sides(gx, "gx", batch, sides, view.n),
                      optional_sides(gy, "gy", batch, sides, view.m),
                      optional_sides(gs, "gs", batch, sides, view.m),
                      {lambda.data(), view.n, 1},
                      {nu.data(), view.m, 1},
                      residual.data(),
                      mu};
  const nb::gil_scoped_release release;
  engine.apply(problem, batch, threads, width, io);
}

void curvature(Engine& engine, Matrix v, Codes has_solution, Stack first, Stack second,
               MutableStack result, double mu, int threads, int width) {
  const StructureView& view = engine.structure().view();
  const auto batch = static_cast<long>(v.shape(0)), sides = static_cast<long>(first.shape(1));
  check_length(has_solution, "has_solution", batch);
  const CurvatureData io{rows_of<const double>(v, "v", batch, view.m),
                         has_solution.data(),
                         sides,
                         sides_of(first, "first", batch, sides, view.m),
                         sides_of(second, "second", batch, sides, view.m),
                         {result.data(), view.m, 1},
                         mu};
  sides_of(Stack(result), "result", batch, sides, view.m);
  const nb::gil_scoped_release release;
  engine.curvature(batch, threads, width, io);
}

void build_map(SparseMap* self, long num_columns, Indices start, Indices column, Weights weight) {
  const auto num_rows = static_cast<long>(start.shape(0)) - 1;
  const auto num_entries = static_cast<std::int64_t>(column.shape(0));
  bool ok = num_rows >= 0 && start.data()[0] == 0 && start.data()[num_rows] == num_entries &&
            static_cast<std::int64_t>(weight.shape(0)) == num_entries;
  for (long row = 0; ok && row < num_rows; ++row) ok = start.data()[row] <= start.data()[row + 1];
  for (std::int64_t k = 0; ok && k < num_entries; ++k) {
    ok = column.data()[k] >= 0 && column.data()[k] < num_columns;
  }
  if (!ok) throw nb::value_error("native engine: not a matrix in CSR form");
  new (self) SparseMap(num_rows, num_columns, start.data(), column.data(), weight.data());
}

/// Rows of `array`, which has `batch` of them or one that all instances share.
long stride_of(const Table& array, const char* name, long batch, long columns) {
  return rows_of<const double>(array, name, batch, columns).row_stride;
}

void apply_to_rows(const std::vector<const SparseMap*>& maps, const std::vector<Table>& points,
                   const std::optional<Table>& base, MutableTable out, int threads) {
  const auto batch = static_cast<long>(out.shape(0)), length = static_cast<long>(out.shape(1));
  if (maps.size() != points.size()) throw nb::value_error("native engine: one point per map");
  std::vector<MapTerm> terms;
  for (size_t k = 0; k < maps.size(); ++k) {
    if (maps[k]->num_rows() != length) refuse("out", out.shape(0), maps[0]->num_rows());
    terms.push_back(
        {maps[k], points[k].data(), stride_of(points[k], "points", batch, maps[k]->num_columns())});
  }
  const double* start = base.has_value() ? base->data() : nullptr;
  const long base_stride = base.has_value() ? stride_of(*base, "base", batch, length) : 0;
  const nb::gil_scoped_release release;
  apply_maps(terms, start, base_stride, out.data(), batch, length, threads);
}

void sum_over_rows(Table rows, MutableTable out, int threads) {
  const auto batch = static_cast<long>(rows.shape(0)), length = static_cast<long>(rows.shape(1));
  if (out.shape(0) != 1 || out.shape(1) != rows.shape(1)) refuse("out", 1, rows.shape(1));
  const nb::gil_scoped_release release;
  sum_rows(rows.data(), batch, length, out.data(), threads);
}

bool is_finite(Table rows, int threads) {
  const nb::gil_scoped_release release;
  return all_finite(rows.data(), static_cast<long>(rows.size()), threads);
}

bool is_in_domains(Table rows, unsigned domains, double epsilon, int threads) {
  const auto size = static_cast<long>(rows.shape(1));
  const long order = std::lround(std::sqrt(static_cast<double>(size)));
  if (domains >= kSymmetric && order * order != size) refuse("rows", rows.shape(0), order * order);
  const nb::gil_scoped_release release;
  return all_in_domains(rows.data(), static_cast<long>(rows.shape(0)), size, domains, epsilon,
                        threads);
}

void project_onto_dual(int kind, double parameter, Table points, MutableTable nearest,
                       MutableStack derivative, MutableStack root, int width,
                       const std::optional<Table>& starts) {
  const size_t count = points.shape(0), size = points.shape(1);
  const CurvedCone cone{static_cast<ConeKind>(kind), 0, static_cast<int>(size), parameter};
  if (!is_implemented(cone.kind)) throw nb::value_error("native engine: unknown kind of cone");
  if (nearest.shape(0) != count || nearest.shape(1) != size) refuse("nearest", count, size);
  for (const MutableStack* stack : {&derivative, &root}) {
    if (stack->shape(0) != count || stack->shape(1) != size || stack->shape(2) != size) {
      refuse("derivative", size, size);
    }
  }
  if (starts && (starts->shape(0) != count || starts->shape(1) != 2 * size)) {
    refuse("starts", count, 2 * size);
  }
  const nb::gil_scoped_release release;
  project_dual(cone, points.data(), starts ? starts->data() : nullptr, static_cast<long>(count),
               width, nearest.data(), derivative.data(), root.data());
}

std::vector<int> widths() {
  int count = 0;
  const Kernels* const* kernels = available_kernels(&count);
  std::vector<int> result;
  for (int k = 0; k < count; ++k) result.push_back(kernels[k]->width);
  return result;
}

/// (kind, rows, parameter) of each cone, as Python hands them over.
using ConeList = std::vector<std::tuple<int, int, double>>;

std::vector<CurvedCone> cones_of(const ConeList& list) {
  std::vector<CurvedCone> cones;
  for (const auto& [number, size, parameter] : list) {
    const auto kind = static_cast<ConeKind>(number);
    if (!is_implemented(kind)) throw nb::value_error("native engine: unknown kind of cone");
    cones.push_back({kind, 0, size, parameter});
  }
  return cones;
}

/// Refuse a CSC pattern that does not lie in rows × columns, or in its upper triangle.
void check_pattern(const char* name, const std::vector<int>& start, const std::vector<int>& row,
                   int rows, int columns, bool is_upper) {
  const std::string prefix = std::string("native engine: ") + name;
  if (start.size() != static_cast<size_t>(columns) + 1 || start.front() != 0 ||
      start.back() != static_cast<int>(row.size())) {
    throw nb::value_error((prefix + " needs n + 1 starts, from 0 to its number of rows").c_str());
  }
  for (int j = 0; j < columns; ++j) {
    if (start[j + 1] < start[j] || start[j + 1] > start[columns]) {
      throw nb::value_error((prefix + " has starts that decrease").c_str());
    }
    for (int t = start[j]; t < start[j + 1]; ++t) {
      if (row[t] < 0 || row[t] >= rows || (is_upper && row[t] > j)) {
        throw nb::value_error((prefix + " has rows out of range").c_str());
      }
    }
  }
}

/// Number of rows of all cones together.
int count_rows(int num_zero, int num_nonnegative, const std::vector<CurvedCone>& cones) {
  long rows = static_cast<long>(num_zero) + num_nonnegative;
  bool is_valid = num_zero >= 0 && num_nonnegative >= 0;
  for (const CurvedCone& cone : cones) {
    is_valid = is_valid && cone.size > 0;
    rows += cone.size;
  }
  if (!is_valid || rows > std::numeric_limits<int>::max()) {
    throw nb::value_error("native engine: sizes of cones have to be positive");
  }
  return static_cast<int>(rows);
}

std::vector<int> cone_kinds() {
  std::vector<int> kinds;
  for (const ConeKind kind : {ConeKind::kSecondOrder, ConeKind::kSemidefinite,
                              ConeKind::kExponential, ConeKind::kPower}) {
    if (is_implemented(kind)) kinds.push_back(static_cast<int>(kind));
  }
  return kinds;
}

std::string instruction_set() {
  int count = 0;
  return available_kernels(&count)[0]->isa;
}

}  // namespace
}  // namespace cvxlayer

NB_MODULE(_native, module) {
  using cvxlayer::Engine;
  // Engines live as long as their structures, some of which outlast the interpreter's exit.
  nb::set_leak_warnings(false);
  module.doc() = "Native engine of cvxlayer: batched cone programs and their derivatives.";
  nb::class_<Engine>(module, "Engine",
                     "All work that depends on the structure of a batch alone. Thread-safe.")
      .def(
          "__init__",
          [](Engine* self, int n, int num_zero, int num_nonnegative,
             const cvxlayer::ConeList& cones, std::vector<int> P_start, std::vector<int> P_row,
             std::vector<int> A_start, std::vector<int> A_row, int largest_block, bool is_convex) {
            std::vector<cvxlayer::CurvedCone> curved = cvxlayer::cones_of(cones);
            const int m = cvxlayer::count_rows(num_zero, num_nonnegative, curved);
            if (n < 0) throw nb::value_error("native engine: n is negative");
            cvxlayer::check_pattern("P", P_start, P_row, n, n, true);
            cvxlayer::check_pattern("A", A_start, A_row, m, n, false);
            new (self) Engine(std::in_place, n, num_zero, num_nonnegative, std::move(curved),
                              std::move(P_start), std::move(P_row), std::move(A_start),
                              std::move(A_row), largest_block, is_convex);
          },
          "n"_a, "num_zero"_a, "num_nonnegative"_a, "cones"_a, "P_start"_a, "P_row"_a, "A_start"_a,
          "A_row"_a, "largest_block"_a, "is_convex"_a)
      .def("solve", &cvxlayer::solve, nb::arg("batch"), "P"_a, "q"_a, "A"_a, "b"_a,
           "index"_a.none(), "eps_abs"_a, "eps_rel"_a, "eps_infeasible"_a, "max_iterations"_a,
           "careful"_a, "polish"_a, "start_x"_a.none(), "start_y"_a.none(), "is_usable"_a.none(),
           "threads"_a, "width"_a, "x"_a, "y"_a, "s"_a, "status"_a, "iterations"_a,
           "primal_residual"_a, "dual_residual"_a, "gap"_a, "is_active"_a, "scale"_a, "cost"_a,
           "Solve a batch, or its rows `index`, into the given arrays.")
      .def("pull_back", &cvxlayer::pull_back, nb::arg("batch"), "P"_a, "q"_a, "A"_a, "b"_a, "x"_a,
           "y"_a, "s"_a, "status"_a, "is_active"_a, "scale"_a.none(), "cost"_a.none(),
           "x_bar"_a.none(), "y_bar"_a.none(), "s_bar"_a.none(), "P_bar"_a.none(), "q_bar"_a.none(),
           "A_bar"_a.none(), "b_bar"_a.none(), "residual"_a, "mu"_a, "threads"_a, "width"_a,
           "Pull cotangents of (x, y, s) back to (P, q, A, b), into the given arrays.")
      .def("refine", &cvxlayer::refine, nb::arg("batch"), "P"_a, "q"_a, "A"_a, "b"_a, "x"_a, "y"_a,
           "s"_a, "status"_a, "is_active"_a, "scale"_a.none(), "cost"_a.none(), "point_x"_a,
           "point_y"_a, "point_v"_a, "balance"_a, "point_active"_a, "has_solution"_a, "residual"_a,
           "mu"_a, "threads"_a, "width"_a, "Write the points where solutions are differentiated.")
      .def("examine", &cvxlayer::examine, nb::arg("batch"), "P"_a, "q"_a, "A"_a, "b"_a, "x"_a,
           "y"_a, "s"_a, "status"_a, "is_active"_a, "scale"_a.none(), "cost"_a.none(), "point_x"_a,
           "point_y"_a, "point_v"_a, "balance"_a, "point_active"_a, "has_solution"_a, "residual"_a,
           "position"_a, "factors"_a, "cost_factor"_a, "null_x"_a, "null_y"_a, "largest"_a,
           "smallest"_a, "threads"_a, "width"_a,
           "Write the same points, and how regular solutions are there.")
      .def("apply", &cvxlayer::apply, nb::arg("batch"), "P"_a, "q"_a, "A"_a, "b"_a, "v"_a,
           "balance"_a, "is_active"_a, "has_solution"_a, "gx"_a.none(), "gy"_a.none(),
           "gs"_a.none(), "lam"_a, "nu"_a, "residual"_a, "mu"_a, "threads"_a, "width"_a,
           "Solve the linearized optimality conditions at such points.")
      .def("curvature", &cvxlayer::curvature, "v"_a, "has_solution"_a, "first"_a, "second"_a,
           "result"_a, "mu"_a, "threads"_a, "width"_a,
           "Write the second derivatives of the projection along pairs of directions.")
      .def("workspace_bytes", &Engine::workspace_bytes, "width"_a,
           "Memory of one thread's workspace.")
      .def_prop_ro(
          "factor_entries",
          [](const Engine& engine) { return engine.structure().solve_symbolic().storage(); })
      .def_prop_ro(
          "factor_multiply_adds",
          [](const Engine& engine) { return engine.structure().solve_symbolic().multiply_adds(); })
      .def_prop_ro(
          "has_range_space",
          [](const Engine& engine) { return engine.structure().view().has_range_space; },
          "Whether an instance whose P allows it is solved with P and A eliminated once.");
  nb::class_<cvxlayer::SparseMap>(module, "SparseMap", "A constant sparse matrix, to multiply.")
      .def("__init__", &cvxlayer::build_map, "num_columns"_a, "start"_a, "column"_a, "weight"_a);
  cvxlayer::bind_program(module);
  cvxlayer::bind_tensors(module);
  module.def("register_program", &cvxlayer::register_program, "number"_a, "program"_a,
             "Let compiled code find a program, which must never be dropped, by its number.");
  module.def("set_finisher", &cvxlayer::set_finisher, "function"_a,
             "Set what finishes batches that the core alone cannot.");
  module.def("set_warner", &cvxlayer::set_warner, "function"_a,
             "Set what is told of derivatives whose linear systems were not solved.");
  module.def("xla_handlers", &cvxlayer::xla_handlers,
             "The handlers of XLA by name; none if the core was built without JAX.");
  module.def("apply_maps", &cvxlayer::apply_to_rows, "maps"_a, "points"_a, "base"_a.none(), "out"_a,
             "threads"_a, "Write base plus the sum of each map times its points, row by row.");
  module.def("sum_rows", &cvxlayer::sum_over_rows, "rows"_a, "out"_a, "threads"_a,
             "Write the sum of the rows, added in their order.");
  module.def("is_finite", &cvxlayer::is_finite, "rows"_a, "threads"_a,
             "Whether no entry is NaN or infinite.");
  module.def("is_in_domains", &cvxlayer::is_in_domains, "rows"_a, "domains"_a, "epsilon"_a,
             "threads"_a,
             "Whether every row, a value of finite numbers, is in the domains of these bits up to "
             "rounding; False, too, where eigenvalues would have to tell.");
  module.def("project_dual", &cvxlayer::project_onto_dual, "kind"_a, "parameter"_a, "points"_a,
             "nearest"_a, "derivative"_a, "root"_a, "width"_a, "starts"_a.none() = nb::none(),
             "Write the projections of points onto the dual of one cone, the derivatives there and "
             "their square roots; with pairs (s, y) to start from, where cones can use them.");
  module.def("widths", &cvxlayer::widths, "Numbers of lanes this processor's kernels offer.");
  module.def("cone_kinds", &cvxlayer::cone_kinds, "The kinds of curved cones it can solve.");
  module.def("instruction_set", &cvxlayer::instruction_set, "The instruction set in use.");
}
