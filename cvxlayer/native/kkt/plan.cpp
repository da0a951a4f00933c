// SPDX-License-Identifier: Apache-2.0
//
// Where every number lies in the KKT matrix of a structure: which rows and variables it has, its
// order, and the place of each entry.
#include <algorithm>
#include <utility>

#include "structure.hpp"

namespace cvxlayer {

namespace {

// A cone of three rows with more entries of A leaves a large dense block where it is folded.
constexpr int kMostFoldedEntries = 6;
// What is kept from one iteration to the next pays for itself in so many; what a number of the
// factor costs in the solves of an iteration, in multiply-adds; and the share of the costs that
// makes up for lanes that wait for one another.
constexpr double kUsualIterations = 10, kPerSolveEntry = 6, kWorthwhileShare = 0.75;
// Moving the active rows of fewer entries of A together costs as much as it saves.
constexpr long kLeastDense = 256;

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

/// Where the rows below a diagonal supernode begin in A, if its pivots lie side by side there, or
/// nothing; `source` is the entry of A of each entry of the factor.
std::vector<int> find_side_by_side(const Supernode& node, const std::vector<long>& source) {
  std::vector<int> first;
  for (int k = 0; k < node.num_below && node.is_diagonal; ++k) {
    const auto row = source.begin() + node.panel + (k + 1L) * node.lead;
    for (int i = 0; i < node.width; ++i) {
      if (row[0] < 0 || row[i] != row[0] + i) return {};
    }
    first.push_back(static_cast<int>(row[0]));
  }
  return first;
}

}  // namespace

std::vector<bool> Structure::find_terms() const {
  std::vector<bool> is_term(n_);
  for (int j = 0; j < n_; ++j) {
    int num_curved = 0;
    bool is_in_matrix = true;
    for (int k = A_start_[j]; k < A_start_[j + 1]; ++k) {
      const int i = A_row_[k];
      num_curved += i >= num_linear_;
      is_in_matrix = is_in_matrix && (i >= num_linear_ || !is_eliminated_[i]);
    }
    is_term[j] = num_curved == 1 && is_in_matrix;
  }
  for (int j = 0; j < n_; ++j) {
    for (int k = P_start_[j]; k < P_start_[j + 1]; ++k) is_term[j] = is_term[P_row_[k]] = false;
  }
  return is_term;
}

/// Cones of three rows with few entries and such a variable, alone in its row.
void Structure::choose_folded(Plan& plan) const {
  const std::vector<bool> is_term = find_terms();
  for (const CurvedCone& cone : cones_) {
    const bool is_three_dimensional =
        cone.kind == ConeKind::kExponential || cone.kind == ConeKind::kPower;
    plan.folded_index.push_back(-1);
    if (!is_three_dimensional) continue;
    const int num_entries = row_start_[cone.end()] - row_start_[cone.start];
    for (int a = 0; a < cone.size; ++a) {
      const int begin = row_start_[cone.start + a];
      if (row_start_[cone.start + a + 1] - begin != 1 || !is_term[row_column_[begin]]) continue;
      const int own = row_column_[begin], num_linear = A_start_[own + 1] - A_start_[own] - 1;
      if (num_entries + num_linear > kMostFoldedEntries) continue;
      plan.folded_index.back() = static_cast<int>(plan.folded.size());
      plan.folded.push_back(
          {cone.start, a, {a == 0 ? 1 : 0, a == 2 ? 1 : 2}, own, row_entry_[begin], 0, 0, 0, 0});
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
    std::vector<int> partners, places;
    cone.entries_begin = static_cast<int>(plan.folded_entry.size());
    cone.terms_begin = static_cast<int>(plan.folded_term.size());
    for_each_folded_entry(cone, index, [&](int place, int row, int entry, int partner) {
      plan.folded_entry.push_back({row, entry, symbolic.view().position[partner]});
      partners.push_back(partner);
      places.push_back(place);
      for (size_t earlier = 0; earlier < partners.size(); ++earlier) {
        const int other = plan.folded_entry[cone.entries_begin + earlier].entry;
        const long target = symbolic.entry(partners[earlier], partner);
        const int in_M = place * (place + 1) / 2 + places[earlier];
        plan.folded_term.push_back({target, other, entry, in_M});
        // Entries of one column meet twice on the diagonal.
        if (partners[earlier] == partner && earlier + 1 < partners.size()) {
          plan.folded_term.push_back(plan.folded_term.back());
        }
      }
    });
    cone.entries_end = static_cast<int>(plan.folded_entry.size());
    cone.terms_end = static_cast<int>(plan.folded_term.size());
  }
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
      if (stands_alone(index, i, j, mixes_cone_rows)) add(index.row[i], index.variable[j]);
    }
  }
  for (const FoldedCone& cone : plan.folded) {
    std::vector<int> partners;
    for_each_folded_entry(cone, index, [&](int, int, int, int partner) {
      for (int other : partners) {
        if (other != partner) add(partner, other);
      }
      partners.push_back(partner);
    });
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
  place_entries(plan, index, mixes_cone_rows);
}

/// Variables before rows, for dense P and rows that are all in the matrix: P and A stay as they are
/// from one iteration to the next, and with them the first n pivots and A P⁻¹Aᵀ.
void Structure::build_range_space() {
  if (n_ == 0 || m_ == 0 || !is_P_full() || !cones_.empty() || !singleton_row_.empty()) return;
  const double n = n_, m = m_, numbers = 0.5 * n * (n + 1) + n * m + 0.5 * m * (m + 1);
  const double once = n * n * n / 6 + 0.5 * n * m * (n + m), each = m * m * m / 6;
  const double others = solve_.symbolic->multiply_adds(), other_numbers = numbers - 0.5 * m * m;
  const double cost = once / kUsualIterations + each + kPerSolveEntry * numbers;
  if (cost > kWorthwhileShare * (others + kPerSolveEntry * other_numbers)) return;
  range_space_.symbolic = std::make_unique<Symbolic>(n_, m_);
  range_space_.num_fixed = 1;
  place_entries(range_space_, number(range_space_), false);
}

void Structure::place_entries(Plan& plan, const Numbering& index, bool mixes_cone_rows) const {
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
      const bool has_place = stands_alone(index, i, j, mixes_cone_rows);
      plan.A_entry.push_back(has_place ? symbolic.entry(index.row[i], own) : -1);
    }
  }
  for (int own : index.row) {
    plan.row_position.push_back(own < 0 ? -1 : symbolic_view.position[own]);
    plan.row_diagonal.push_back(own < 0 ? -1 : symbolic.entry(own, own));
  }
  add_folded_terms(plan, index);
  place_cones(plan, index, mixes_cone_rows);
  find_dense_rows(plan);
  build_rooted_runs(plan);
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

std::vector<bool> Structure::find_sums(const Plan& plan) {
  std::vector<bool> is_sum(static_cast<size_t>(plan.symbolic->storage()), false);
  for (const FoldedTerm& term : plan.folded_term) is_sum[static_cast<size_t>(term.target)] = true;
  return is_sum;
}

/// Let diagonal supernodes whose rows lie in A as they do in the panel take them from there, and
/// choose the largest one whose pivots are linear rows.
void Structure::find_dense_rows(Plan& plan) const {
  const SymbolicView symbolic = plan.symbolic->view();
  const std::vector<bool> is_sum = find_sums(plan);
  std::vector<long> source(static_cast<size_t>(symbolic.storage), -1);
  for (size_t t = 0; t < plan.A_entry.size(); ++t) {
    const long target = plan.A_entry[t];
    if (target < 0 || is_sum[static_cast<size_t>(target)]) continue;
    source[static_cast<size_t>(target)] = static_cast<long>(t);
  }
  long largest = kLeastDense - 1;
  for (int k = 0; k < symbolic.num_nodes; ++k) {
    const Supernode& node = symbolic.nodes[k];
    const std::vector<int> first = find_side_by_side(node, source);
    if (first.empty()) continue;
    bool is_as_in_A = true;
    for (int r = 0; r < node.num_below; ++r) {
      is_as_in_A = is_as_in_A && first[r] == first[0] + r * node.width;
    }
    if (is_as_in_A) plan.symbolic->borrow_rows(k, first[0]);
    const long size = static_cast<long>(node.width) * node.num_below;
    const int last_row = A_row_[first[0] + node.width - 1];
    if (last_row >= num_linear_ || size <= largest) continue;
    largest = size;
    plan.dense_node = k;
    plan.dense_entry = first;
  }
}

/// Collect the entries of A in linear rows, those of the dense rows last.
void Structure::build_rooted_runs(Plan& plan) const {
  std::vector<long> others = plan.A_entry, dense(plan.A_entry.size(), -1);
  for (size_t t = 0; t < others.size(); ++t) {
    if (A_row_[t] >= num_linear_) others[t] = -1;
  }
  for (const int first : plan.dense_entry) {
    const auto begin = others.begin() + first;
    const auto end = begin + plan.symbolic->view().nodes[plan.dense_node].width;
    std::swap_ranges(begin, end, dense.begin() + first);
  }
  plan.rooted_run = find_runs(others);
  plan.num_other_rooted_runs = static_cast<int>(plan.rooted_run.size());
  for (const EntryRun& run : find_runs(dense)) plan.rooted_run.push_back(run);
}

void Structure::build_runs(Plan& plan) const {
  plan.P_run = find_runs(plan.P_entry);
  const SymbolicView symbolic = plan.symbolic->view();
  const std::vector<bool> is_sum = find_sums(plan);
  // What need not be copied comes first, then what a factorization leaves as it is.
  std::vector<long> borrowed = plan.A_entry, kept = plan.A_entry, others = plan.A_entry;
  for (size_t k = 0; k < kept.size(); ++k) {
    if (kept[k] < 0) continue;
    const Supernode& node = symbolic.node_at(kept[k]);
    const bool is_kept = node.is_diagonal && !is_sum[static_cast<size_t>(kept[k])];
    if (node.borrowed < 0) borrowed[k] = -1;
    if (node.borrowed >= 0 || !is_kept) kept[k] = -1;
    if (is_kept) others[k] = -1;
  }
  plan.A_run = find_runs(borrowed);
  plan.num_borrowed_A_runs = static_cast<int>(plan.A_run.size());
  for (const EntryRun& run : find_runs(kept)) plan.A_run.push_back(run);
  plan.num_kept_A_runs = static_cast<int>(plan.A_run.size());
  for (const EntryRun& run : find_runs(others)) plan.A_run.push_back(run);
  std::vector<bool> is_assigned(static_cast<size_t>(plan.symbolic->storage()), false);
  auto assign = [&](const std::vector<long>& entries, size_t count) {
    for (size_t k = 0; k < count; ++k) {
      if (entries[k] >= 0) is_assigned[static_cast<size_t>(entries[k])] = true;
    }
  };
  assign(plan.P_entry, plan.P_entry.size());
  assign(plan.A_entry, plan.A_entry.size());
  if (plan.num_fixed == 0) assign(plan.row_diagonal, static_cast<size_t>(num_linear_));
  assign(plan.border_diagonal, plan.border_diagonal.size());
  assign(plan.border_entry, plan.border_entry.size());
  // The upper part of a dense diagonal block is never read, nor is what lies behind the rows.
  for (int k = 0; k < symbolic.num_nodes; ++k) {
    const Supernode& node = symbolic.nodes[k];
    for (int i = 0; i < node.head_rows() + node.num_below && !node.is_diagonal; ++i) {
      const auto row = is_assigned.begin() + node.panel + static_cast<long>(i) * node.lead;
      std::fill(row + std::min(i + 1, node.width), row + node.lead, true);
    }
  }
  std::vector<long> left;
  for (long k = 0; k < plan.symbolic->storage(); ++k) {
    if (!is_assigned[static_cast<size_t>(k)]) left.push_back(k);
  }
  plan.clear_run = find_runs(left);
}

}  // namespace cvxlayer
