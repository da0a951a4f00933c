// SPDX-License-Identifier: Apache-2.0
#include "structure.hpp"

#include <algorithm>
#include <map>
#include <utility>

namespace cvxlayer {

Structure::Structure(int n, int num_zero, int num_nonnegative, std::vector<CurvedCone> cones,
                     std::vector<int> P_start, std::vector<int> P_row, std::vector<int> A_start,
                     std::vector<int> A_row)
    : n_(n),
      num_zero_(num_zero),
      num_linear_(num_zero + num_nonnegative),
      cones_(std::move(cones)),
      P_start_(std::move(P_start)),
      P_row_(std::move(P_row)),
      A_start_(std::move(A_start)),
      A_row_(std::move(A_row)) {
  m_ = num_linear_;
  for (CurvedCone& cone : cones_) {
    cone.start = m_;
    m_ = cone.end();
  }
  build_rows();
  find_singletons();
  build_mixed();
  build_plan(solve_, false);
  if (!cones_.empty()) build_plan(adjoint_, true);
  build_view();
}

void Structure::build_rows() {
  row_start_.assign(m_ + 1, 0);
  for (int row : A_row_) ++row_start_[row + 1];
  for (int i = 0; i < m_; ++i) row_start_[i + 1] += row_start_[i];
  row_column_.resize(A_row_.size());
  row_entry_.resize(A_row_.size());
  std::vector<int> next(row_start_.begin(), row_start_.end() - 1);
  for (int j = 0; j < n_; ++j) {
    for (int k = A_start_[j]; k < A_start_[j + 1]; ++k) {
      const int slot = next[A_row_[k]]++;
      row_column_[slot] = j;
      row_entry_[slot] = k;
    }
  }
}

void Structure::find_singletons() {
  kkt_index_.assign(m_, -1);
  kkt_size_ = n_;
  std::vector<bool> is_condensed(m_, false);
  for (const CurvedCone& cone : cones_) {
    std::fill(is_condensed.begin() + cone.start, is_condensed.begin() + cone.end(),
              cone.is_condensed());
  }
  for (int i = 0; i < m_; ++i) {
    if (is_condensed[i]) continue;
    const bool is_inequality = i >= num_zero_ && i < num_linear_;
    if (is_inequality && row_start_[i + 1] - row_start_[i] == 1) {
      singleton_row_.push_back(i);
      singleton_column_.push_back(row_column_[row_start_[i]]);
      singleton_entry_.push_back(row_entry_[row_start_[i]]);
    } else {
      kkt_index_[i] = kkt_size_++;
    }
  }
}

void Structure::build_mixed() {
  mixed_start_.push_back(0);
  for (const CurvedCone& cone : cones_) {
    if (cone.is_condensed()) {
      build_terms(cone);
      continue;
    }
    std::map<int, std::vector<std::pair<int, int>>> columns;  // column → (local row, entry)
    for (int a = 0; a < cone.size; ++a) {
      const int row = cone.start + a;
      for (int t = row_start_[row]; t < row_start_[row + 1]; ++t) {
        columns[row_column_[t]].emplace_back(a, row_entry_[t]);
      }
    }
    for (const auto& [column, entries] : columns) {
      mixed_column_.push_back(column);
      const size_t base = mixed_source_.size();
      mixed_source_.resize(base + cone.size, -1);
      for (const auto& [a, entry] : entries) mixed_source_[base + a] = entry;
    }
    mixed_start_.push_back(static_cast<int>(mixed_column_.size()));
    term_start_.resize(mixed_column_.size(), static_cast<int>(term_row_.size()));
  }
  term_start_.push_back(static_cast<int>(term_row_.size()));
}

void Structure::build_terms(const CurvedCone& cone) {
  struct Term {
    int row, column, entry;
  };
  std::map<int, std::vector<Term>> columns;
  int next = cone.start;
  for (int q = 0; q < cone.order(); ++q) {
    for (int p = q; p < cone.order(); ++p, ++next) {
      for (int t = row_start_[next]; t < row_start_[next + 1]; ++t) {
        columns[row_column_[t]].push_back({p, q, row_entry_[t]});
      }
    }
  }
  std::vector<int> order;
  for (const auto& [column, terms] : columns) order.push_back(column);
  std::stable_sort(order.begin(), order.end(), [&](int first, int second) {
    return columns[first].size() > columns[second].size();
  });
  for (int column : order) {
    mixed_column_.push_back(column);
    term_start_.push_back(static_cast<int>(term_row_.size()));
    for (const Term& term : columns[column]) {
      term_row_.push_back(term.row);
      term_column_.push_back(term.column);
      term_entry_.push_back(term.entry);
    }
  }
  mixed_start_.push_back(static_cast<int>(mixed_column_.size()));
}

void Structure::build_plan(Plan& plan, bool mixes_cone_rows) const {
  std::vector<int> row, col;
  auto add = [&](int i, int j) {
    row.push_back(i);
    col.push_back(j);
  };
  for (int j = 0; j < n_; ++j) {
    for (int k = P_start_[j]; k < P_start_[j + 1]; ++k) add(P_row_[k], j);
    for (int k = A_start_[j]; k < A_start_[j + 1]; ++k) {
      const int i = A_row_[k];
      if (kkt_index_[i] >= 0 && !(mixes_cone_rows && i >= num_linear_)) add(kkt_index_[i], j);
    }
  }
  for (size_t k = 0; k < cones_.size(); ++k) {
    if (cones_[k].is_condensed()) {
      for_each_pair(k, add);
      continue;
    }
    const int* rows = kkt_index_.data() + cones_[k].start;
    for (int a = 0; a < cones_[k].size; ++a) {
      const int i = rows[a];
      for (int c = 0; c < a; ++c) add(i, rows[c]);
      if (!mixes_cone_rows) continue;
      for (int c = mixed_start_[k]; c < mixed_start_[k + 1]; ++c) add(i, mixed_column_[c]);
    }
  }
  std::vector<signed char> sign(kkt_size_, -1);
  std::fill(sign.begin(), sign.begin() + n_, static_cast<signed char>(1));
  std::vector<bool> is_late(kkt_size_, false);
  for (int i = 0; i < num_zero_; ++i) is_late[kkt_index_[i]] = true;
  plan.symbolic = std::make_unique<Symbolic>(kkt_size_, row, col, sign, is_late);

  const Symbolic& symbolic = *plan.symbolic;
  const SymbolicView symbolic_view = symbolic.view();
  for (int j = 0; j < n_; ++j) {
    plan.variable_position.push_back(symbolic_view.position[j]);
    plan.variable_diagonal.push_back(symbolic.entry(j, j));
    for (int k = P_start_[j]; k < P_start_[j + 1]; ++k) {
      plan.P_entry.push_back(symbolic.entry(P_row_[k], j));
    }
    for (int k = A_start_[j]; k < A_start_[j + 1]; ++k) {
      const int i = A_row_[k];
      const bool stands_alone = kkt_index_[i] >= 0 && !(mixes_cone_rows && i >= num_linear_);
      plan.A_entry.push_back(stands_alone ? symbolic.entry(kkt_index_[i], j) : -1);
    }
  }
  for (int i = 0; i < m_; ++i) {
    const int index = kkt_index_[i];
    plan.row_position.push_back(index < 0 ? -1 : symbolic_view.position[index]);
    plan.row_diagonal.push_back(index < 0 ? -1 : symbolic.entry(index, index));
  }
  for (size_t k = 0; k < cones_.size(); ++k) {
    if (cones_[k].is_condensed()) {
      for_each_pair(k, [&](int i, int j) { plan.condensed_entry.push_back(symbolic.entry(i, j)); });
      continue;
    }
    const int* rows = kkt_index_.data() + cones_[k].start;
    for (int a = 0; a < cones_[k].size; ++a) {
      for (int c = 0; c <= a; ++c) plan.block.push_back(symbolic.entry(rows[a], rows[c]));
    }
    if (!mixes_cone_rows) continue;
    for (int c = mixed_start_[k]; c < mixed_start_[k + 1]; ++c) {
      for (int a = 0; a < cones_[k].size; ++a) {
        plan.mixed_entry.push_back(symbolic.entry(rows[a], mixed_column_[c]));
      }
    }
  }
}

KktPlan Structure::plan_view(const Plan& plan) const {
  return {plan.symbolic->view(),    plan.variable_position.data(),
          plan.row_position.data(), plan.P_entry.data(),
          plan.A_entry.data(),      plan.variable_diagonal.data(),
          plan.row_diagonal.data(), plan.block.data(),
          plan.mixed_entry.data(),  plan.condensed_entry.data()};
}

void Structure::build_view() {
  view_.n = n_;
  view_.m = m_;
  view_.num_zero = num_zero_;
  view_.num_linear = num_linear_;
  view_.num_cones = static_cast<int>(cones_.size());
  view_.cones = cones_.data();
  view_.degree = num_linear_ - num_zero_;
  view_.has_condensed = false;
  for (const CurvedCone& cone : cones_) {
    view_.degree += cone.degree();
    view_.has_condensed |= cone.is_condensed();
  }
  view_.P_start = P_start_.data();
  view_.P_row = P_row_.data();
  view_.A_start = A_start_.data();
  view_.A_row = A_row_.data();
  view_.row_start = row_start_.data();
  view_.row_column = row_column_.data();
  view_.row_entry = row_entry_.data();
  view_.num_P = static_cast<int>(P_row_.size());
  view_.num_A = static_cast<int>(A_row_.size());
  view_.num_singletons = static_cast<int>(singleton_row_.size());
  view_.singleton_row = singleton_row_.data();
  view_.singleton_column = singleton_column_.data();
  view_.singleton_entry = singleton_entry_.data();
  view_.mixed_start = mixed_start_.data();
  view_.mixed_column = mixed_column_.data();
  view_.mixed_source = mixed_source_.data();
  view_.term_start = term_start_.data();
  view_.term_row = term_row_.data();
  view_.term_column = term_column_.data();
  view_.term_entry = term_entry_.data();
  view_.solve = plan_view(solve_);
  view_.adjoint = plan_view(adjoint());
}

}  // namespace cvxlayer
