// SPDX-License-Identifier: Apache-2.0
#include "reduce.hpp"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <vector>

namespace cvxlayer {

namespace {

constexpr double kRankTolerance = 1e-9;
constexpr double kZeroCoefficient = 1e-10;
// A pivot is at least this share of the largest entry of its row.
constexpr double kPivotShare = 1e-2;

/// The combinations z of active rows with rowsᵀ z = 0. A row with a single column left, as that of
/// a bound, is a pivot and takes its column with it, which may leave another row with a single
/// one. Pivots have no entry in the columns that remain in the end, so what is left of the other
/// rows, the *core*, decides alone how they depend on each other, and is usually small.
class Dependence {
 public:
  explicit Dependence(const ActiveRows& rows)
      : rows_(rows), pivot_column_(rows.count, -1), pivot_row_(rows.num_columns, -1) {
    transpose();
    take_pivots();
  }

  /// One combination in each column.
  Eigen::MatrixXd basis() const {
    std::vector<int> others;
    for (int i = 0; i < rows_.count; ++i) {
      if (pivot_column_[i] < 0) others.push_back(i);
    }
    const Eigen::MatrixXd core = core_combinations(others);
    Eigen::MatrixXd all = Eigen::MatrixXd::Zero(rows_.count, core.cols());
    for (size_t i = 0; i < others.size(); ++i) all.row(others[i]) = core.row(i);
    for (Eigen::Index k = 0; k < all.cols(); ++k) follow(all.col(k));
    return all;
  }

 private:
  void transpose() {
    entry_start_.assign(rows_.num_columns + 1, 0);
    const int total = rows_.start[rows_.count];
    for (int t = 0; t < total; ++t) ++entry_start_[rows_.column[t] + 1];
    for (int j = 0; j < rows_.num_columns; ++j) entry_start_[j + 1] += entry_start_[j];
    std::vector<int> next(entry_start_.begin(), entry_start_.end() - 1);
    entry_row_.resize(total);
    entry_.resize(total);
    for (int i = 0; i < rows_.count; ++i) {
      for (int t = rows_.start[i]; t < rows_.start[i + 1]; ++t) {
        const int place = next[rows_.column[t]]++;
        entry_row_[place] = i;
        entry_[place] = t;
      }
    }
  }

  void take_pivots() {
    std::vector<int> left(rows_.count), queue;
    for (int i = 0; i < rows_.count; ++i) {
      left[i] = rows_.start[i + 1] - rows_.start[i];
      if (left[i] == 1) queue.push_back(i);
    }
    for (size_t next = 0; next < queue.size(); ++next) {
      const int row = queue[next], t = pivot_entry(row);
      if (t < 0) continue;
      const int column = rows_.column[t];
      pivot_column_[row] = column;
      pivot_row_[column] = row;
      order_.push_back(t);
      for (int k = entry_start_[column]; k < entry_start_[column + 1]; ++k) {
        if (--left[entry_row_[k]] == 1) queue.push_back(entry_row_[k]);
      }
    }
  }

  /// The only entry of a row in the columns that are left, or −1 without one that is large enough.
  int pivot_entry(int row) const {
    double largest = 0.0;
    int found = -1;
    for (int t = rows_.start[row]; t < rows_.start[row + 1]; ++t) {
      largest = std::max(largest, std::abs(rows_.value[t]));
      if (pivot_row_[rows_.column[t]] < 0) found = t;
    }
    const bool is_large = found >= 0 && std::abs(rows_.value[found]) > kPivotShare * largest;
    return is_large ? found : -1;
  }

  /// Those of the core, from a rank-revealing QR of its transpose.
  Eigen::MatrixXd core_combinations(const std::vector<int>& others) const {
    const auto count = static_cast<Eigen::Index>(others.size());
    std::vector<int> place(rows_.num_columns, -1);
    int num_columns = 0;
    double largest = 0.0;
    for (const int i : others) {
      for (int t = rows_.start[i]; t < rows_.start[i + 1]; ++t) {
        largest = std::max(largest, std::abs(rows_.value[t]));
        const int column = rows_.column[t];
        if (pivot_row_[column] < 0 && place[column] < 0) place[column] = num_columns++;
      }
    }
    if (num_columns == 0) return Eigen::MatrixXd::Identity(count, count);
    Eigen::MatrixXd core = Eigen::MatrixXd::Zero(num_columns, count);
    for (Eigen::Index i = 0; i < count; ++i) {
      for (int t = rows_.start[others[i]]; t < rows_.start[others[i] + 1]; ++t) {
        if (place[rows_.column[t]] >= 0) core(place[rows_.column[t]], i) += rows_.value[t];
      }
    }
    return null_directions(core, largest);
  }

  /// Columns z with core z = 0, whose entries are held against `largest`.
  static Eigen::MatrixXd null_directions(const Eigen::MatrixXd& core, double largest) {
    Eigen::ColPivHouseholderQR<Eigen::MatrixXd> qr(core);
    const double pivot = qr.maxPivot();
    if (pivot > 0.0) qr.setThreshold(kRankTolerance * std::max(1.0, largest / pivot));
    const Eigen::Index count = core.cols(), rank = qr.rank();
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

  /// The share of the pivots in a combination, the last pivot first: in its column are only
  /// later ones and rows of the core.
  void follow(Eigen::Ref<Eigen::VectorXd> z) const {
    for (size_t k = order_.size(); k-- > 0;) {
      const int t = order_[k], column = rows_.column[t], row = pivot_row_[column];
      double sum = 0.0;
      for (int e = entry_start_[column]; e < entry_start_[column + 1]; ++e) {
        if (entry_row_[e] != row) sum += rows_.value[entry_[e]] * z[entry_row_[e]];
      }
      z[row] = -sum / rows_.value[t];
    }
  }

  const ActiveRows& rows_;
  std::vector<int> pivot_column_, pivot_row_;         // of each row, of each column; −1 without one
  std::vector<int> order_;                            // entries that are pivots, as they were taken
  std::vector<int> entry_start_, entry_row_, entry_;  // by column
};

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

ActiveRows::ActiveRows(int most_rows, int columns, int most_entries)
    : num_columns(columns),
      start(new int[most_rows + 2]()),
      column(new int[most_entries]),
      value(new double[most_entries]) {}

ActiveRows::~ActiveRows() {
  delete[] start;
  delete[] column;
  delete[] value;
}

void ActiveRows::add(int entry_column, double entry) {
  column[start[count + 1]] = entry_column;
  value[start[count + 1]++] = entry;
}

void ActiveRows::close_row() {
  ++count;
  start[count + 1] = start[count];
}

int reduce_active_rows(const ActiveRows& rows, const bool* is_equality, double* multiplier,
                       bool* is_kept) {
  const int count = rows.count;
  for (int i = 0; i < count; ++i) is_kept[i] = true;
  Eigen::MatrixXd basis = Dependence(rows).basis();
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
      const double share = basis(row, other) / z[row];
      if (share != 0.0) basis.col(other) -= share * z;
      basis(row, other) = 0;
    }
  }
  return static_cast<int>(basis.cols());
}

}  // namespace cvxlayer
