// SPDX-License-Identifier: Apache-2.0
//
// The active rows of one diagonal supernode. At a solution, D of a linear row is 0 or 1, and a row
// with D = 0 leaves nothing in the matrix but its own −1. Every lane moves the rows it needs to
// the front; the factorization and its solves then end with the lane that has most of them.
#pragma once

#include "factor.hpp"
#include "structure.hpp"

namespace cvxlayer::CVXLAYER_ISA {

template <class L>
struct GatheredRows {
  using V = typename L::V;
  using O = Ops<L>;
  static constexpr int W = L::width;

  DenseRows dense;
  int first_pivot = 0;
  bool in_use = false;
  int most_active = 0;  // rows of any lane
  Supernode* nodes;     // all of them, one of them as narrow as it may be
  int* order;           // by place and lane: which of the rows stands there
  V* moved;             // one number a row

  void lay_out(const KktPlan& plan, Arena& arena) {
    dense = plan.dense_rows;
    nodes = arena.take<Supernode>(dense.count > 0 ? plan.symbolic.num_nodes : 0);
    for (int k = 0; k < plan.symbolic.num_nodes && dense.count > 0 && nodes != nullptr; ++k) {
      nodes[k] = plan.symbolic.nodes[k];
    }
    if (dense.count > 0) first_pivot = plan.symbolic.nodes[dense.node].first;
    order = arena.take<int>(static_cast<long>(dense.count) * W);
    moved = arena.take<V>(dense.count);
  }

  /// Move the rows where `root` is not 0 to the front, and write them and their diagonal. Their
  /// supernode becomes as narrow as that allows.
  void gather(const V* root, const int* A_row, const V* A, V delta, Factor<L>& factor) {
    int num_active[W];
    most_active = 0;
    for (int lane = 0; lane < W; ++lane) {
      num_active[lane] = sort_rows(root, A_row + dense.first_entry[0], lane);
      if (num_active[lane] > most_active) most_active = num_active[lane];
    }
    Supernode& node = nodes[dense.node];
    node.width = most_active;
    factor.nodes = nodes;
    V* row = factor.storage + node.panel;
    for (int place = 0; place < most_active; ++place) {
      for (int lane = 0; lane < W; ++lane) {
        O::set(row[place], lane, place < num_active[lane] ? 0.0 : -1.0);
      }
      row[place] -= delta;
    }
    for (int k = 0; k < node.num_below; ++k) {
      row += node.lead;
      move(A + dense.first_entry[k], most_active, row);
      for (int lane = 0; lane < W; ++lane) {
        for (int place = num_active[lane]; place < most_active; ++place) {
          O::set(row[place], lane, 0.0);
        }
      }
    }
    in_use = true;
  }

  /// Let every row stand in its own place again.
  void release(Factor<L>& factor) {
    in_use = false;
    factor.nodes = factor.symbolic.nodes;
  }

  /// Move a right-hand side, by pivot, in which every row stands in its own place.
  void reorder(V* side) const {
    V* own = side + first_pivot;
    for (int i = 0; i < dense.count; ++i) moved[i] = own[i];
    move(moved, dense.count, own);
  }

  /// Write the rows of a solution, by pivot, to where they belong. The last of them did not take
  /// part: what is left of their equation is −(1 + δ) dy = r₂.
  void restore(const V* side, V delta, const int* A_row, V* dy) const {
    const V* own = side + first_pivot;
    const int* rows = A_row + dense.first_entry[0];
    const V alone = -1.0 / (1.0 + delta);
    for (int place = 0; place < dense.count; ++place) {
      const V value = place < most_active ? own[place] : alone * own[place];
      for (int lane = 0; lane < W; ++lane) {
        O::set(dy[rows[order[place * W + lane]]], lane, O::get(value, lane));
      }
    }
  }

 private:
  /// Active rows from the front, others from the back. Returns how many are active.
  int sort_rows(const V* root, const int* rows, int lane) {
    int active = 0, end = dense.count;
    for (int i = 0; i < dense.count; ++i) {
      const bool is_active = O::get(root[rows[i]], lane) != 0.0;
      order[(is_active ? active++ : --end) * W + lane] = i;
    }
    return active;
  }

  CVXLAYER_INLINE void move(const V* from, int count, V* to) const {
    for (int place = 0; place < count; ++place) {
      for (int lane = 0; lane < W; ++lane) {
        O::set(to[place], lane, O::get(from[order[place * W + lane]], lane));
      }
    }
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
