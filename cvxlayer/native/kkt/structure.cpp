// SPDX-License-Identifier: Apache-2.0
#include "structure.hpp"

#include <algorithm>
#include <map>
#include <utility>

namespace cvxlayer {

namespace {

// A cone of three rows with more entries of A leaves a large dense block where it is folded.
constexpr int kMostFoldedEntries = 6;

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
  choose_folded(solve_);
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

/// Cones of three rows with few entries and a variable that appears nowhere else, alone in its row.
void Structure::choose_folded(Plan& plan) const {
  std::vector<bool> is_alone(n_);
  for (int j = 0; j < n_; ++j) is_alone[j] = A_start_[j + 1] - A_start_[j] == 1;
  for (int j = 0; j < n_; ++j) {
    for (int k = P_start_[j]; k < P_start_[j + 1]; ++k) is_alone[j] = is_alone[P_row_[k]] = false;
  }
  for (const CurvedCone& cone : cones_) {
    const bool is_three_dimensional =
        cone.kind == ConeKind::kExponential || cone.kind == ConeKind::kPower;
    plan.folded_index.push_back(-1);
    if (!is_three_dimensional) continue;
    if (row_start_[cone.end()] - row_start_[cone.start] > kMostFoldedEntries) continue;
    for (int a = 0; a < cone.size; ++a) {
      const int begin = row_start_[cone.start + a];
      if (row_start_[cone.start + a + 1] - begin != 1 || !is_alone[row_column_[begin]]) continue;
      plan.folded_index.back() = static_cast<int>(plan.folded.size());
      plan.folded.push_back({cone.start,
                             a,
                             {a == 0 ? 1 : 0, a == 2 ? 1 : 2},
                             row_column_[begin],
                             row_entry_[begin],
                             0,
                             0,
                             0,
                             0});
      break;
    }
  }
}

Structure::Numbering Structure::number(const Plan& plan) const {
  std::vector<bool> is_folded_variable(n_, false), is_folded_row(m_, false);
  for (const FoldedCone& cone : plan.folded) {
    is_folded_variable[cone.own_variable] = true;
    for (int a = 0; a < 3; ++a) is_folded_row[cone.start + a] = true;
  }
  Numbering index;
  for (int j = 0; j < n_; ++j) index.variable.push_back(is_folded_variable[j] ? -1 : index.size++);
  for (int i = 0; i < m_; ++i) {
    index.row.push_back(is_eliminated_[i] || is_folded_row[i] ? -1 : index.size++);
  }
  for (const CurvedCone& cone : cones_) {
    if (!cone.is_bordered) continue;
    index.border.push_back(index.size);
    index.size += 2;
  }
  return index;
}

/// The entries of A in folded cones, and where their products go.
void Structure::add_folded_terms(Plan& plan, const Numbering& index) const {
  const Symbolic& symbolic = *plan.symbolic;
  for (FoldedCone& cone : plan.folded) {
    std::vector<int> columns;
    cone.entries_begin = static_cast<int>(plan.folded_entry.size());
    cone.terms_begin = static_cast<int>(plan.folded_term.size());
    for (int place_of_row = 0; place_of_row < 2; ++place_of_row) {
      const int a = cone.other_rows[place_of_row];
      for (int t = row_start_[cone.start + a]; t < row_start_[cone.start + a + 1]; ++t) {
        const int j = row_column_[t];
        plan.folded_entry.push_back({a, row_entry_[t], plan.variable_position[j]});
        columns.push_back(index.variable[j]);
        for (int earlier = 0; earlier < static_cast<int>(columns.size()); ++earlier) {
          const FoldedEntry& other = plan.folded_entry[cone.entries_begin + earlier];
          const long target = symbolic.entry(columns[earlier], columns.back());
          const int place = place_of_row + (other.row == a ? place_of_row : 0);
          plan.folded_term.push_back({target, other.entry, row_entry_[t], place});
          // Entries of one column meet twice on the diagonal.
          const bool is_same = earlier + 1 == static_cast<int>(columns.size());
          if (columns[earlier] == columns.back() && !is_same) {
            plan.folded_term.push_back(plan.folded_term.back());
          }
        }
      }
    }
    cone.entries_end = static_cast<int>(plan.folded_entry.size());
    cone.terms_end = static_cast<int>(plan.folded_term.size());
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

void Structure::add_entries(const Plan& plan, const Numbering& index, std::vector<int>& row,
                            std::vector<int>& col, bool mixes_cone_rows) const {
  auto add = [&](int i, int j) {
    row.push_back(i);
    col.push_back(j);
  };
  for (int j = 0; j < n_; ++j) {
    for (int k = P_start_[j]; k < P_start_[j + 1]; ++k) {
      add(index.variable[P_row_[k]], index.variable[j]);
    }
    for (int k = A_start_[j]; k < A_start_[j + 1]; ++k) {
      const int i = A_row_[k];
      if (stands_alone(index, i, mixes_cone_rows)) add(index.row[i], index.variable[j]);
    }
  }
  for (const FoldedCone& cone : plan.folded) {
    for (int s = row_start_[cone.start]; s < row_start_[cone.start + 3]; ++s) {
      for (int t = row_start_[cone.start]; t < s; ++t) {
        const int i = index.variable[row_column_[s]], j = index.variable[row_column_[t]];
        if (i >= 0 && j >= 0 && i != j) add(i, j);
      }
    }
  }
  for (size_t k = 0, border = 0; k < cones_.size(); ++k) {
    if (cones_[k].is_condensed()) {
      for_each_pair(k, [&](int i, int j) { add(index.variable[i], index.variable[j]); });
      continue;
    }
    if (cones_[k].is_bordered) {
      for (int c = mixed_start_[k]; c < mixed_start_[k + 1]; ++c) {
        add(index.border[border], index.variable[mixed_column_[c]]);
        add(index.border[border] + 1, index.variable[mixed_column_[c]]);
      }
      ++border;
      continue;
    }
    const int* rows = index.row.data() + cones_[k].start;
    if (rows[0] < 0) continue;
    for (int a = 0; a < cones_[k].size; ++a) {
      const int i = rows[a];
      for (int c = 0; c < a; ++c) add(i, rows[c]);
      if (!mixes_cone_rows) continue;
      for (int c = mixed_start_[k]; c < mixed_start_[k + 1]; ++c) {
        add(i, index.variable[mixed_column_[c]]);
      }
    }
  }
}

/// Pivots of no more than δ come late: equalities, borders, and variables without a diagonal.
std::unique_ptr<Symbolic> Structure::analyze(const Plan& plan, const Numbering& index,
                                             bool mixes_cone_rows) const {
  std::vector<int> row, col;
  add_entries(plan, index, row, col, mixes_cone_rows);
  std::vector<bool> has_diagonal(n_, false);
  for (int j : singleton_column_) has_diagonal[j] = true;
  for (const FoldedCone& cone : plan.folded) {
    for (int t = row_start_[cone.start]; t < row_start_[cone.start + 3]; ++t) {
      has_diagonal[row_column_[t]] = true;
    }
  }
  std::vector<signed char> sign(index.size, -1);
  std::vector<bool> is_late(index.size, false);
  for (int i = 0; i < num_zero_; ++i) is_late[index.row[i]] = true;
  for (int j = 0; j < n_; ++j) {
    if (index.variable[j] < 0) continue;
    const int end = P_start_[j + 1];
    const bool is_quadratic = end > P_start_[j] && P_row_[end - 1] == j;
    sign[index.variable[j]] = 1;
    is_late[index.variable[j]] = !is_quadratic && !has_diagonal[j];
  }
  for (int stiff : index.border) {
    sign[stiff + 1] = 1;
    is_late[stiff] = is_late[stiff + 1] = true;
  }
  return std::make_unique<Symbolic>(index.size, row, col, sign, is_late);
}

void Structure::build_plan(Plan& plan, bool mixes_cone_rows) const {
  const Numbering index = number(plan);
  plan.symbolic = analyze(plan, index, mixes_cone_rows);
  const Symbolic& symbolic = *plan.symbolic;
  const SymbolicView symbolic_view = symbolic.view();
  for (int j = 0; j < n_; ++j) {
    const int own = index.variable[j];
    plan.variable_position.push_back(own < 0 ? -1 : symbolic_view.position[own]);
    plan.variable_diagonal.push_back(own < 0 ? -1 : symbolic.entry(own, own));
    for (int k = P_start_[j]; k < P_start_[j + 1]; ++k) {
      plan.P_entry.push_back(symbolic.entry(index.variable[P_row_[k]], own));
    }
    for (int k = A_start_[j]; k < A_start_[j + 1]; ++k) {
      const int i = A_row_[k];
      const bool has_place = stands_alone(index, i, mixes_cone_rows);
      plan.A_entry.push_back(has_place ? symbolic.entry(index.row[i], own) : -1);
    }
  }
  for (int own : index.row) {
    plan.row_position.push_back(own < 0 ? -1 : symbolic_view.position[own]);
    plan.row_diagonal.push_back(own < 0 ? -1 : symbolic.entry(own, own));
  }
  add_folded_terms(plan, index);
  place_cones(plan, index, mixes_cone_rows);
  build_runs(plan);
}

void Structure::place_cones(Plan& plan, const Numbering& index, bool mixes_cone_rows) const {
  const Symbolic& symbolic = *plan.symbolic;
  const int* position = symbolic.view().position;
  for (size_t k = 0, border = 0; k < cones_.size(); ++k) {
    if (cones_[k].is_bordered) {
      const int stiff = index.border[border++];
      for (int own : {stiff, stiff + 1}) {
        plan.border_position.push_back(position[own]);
        plan.border_diagonal.push_back(symbolic.entry(own, own));
      }
      for (int c = mixed_start_[k]; c < mixed_start_[k + 1]; ++c) {
        const int column = index.variable[mixed_column_[c]];
        plan.border_entry.push_back(symbolic.entry(stiff, column));
        plan.border_entry.push_back(symbolic.entry(stiff + 1, column));
      }
      continue;
    }
    if (cones_[k].is_condensed()) {
      for_each_pair(k, [&](int i, int j) {
        plan.condensed_entry.push_back(symbolic.entry(index.variable[i], index.variable[j]));
      });
      continue;
    }
    const int* rows = index.row.data() + cones_[k].start;
    if (rows[0] < 0) continue;
    for (int a = 0; a < cones_[k].size; ++a) {
      for (int c = 0; c <= a; ++c) plan.block.push_back(symbolic.entry(rows[a], rows[c]));
    }
    if (!mixes_cone_rows) continue;
    for (int c = mixed_start_[k]; c < mixed_start_[k + 1]; ++c) {
      for (int a = 0; a < cones_[k].size; ++a) {
        plan.mixed_entry.push_back(symbolic.entry(rows[a], index.variable[mixed_column_[c]]));
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
          plan.border_entry.data(),
          plan.folded_index.data(),
          static_cast<int>(plan.folded.size()),
          plan.folded.data(),
          plan.folded_entry.data(),
          plan.folded_term.data()};
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
