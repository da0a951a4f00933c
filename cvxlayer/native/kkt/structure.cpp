// SPDX-License-Identifier: Apache-2.0
#include "structure.hpp"

#include <algorithm>
#include <map>
#include <utility>

namespace cvxlayer {

namespace {

/// The column of each entry of a matrix in CSC form.
std::vector<int> find_columns(const std::vector<int>& start) {
  std::vector<int> column;
  for (int j = 0; j + 1 < static_cast<int>(start.size()); ++j) {
    column.insert(column.end(), static_cast<size_t>(start[j + 1] - start[j]), j);
  }
  return column;
}

}  // namespace

Structure::Structure(int n, int num_zero, int num_nonnegative, std::vector<CurvedCone> cones,
                     std::vector<int> P_start, std::vector<int> P_row, std::vector<int> A_start,
                     std::vector<int> A_row, int largest_block, bool is_convex)
    : n_(n),
      num_zero_(num_zero),
      num_linear_(num_zero + num_nonnegative),
      cones_(std::move(cones)),
      P_start_(std::move(P_start)),
      P_row_(std::move(P_row)),
      A_start_(std::move(A_start)),
      A_row_(std::move(A_row)),
      P_column_(find_columns(P_start_)),
      A_column_(find_columns(A_start_)) {
  m_ = num_linear_;
  for (CurvedCone& cone : cones_) {
    cone.start = m_;
    m_ = cone.end();
    cone.is_bordered = cone.kind == ConeKind::kSecondOrder && cone.size > largest_block;
    has_blocks_ = has_blocks_ || cone.has_block();
  }
  build_rows();
  find_singletons();
  build_mixed();
  choose_folded(solve_);
  build_plan(solve_, false);
  if (has_blocks_) build_plan(adjoint_, true);
  build_range_space();
  if (!is_convex && !P_row_.empty()) build_convexity();
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
  // Equalities have no diagonal to be eliminated with, nor have rows of a block one alone.
  std::vector<bool> is_diagonal(m_, false);
  std::fill(is_diagonal.begin() + num_zero_, is_diagonal.begin() + num_linear_, true);
  is_eliminated_.assign(m_, false);
  is_in_block_.assign(m_, false);
  for (const CurvedCone& cone : cones_) {
    for (int i = cone.start; i < cone.end(); ++i) {
      is_eliminated_[i] = cone.is_condensed();
      is_diagonal[i] = cone.is_bordered;
      is_in_block_[i] = cone.has_block();
    }
  }
  for (int i = 0; i < m_; ++i) {
    if (!is_diagonal[i] || row_start_[i + 1] - row_start_[i] != 1) continue;
    is_eliminated_[i] = true;
    singleton_row_.push_back(i);
    singleton_column_.push_back(row_column_[row_start_[i]]);
    singleton_entry_.push_back(row_entry_[row_start_[i]]);
  }
}

void Structure::build_mixed() {
  mixed_start_.push_back(0);
  for (const CurvedCone& cone : cones_) {
    if (cone.is_condensed()) {
      build_terms(cone);
      continue;
    }
    if (cone.is_bordered) {
      build_union(cone);
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

/// The terms of a bordered cone.
void Structure::build_union(const CurvedCone& cone) {
  struct Term {
    int column, row, entry;
  };
  std::vector<Term> terms;
  for (int a = 0; a < cone.size; ++a) {
    for (int t = row_start_[cone.start + a]; t < row_start_[cone.start + a + 1]; ++t) {
      terms.push_back({row_column_[t], a, row_entry_[t]});
    }
  }
  std::stable_sort(terms.begin(), terms.end(), [](const Term& first, const Term& second) {
    return first.column < second.column;
  });
  for (size_t k = 0; k < terms.size(); ++k) {
    if (k == 0 || terms[k].column != terms[k - 1].column) {
      mixed_column_.push_back(terms[k].column);
      term_start_.push_back(static_cast<int>(term_row_.size()));
    }
    term_row_.push_back(terms[k].row);
    term_column_.push_back(0);
    term_entry_.push_back(terms[k].entry);
  }
  mixed_start_.push_back(static_cast<int>(mixed_column_.size()));
}

void Structure::build_convexity() {
  const std::vector<signed char> sign(static_cast<size_t>(n_), 1);
  const std::vector<bool> is_late(static_cast<size_t>(n_), false);
  convexity_ = std::make_unique<Symbolic>(n_, P_row_, P_column_, sign, is_late);
  for (size_t k = 0; k < P_row_.size(); ++k) {
    convexity_entry_.push_back(convexity_->entry(P_row_[k], P_column_[k]));
  }
  for (int j = 0; j < n_; ++j) convexity_diagonal_.push_back(convexity_->entry(j, j));
}

KktPlan Structure::plan_view(const Plan& plan) const {
  return {plan.symbolic->view(),
          plan.variable_position.data(),
          plan.row_position.data(),
          plan.P_entry.data(),
          plan.A_entry.data(),
          plan.variable_diagonal.data(),
          plan.row_diagonal.data(),
          plan.block.data(),
          plan.mixed_entry.data(),
          plan.P_run.data(),
          plan.A_run.data(),
          plan.clear_run.data(),
          static_cast<int>(plan.P_run.size()),
          static_cast<int>(plan.A_run.size()),
          static_cast<int>(plan.clear_run.size()),
          plan.num_borrowed_A_runs,
          plan.num_kept_A_runs,
          plan.condensed_entry.data(),
          plan.border_position.data(),
          plan.border_diagonal.data(),
          plan.border_entry.data(),
          plan.folded_index.data(),
          static_cast<int>(plan.folded.size()),
          plan.folded.data(),
          plan.folded_entry.data(),
          plan.folded_term.data(),
          plan.num_fixed,
          plan.num_fixed == 0
              ? 0
              : plan.symbolic->storage() - plan.symbolic->view().nodes[plan.num_fixed].panel,
          {plan.dense_node,
           plan.dense_node < 0 ? 0 : plan.symbolic->view().nodes[plan.dense_node].width,
           plan.dense_entry.data()},
          plan.rooted_run.data(),
          plan.num_other_rooted_runs,
          static_cast<int>(plan.rooted_run.size())};
}

void Structure::build_view() {
  view_.n = n_;
  view_.m = m_;
  view_.num_zero = num_zero_;
  view_.num_linear = num_linear_;
  view_.num_cones = static_cast<int>(cones_.size());
  view_.cones = cones_.data();
  view_.degree = num_linear_ - num_zero_;
  view_.is_symmetric = true;
  view_.has_condensed = false;
  view_.num_bordered = view_.num_bordered_rows = 0;
  view_.num_bordered_columns = static_cast<int>(solve_.border_entry.size() / 2);
  for (const CurvedCone& cone : cones_) {
    view_.degree += cone.degree();
    view_.is_symmetric = view_.is_symmetric && cone.is_symmetric();
    view_.has_condensed = view_.has_condensed || cone.is_condensed();
    view_.num_bordered += cone.is_bordered;
    view_.num_bordered_rows += cone.is_bordered ? cone.size : 0;
  }
  view_.P_start = P_start_.data();
  view_.P_row = P_row_.data();
  view_.A_start = A_start_.data();
  view_.A_row = A_row_.data();
  view_.P_column = P_column_.data();
  view_.A_column = A_column_.data();
  view_.row_start = row_start_.data();
  view_.row_column = row_column_.data();
  view_.row_entry = row_entry_.data();
  view_.num_P = static_cast<int>(P_row_.size());
  view_.num_A = static_cast<int>(A_row_.size());
  view_.is_P_full = is_P_full();
  view_.is_A_full = static_cast<long>(A_row_.size()) == static_cast<long>(n_) * m_;
  view_.num_singletons = static_cast<int>(singleton_row_.size());
  const auto first_of_cones =
      std::lower_bound(singleton_row_.begin(), singleton_row_.end(), num_linear_);
  view_.num_linear_singletons = static_cast<int>(first_of_cones - singleton_row_.begin());
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
  view_.has_range_space = range_space_.symbolic != nullptr;
  if (view_.has_range_space) view_.range_space = plan_view(range_space_);
  view_.tests_convexity = convexity_ != nullptr;
  if (convexity_ != nullptr) {
    view_.convexity = {convexity_->view(), convexity_entry_.data(), convexity_diagonal_.data()};
  }
}

}  // namespace cvxlayer
