// SPDX-License-Identifier: Apache-2.0
//
// The table through which the rest of the core calls lane code of one instruction set and width.
#pragma once

#include "../hsde/instances.hpp"
#include "../kkt/structure.hpp"

namespace cvxlayer {

/// Where the adjoint reads solutions and cotangents and writes the cotangents of the data.
/// A null `start` means: not given (inputs) or not wanted (outputs). With `mu` > 0, here and below,
/// all is on the central path of that μ, in the units of the program.
struct AdjointData {
  Rows<const double> x, y, s;
  const std::int8_t* status;
  Rows<const std::int8_t> is_active;
  Rows<const double> x_bar, y_bar, s_bar;
  Rows<double> P_bar, q_bar, A_bar, b_bar;
  double* residual;
  double mu;
};

/// Where `refine` writes the points of differentiation; see `LinearizationPoint` in Python.
struct PointData {
  Rows<double> x, y, v, balance;
  Rows<std::int8_t> is_active;
  std::int8_t* has_solution;
  double* residual;
  double mu;
};

/// Where `examine` writes how regular the points of differentiation are; see `Examination` in
/// Python.
struct RegularityData {
  Rows<double> position;
  Rows<double> factors;  // (d, e), in which all of this is measured
  double* cost;
  Rows<double> null_x, null_y;
  double *largest, *smallest;
};

/// Where `apply` reads points and right-hand sides, `num_sides` for each instance, and writes the
/// answers. The rows of these are one side of an instance after the other.
struct SystemData {
  Rows<const double> v, balance;
  Rows<const std::int8_t> is_active;
  const std::int8_t* has_solution;
  long num_sides;
  Rows<const double> gx, gy, gs;
  Rows<double> lambda, nu;
  double* residual;
  double mu;

  /// The rows of one side, one for each instance.
  template <class T>
  Rows<T> of_side(const Rows<T>& rows, long side) const {
    if (rows.start == nullptr) return rows;
    return {rows.start + side * rows.row_stride, rows.row_stride * num_sides, rows.stride};
  }
};

/// Where `curvature` reads points and pairs of directions, `num_sides` for each instance, one after
/// the other in the rows of first, second and result.
struct CurvatureData {
  Rows<const double> v;
  const std::int8_t* has_solution;
  long num_sides;
  Rows<const double> first, second;
  Rows<double> result;
  double mu;
};

struct Kernels {
  int width;
  const char* isa;
  size_t (*workspace_bytes)(const StructureView&);
  /// Write the scale factors of instances [first, first + count), count ≤ width.
  void (*equilibrate)(const StructureView&, char* workspace, const ProblemData&, const Scaling&,
                      long first, long count, bool compute_matrices);
  /// Solve places [begin, end) of `index` (null: the identity).
  void (*solve)(const StructureView&, char* workspace, const ProblemData&, const Scaling&,
                const SolveSettings&, const std::int64_t* index, long begin, long end,
                const SolveResults&);
  /// Polish the solutions of instances [begin, end).
  void (*polish)(const StructureView&, char* workspace, const ProblemData&, const Scaling&,
                 const SolveSettings&, long begin, long end, const SolveResults&);
  /// Solve instances [begin, end) by Newton steps from `StartingPoints`; those that arrive get
  /// the status kWarmStarted, others are left to `solve`.
  void (*warm_start)(const StructureView&, char* workspace, const ProblemData&, const Scaling&,
                     const SolveSettings&, const StartingPoints&, long begin, long end,
                     const SolveResults&);
  /// Give the status kNotConvex to the places [begin, end) of `index` where P is indefinite, unless
  /// they have a certificate; only of structures that test it.
  void (*test_convexity)(const StructureView&, char* workspace, const ProblemData&,
                         const std::int64_t* index, long begin, long end, const SolveResults&);
  /// Pull cotangents of the solution back to the data for instances [begin, end).
  void (*pull_back)(const StructureView&, char* workspace, const ProblemData&, const Scaling&,
                    const AdjointData&, long begin, long end);
  /// From solutions (the inputs of AdjointData) to points of differentiation.
  void (*refine)(const StructureView&, char* workspace, const ProblemData&, const Scaling&,
                 const AdjointData&, const PointData&, long begin, long end);
  /// The same, and how regular these points are.
  void (*examine)(const StructureView&, char* workspace, const ProblemData&, const Scaling&,
                  const AdjointData&, const PointData&, const RegularityData&, long begin,
                  long end);
  /// Solve the linearized optimality conditions at points.
  void (*apply)(const StructureView&, char* workspace, const ProblemData&, const Scaling&,
                const SystemData&, long begin, long end);
  /// Second derivatives of the projection for instances [begin, end).
  void (*curvature)(const StructureView&, char* workspace, const CurvatureData&, long begin,
                    long end);
  /// Project points onto the dual of one cone; see `project_dual` in inspect.hpp.
  size_t (*projection_bytes)(const CurvedCone&);
  void (*project_dual)(const CurvedCone&, char* workspace, const double* points,
                       const double* starts, long count, double* nearest, double* derivative,
                       double* root);
  /// Whether a dense matrix is positive definite; only for width 1, null for others.
  size_t (*definite_bytes)(int n);
  bool (*is_definite)(char* workspace, const double* matrix, int n, double sign, double rounding);
};

/// The kernels for the widest instruction set of this processor, narrowest width first;
/// `count` receives their number.
const Kernels* const* available_kernels(int* count);

}  // namespace cvxlayer
