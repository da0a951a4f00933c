// SPDX-License-Identifier: Apache-2.0
#include "ordering.hpp"

#include <algorithm>
#include <cmath>
#include <cstdint>

namespace cvxlayer {

Graph::Graph(int dim, const std::vector<int>& row, const std::vector<int>& col)
    : start(dim + 1, 0) {
  for (size_t k = 0; k < row.size(); ++k) {
    if (row[k] == col[k]) continue;
    ++start[row[k] + 1];
    ++start[col[k] + 1];
  }
  for (int i = 0; i < dim; ++i) start[i + 1] += start[i];
  neighbor.resize(start[dim]);
  std::vector<int> next(start.begin(), start.end() - 1);
  for (size_t k = 0; k < row.size(); ++k) {
    if (row[k] == col[k]) continue;
    neighbor[next[row[k]]++] = col[k];
    neighbor[next[col[k]]++] = row[k];
  }
  std::vector<int> seen(dim, -1);
  int kept = 0;
  for (int i = 0; i < dim; ++i) {
    const int begin = start[i], end = start[i + 1];
    start[i] = kept;
    for (int k = begin; k < end; ++k) {
      if (seen[neighbor[k]] == i) continue;
      seen[neighbor[k]] = i;
      neighbor[kept++] = neighbor[k];
    }
  }
  start[dim] = kept;
  neighbor.resize(kept);
}

namespace {

/// Amestoy, Davis & Duff, An approximate minimum degree ordering algorithm (SIAM J. Matrix
/// Anal. Appl. 17, 1996). A *variable* still stands for one or more rows with the same
/// neighbors; an *element* is the clique left by an eliminated one. Each variable keeps the
/// list of its neighbors that no element covers, then that of its elements.
class MinimumDegree {
 public:
  MinimumDegree(const Graph& graph, const std::vector<bool>& is_late, DegreeKind kind);
  std::vector<int> run();

 private:
  void set_aside_dense_rows();
  int pop();
  void release_late();
  void eliminate(int pivot);
  void build_element(int pivot);
  void measure_elements(int pivot);
  void update_variable(int i, int pivot);
  void merge_alike();
  bool is_marked(int j) const;
  void emit(int i);
  void insert(int i);
  void remove(int i);
  bool is_variable(int i) const { return weight_[i] > 0; }

  /// Place among the degrees: neighbors outside of the variable, or with its own rows.
  int key(int i) const { return degree_[i] + (kind_ == DegreeKind::kTrue ? weight_[i] - 1 : 0); }

  const DegreeKind kind_;
  const int dim_;
  const std::vector<bool>& is_late_;
  std::vector<int> pool_;                          // every list; those of elements at the end
  std::vector<int> begin_, variables_, elements_;  // start and lengths of both lists
  std::vector<int> weight_;   // rows a variable stands for; 0 for what is no variable
  std::vector<int> degree_;   // of a variable: bound on its neighbors' weight; of an element:
                              // the weight of its variables
  std::vector<int> outside_;  // of an element: weight of its variables not in the pivot's
  std::vector<int> outside_stamp_, mark_;
  std::vector<bool> is_element_, is_waiting_;
  std::vector<int> head_, next_, previous_;  // variables by degree
  std::vector<int> next_member_, last_member_;
  std::vector<std::uint32_t> hash_;
  std::vector<std::pair<std::uint32_t, int>> alike_;
  std::vector<int> order_, dense_;
  int stamp_ = 0, lowest_ = 0, remaining_;
};

MinimumDegree::MinimumDegree(const Graph& graph, const std::vector<bool>& is_late, DegreeKind kind)
    : kind_(kind),
      dim_(graph.dim()),
      is_late_(is_late),
      pool_(graph.neighbor),
      begin_(graph.start.begin(), graph.start.end() - 1),
      variables_(dim_),
      elements_(dim_, 0),
      weight_(dim_, 1),
      degree_(dim_),
      outside_(dim_, 0),
      outside_stamp_(dim_, -1),
      mark_(dim_, 0),
      is_element_(dim_, false),
      is_waiting_(dim_, false),
      head_(dim_ + 1, -1),
      next_(dim_, -1),
      previous_(dim_, -1),
      next_member_(dim_, -1),
      last_member_(dim_),
      hash_(dim_, 0),
      remaining_(dim_) {
  pool_.reserve(3 * pool_.size());
  order_.reserve(dim_);
  for (int i = 0; i < dim_; ++i) {
    variables_[i] = degree_[i] = graph.start[i + 1] - graph.start[i];
    last_member_[i] = i;
  }
}

std::vector<int> MinimumDegree::run() {
  set_aside_dense_rows();
  for (int i = dim_ - 1; i >= 0; --i) {
    if (!is_variable(i)) continue;
    // A late row enters with its first element: that is when a neighbor has gone.
    is_waiting_[i] = is_late_[i];
    if (!is_late_[i]) insert(i);
  }
  while (remaining_ > 0) {
    const int pivot = pop();
    if (pivot < 0) {
      release_late();
    } else {
      eliminate(pivot);
    }
  }
  order_.insert(order_.end(), dense_.begin(), dense_.end());
  return std::move(order_);
}

/// Rows that nearly all others touch come last anyway, and cost time at every step until then.
void MinimumDegree::set_aside_dense_rows() {
  const double most = std::max(16.0, 10.0 * std::sqrt(static_cast<double>(dim_)));
  for (int i = 0; i < dim_; ++i) {
    if (degree_[i] > most) dense_.push_back(i);
  }
  for (int i : dense_) weight_[i] = 0;
  remaining_ -= static_cast<int>(dense_.size());
  std::stable_sort(dense_.begin(), dense_.end(), [&](int a, int b) {
    return is_late_[a] != is_late_[b] ? is_late_[b] : degree_[a] < degree_[b];
  });
}

int MinimumDegree::pop() {
  while (lowest_ <= dim_ && head_[lowest_] < 0) ++lowest_;
  if (lowest_ > dim_) return -1;
  const int pivot = head_[lowest_];
  remove(pivot);
  return pivot;
}

/// Nothing else is left: late rows that have no neighbor but each other or dense rows.
void MinimumDegree::release_late() {
  for (int i = 0; i < dim_; ++i) {
    if (is_variable(i) && is_waiting_[i]) insert(i);
    is_waiting_[i] = false;
  }
}

void MinimumDegree::insert(int i) {
  const int d = key(i);
  next_[i] = head_[d];
  previous_[i] = -1;
  if (head_[d] >= 0) previous_[head_[d]] = i;
  head_[d] = i;
  lowest_ = std::min(lowest_, d);
}

void MinimumDegree::remove(int i) {
  if (previous_[i] >= 0) {
    next_[previous_[i]] = next_[i];
  } else {
    head_[key(i)] = next_[i];
  }
  if (next_[i] >= 0) previous_[next_[i]] = previous_[i];
}

void MinimumDegree::emit(int i) {
  // Rows of one variable are interchangeable: those with a pivot of their own go first.
  for (const bool late : {false, true}) {
    for (int member = i; member >= 0; member = next_member_[member]) {
      if (is_late_[member] == late) order_.push_back(member);
    }
  }
  remaining_ -= weight_[i];
  weight_[i] = 0;
}

void MinimumDegree::eliminate(int pivot) {
  emit(pivot);
  build_element(pivot);
  measure_elements(pivot);
  const int begin = begin_[pivot], end = begin + variables_[pivot];
  alike_.clear();
  for (int k = begin; k < end; ++k) update_variable(pool_[k], pivot);
  merge_alike();
  int kept = begin;
  for (int k = begin; k < end; ++k) {
    const int i = pool_[k];
    if (!is_variable(i)) continue;
    pool_[kept++] = i;
    const int others = degree_[pivot] - weight_[i];
    degree_[i] = std::min(degree_[i] + others, remaining_ - weight_[i]);
    insert(i);
  }
  variables_[pivot] = kept - begin;
  if (kept == begin) is_element_[pivot] = false;
}

/// The clique of the pivot's neighbors; it absorbs the elements they came from.
void MinimumDegree::build_element(int pivot) {
  ++stamp_;
  const int begin = static_cast<int>(pool_.size());
  int weight = 0;
  auto add = [&](int from, int count) {
    for (int k = from; k < from + count; ++k) {
      const int i = pool_[k];
      if (!is_variable(i) || mark_[i] == stamp_) continue;
      mark_[i] = stamp_;
      weight += weight_[i];
      pool_.push_back(i);
    }
  };
  add(begin_[pivot], variables_[pivot]);
  const int own = begin_[pivot] + variables_[pivot];
  for (int k = own; k < own + elements_[pivot]; ++k) {
    const int element = pool_[k];
    if (!is_element_[element]) continue;
    add(begin_[element], variables_[element]);
    is_element_[element] = false;
  }
  begin_[pivot] = begin;
  variables_[pivot] = static_cast<int>(pool_.size()) - begin;
  elements_[pivot] = 0;
  degree_[pivot] = weight;
  is_element_[pivot] = true;
}

/// What each older element has outside of the new one.
void MinimumDegree::measure_elements(int pivot) {
  for (int k = begin_[pivot]; k < begin_[pivot] + variables_[pivot]; ++k) {
    const int i = pool_[k], own = begin_[i] + variables_[i];
    for (int e = own; e < own + elements_[i]; ++e) {
      const int element = pool_[e];
      if (!is_element_[element]) continue;
      if (outside_stamp_[element] != stamp_) {
        outside_stamp_[element] = stamp_;
        outside_[element] = degree_[element];
      }
      outside_[element] -= weight_[i];
    }
    if (is_waiting_[i]) {
      is_waiting_[i] = false;
    } else {
      remove(i);
    }
  }
}

/// Shorten the lists of a variable of the new element, and bound its degree outside of it.
void MinimumDegree::update_variable(int i, int pivot) {
  const int begin = begin_[i], own = begin + variables_[i], end = own + elements_[i];
  int write = begin, degree = 0;
  std::uint32_t hash = static_cast<std::uint32_t>(pivot);
  for (int k = begin; k < own; ++k) {
    const int other = pool_[k];
    if (!is_variable(other) || mark_[other] == stamp_) continue;
    degree += weight_[other];
    hash += static_cast<std::uint32_t>(other);
    pool_[write++] = other;
  }
  variables_[i] = write - begin;
  for (int k = own; k < end; ++k) {
    const int element = pool_[k];
    if (!is_element_[element]) continue;
    if (outside_[element] == 0) {
      is_element_[element] = false;  // the new one covers it
      continue;
    }
    degree += outside_[element];
    hash += static_cast<std::uint32_t>(element);
    pool_[write++] = element;
  }
  if (degree == 0) {
    // Its neighbors are the pivot's: it can go with it.
    degree_[pivot] -= weight_[i];
    emit(i);
    return;
  }
  // There is room: the pivot, or an element that it absorbed, has left the lists.
  pool_[write++] = pivot;
  elements_[i] = write - begin - variables_[i];
  degree_[i] = std::min(degree_[i], degree);
  alike_.emplace_back(hash, i);
}

void MinimumDegree::merge_alike() {
  std::sort(alike_.begin(), alike_.end());
  for (size_t a = 0; a < alike_.size(); ++a) {
    const auto [hash, i] = alike_[a];
    if (!is_variable(i)) continue;
    bool has_mark = false;
    for (size_t b = a + 1; b < alike_.size() && alike_[b].first == hash; ++b) {
      const int j = alike_[b].second;
      if (!is_variable(j) || variables_[i] != variables_[j] || elements_[i] != elements_[j]) {
        continue;
      }
      if (!has_mark) {
        ++stamp_;
        has_mark = true;
        for (int k = begin_[i]; k < begin_[i] + variables_[i] + elements_[i]; ++k) {
          mark_[pool_[k]] = stamp_;
        }
      }
      if (!is_marked(j)) continue;
      weight_[i] += weight_[j];
      weight_[j] = 0;
      next_member_[last_member_[i]] = j;
      last_member_[i] = last_member_[j];
    }
  }
}

/// Whether everything in the lists of j carries the mark.
bool MinimumDegree::is_marked(int j) const {
  for (int k = begin_[j]; k < begin_[j] + variables_[j] + elements_[j]; ++k) {
    if (mark_[pool_[k]] != stamp_) return false;
  }
  return true;
}

}  // namespace

std::vector<int> order_by_minimum_degree(const Graph& graph, const std::vector<bool>& is_late,
                                         DegreeKind kind) {
  return MinimumDegree(graph, is_late, kind).run();
}

}  // namespace cvxlayer
