// SPDX-License-Identifier: Apache-2.0
#include "structure.hpp"

#include <algorithm>
#include <map>
#include <utility>

namespace cvxlayer {

namespace {

/// The places `entry`, without the negative ones, as runs of constant stride.
std::vector<EntryRun> find_runs(const std::vector<long>& entry) {
  std::vector<EntryRun> runs;
  for (int k = 0; k < static_cast<int>(entry.size()); ++k) {
    if (entry[k] < 0) continue;
    if (!runs.empty() && runs.back().source + runs.back().count == k) {
      EntryRun& last = runs.back();
      const long step = entry[k] - (last.target + (last.count - 1) * last.stride);
      if (last.count == 1) last.stride = step;
      if (last.stride == step) {
        ++last.count;
        continue;
      }
    }
    runs.push_back({entry[k], 1, k, 1});
  }
  return runs;
}

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
                     std::vector<int> A_row, int largest_block)
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
  build_plan(solve_, false);
  if (has_blocks_) build_plan(adjoint_, true);
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
  // Equalities have no diagonal to be eliminated with, nor have rows of a block one alone.
  std::vector<bool> is_condensed(m_, false), is_diagonal(m_, false);
  std::fill(is_diagonal.begin() + num_zero_, is_diagonal.begin() + num_linear_, true);
  is_in_block_.assign(m_, false);
  for (const CurvedCone& cone : cones_) {
    for (int i = cone.start; i < cone.end(); ++i) {
      is_condensed[i] = cone.is_condensed();
      is_diagonal[i] = cone.is_bordered;
      is_in_block_[i] = cone.has_block();
    }
  }
  for (int i = 0; i < m_; ++i) {
    if (is_condensed[i]) continue;
    if (is_diagonal[i] && row_start_[i + 1] - row_start_[i] == 1) {
      singleton_row_.push_back(i);
      singleton_column_.push_back(row_column_[row_start_[i]]);
      singleton_entry_.push_back(row_entry_[row_start_[i]]);
    } else {
      kkt_index_[i] = kkt_size_++;
    }
  }
  for (const CurvedCone& cone : cones_) {
    if (!cone.is_bordered) continue;
    border_index_.push_back(kkt_size_);
    kkt_size_ += 2;
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

void Structure::add_entries(std::vector<int>& row, std::vector<int>& col,
                            bool mixes_cone_rows) const {
  auto add = [&](int i, int j) {
    row.push_back(i);
    col.push_back(j);
  };
  for (int j = 0; j < n_; ++j) {
    for (int k = P_start_[j]; k < P_start_[j + 1]; ++k) add(P_row_[k], j);
    for (int k = A_start_[j]; k < A_start_[j + 1]; ++k) {
      const int i = A_row_[k];
      if (stands_alone(i, mixes_cone_rows)) add(kkt_index_[i], j);
    }
  }
  for (size_t k = 0, border = 0; k < cones_.size(); ++k) {
    if (cones_[k].is_condensed()) {
      for_each_pair(k, add);
      continue;
    }
    if (cones_[k].is_bordered) {
      for (int c = mixed_start_[k]; c < mixed_start_[k + 1]; ++c) {
        add(border_index_[border], mixed_column_[c]);
        add(border_index_[border] + 1, mixed_column_[c]);
      }
      ++border;
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
}

std::unique_ptr<Symbolic> Structure::analyze(bool mixes_cone_rows) const {
  std::vector<int> row, col;
  add_entries(row, col, mixes_cone_rows);
  std::vector<signed char> sign(kkt_size_, -1);
  std::fill(sign.begin(), sign.begin() + n_, static_cast<signed char>(1));
  std::vector<bool> is_late(kkt_size_, false);
  for (int i = 0; i < num_zero_; ++i) is_late[kkt_index_[i]] = true;
  std::fill(is_late.begin(), is_late.begin() + n_, true);
  for (int j : singleton_column_) is_late[j] = false;
  for (int j = 0; j < n_; ++j) {
    const int end = P_start_[j + 1];
    if (end > P_start_[j] && P_row_[end - 1] == j) is_late[j] = false;
  }
  for (int index : border_index_) {
    sign[index + 1] = 1;
    is_late[index] = is_late[index + 1] = true;
  }
  return std::make_unique<Symbolic>(kkt_size_, row, col, sign, is_late);
}

void Structure::build_plan(Plan& plan, bool mixes_cone_rows) const {
  plan.symbolic = analyze(mixes_cone_rows);
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
      const bool has_place = stands_alone(i, mixes_cone_rows);
      plan.A_entry.push_back(has_place ? symbolic.entry(kkt_index_[i], j) : -1);
    }
  }
  for (int i = 0; i < m_; ++i) {
    const int index = kkt_index_[i];
    plan.row_position.push_back(index < 0 ? -1 : symbolic_view.position[index]);
    plan.row_diagonal.push_back(index < 0 ? -1 : symbolic.entry(index, index));
  }
  place_cones(plan, mixes_cone_rows);
  build_runs(plan);
}

void Structure::place_cones(Plan& plan, bool mixes_cone_rows) const {
  const Symbolic& symbolic = *plan.symbolic;
  const int* position = symbolic.view().position;
  for (size_t k = 0, border = 0; k < cones_.size(); ++k) {
    if (cones_[k].is_bordered) {
      const int stiff = border_index_[border++];
      for (int index : {stiff, stiff + 1}) {
        plan.border_position.push_back(position[index]);
        plan.border_diagonal.push_back(symbolic.entry(index, index));
      }
      for (int c = mixed_start_[k]; c < mixed_start_[k + 1]; ++c) {
        plan.border_entry.push_back(symbolic.entry(stiff, mixed_column_[c]));
        plan.border_entry.push_back(symbolic.entry(stiff + 1, mixed_column_[c]));
      }
      continue;
    }
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

void Structure::build_runs(Plan& plan) const {
  plan.P_run = find_runs(plan.P_entry);
  plan.A_run = find_runs(plan.A_entry);
  std::vector<bool> is_assigned(static_cast<size_t>(plan.symbolic->storage()), false);
  auto assign = [&](const std::vector<long>& entries, size_t count) {
    for (size_t k = 0; k < count; ++k) {
      if (entries[k] >= 0) is_assigned[static_cast<size_t>(entries[k])] = true;
    }
  };
  assign(plan.P_entry, plan.P_entry.size());
  assign(plan.A_entry, plan.A_entry.size());
  assign(plan.row_diagonal, static_cast<size_t>(num_linear_));
  assign(plan.border_diagonal, plan.border_diagonal.size());
  assign(plan.border_entry, plan.border_entry.size());
  // The upper part of a dense diagonal block is never read.
  const SymbolicView symbolic = plan.symbolic->view();
  for (int k = 0; k < symbolic.num_nodes; ++k) {
    const Supernode& node = symbolic.nodes[k];
    for (int i = 0; i < node.width && !node.is_diagonal; ++i) {
      const auto row = is_assigned.begin() + node.panel + static_cast<long>(i) * node.width;
      std::fill(row + i + 1, row + node.width, true);
    }
  }
  std::vector<long> left;
  for (long k = 0; k < plan.symbolic->storage(); ++k) {
    if (!is_assigned[static_cast<size_t>(k)]) left.push_back(k);
  }
  plan.clear_run = find_runs(left);
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
          plan.condensed_entry.data(),
          plan.border_position.data(),
          plan.border_diagonal.data(),
          plan.border_entry.data()};
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
  view_.is_P_full = static_cast<long>(P_row_.size()) == static_cast<long>(n_) * (n_ + 1) / 2;
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
}

}  // namespace cvxlayer
