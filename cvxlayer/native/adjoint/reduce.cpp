// SPDX-License-Identifier: Apache-2.0
#include "reduce.hpp"

#include <Eigen/Dense>
#include <cmath>

namespace cvxlayer {

namespace {

constexpr double kRankTolerance = 1e-9;
constexpr double kZeroCoefficient = 1e-10;

/// Columns z with rowsᵀ z = 0, from a rank-revealing QR of rowsᵀ.
Eigen::MatrixXd null_directions(int count, int n, const double* rows) {
  using RowMajor = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  const Eigen::Map<const RowMajor> active(rows, count, n);
  Eigen::ColPivHouseholderQR<Eigen::MatrixXd> qr(n, count);
  qr.setThreshold(kRankTolerance);
  qr.compute(active.transpose());
  const Eigen::Index rank = qr.rank();
  Eigen::MatrixXd basis = Eigen::MatrixXd::Zero(count, count - rank);
  basis.bottomRows(count - rank).setIdentity();
  if (rank > 0 && rank < count) {
    const auto& R = qr.matrixR();
    basis.topRows(rank) = -R.topLeftCorner(rank, rank)
                               .triangularView<Eigen::Upper>()
                               .solve(R.topRightCorner(rank, count - rank));
  }
  return qr.colsPermutation() * basis;
}

/// The row that reaches zero first when the multiplier moves along z: the inequality with
/// the smallest |multiplier / z|, or the largest |z| among equalities if no inequality moves.
int first_to_vanish(const Eigen::VectorXd& z, const bool* is_equality, const double* multiplier) {
  const double size = z.cwiseAbs().maxCoeff();
  int best = -1;
  double best_step = INFINITY;
  for (int i = 0; i < z.size(); ++i) {
    if (is_equality[i] || std::abs(z[i]) <= kZeroCoefficient * size) continue;
    const double step = std::abs(multiplier[i] / z[i]);
    if (step < best_step) {
      best_step = step;
      best = i;
    }
  }
  if (best < 0) z.cwiseAbs().maxCoeff(&best);
  return best;
}

}  // namespace

int reduce_active_rows(int count, int n, const double* rows, const bool* is_equality,
                       double* multiplier, bool* is_kept) {
  for (int i = 0; i < count; ++i) is_kept[i] = true;
  Eigen::MatrixXd basis = null_directions(count, n, rows);
  for (Eigen::Index k = 0; k < basis.cols(); ++k) {
    const Eigen::VectorXd z = basis.col(k);
    const int row = first_to_vanish(z, is_equality, multiplier);
    const double step = -multiplier[row] / z[row];
    for (int i = 0; i < count; ++i) {
      if (is_kept[i]) multiplier[i] += step * z[i];
      if (is_kept[i] && !is_equality[i] && multiplier[i] < 0) multiplier[i] = 0;
    }
    multiplier[row] = 0;
    is_kept[row] = false;
    for (Eigen::Index other = k + 1; other < basis.cols(); ++other) {
      basis.col(other) -= (basis(row, other) / z[row]) * z;
      basis(row, other) = 0;
    }
  }
  return static_cast<int>(basis.cols());
}

}  // namespace cvxlayer
