// SPDX-License-Identifier: Apache-2.0
//
// Numeric supernodal LDLᵀ in lanes, without pivoting: every lane follows the same schedule.
#pragma once

#include "../linalg/tiles.hpp"
#include "symbolic.hpp"

namespace cvxlayer::CVXLAYER_ISA {

/// target[row[i] + column[j]] −= Σ_k l_i[k] · u_j[k].
template <int MR, int NR, class V>
inline void subtract_tile(V* target, const long* row, const int* column, const V* l, long ldl,
                          const V* u, long ldu, int depth) {
  V acc[MR][NR];
  multiply_tile<MR, NR>(l, ldl, u, ldu, depth, acc);
#pragma GCC unroll 4
  for (int i = 0; i < MR; ++i) {
#pragma GCC unroll 4
    for (int j = 0; j < NR; ++j) target[row[i] + column[j]] -= acc[i][j];
  }
}

template <int NR, class V>
inline void subtract_rows(V* target, const long* row, const int* column, int num_rows, const V* l,
                          long ldl, const V* u, long ldu, int depth) {
  int i = 0;
  for (; i + 4 <= num_rows; i += 4) {
    subtract_tile<4, NR>(target, row + i, column, l + i * ldl, ldl, u, ldu, depth);
  }
  switch (num_rows - i) {
    case 3:
      subtract_tile<3, NR>(target, row + i, column, l + i * ldl, ldl, u, ldu, depth);
      break;
    case 2:
      subtract_tile<2, NR>(target, row + i, column, l + i * ldl, ldl, u, ldu, depth);
      break;
    case 1:
      subtract_tile<1, NR>(target, row + i, column, l + i * ldl, ldl, u, ldu, depth);
      break;
    default:
      break;
  }
}

/// The four-column strip of an update; `num_columns` ≤ 4.
template <class V>
inline void subtract_strip(V* target, const long* row, const int* column, int num_rows,
                           int num_columns, const V* l, long ldl, const V* u, long ldu, int depth) {
  switch (num_columns) {
    case 4:
      subtract_rows<4>(target, row, column, num_rows, l, ldl, u, ldu, depth);
      break;
    case 3:
      subtract_rows<3>(target, row, column, num_rows, l, ldl, u, ldu, depth);
      break;
    case 2:
      subtract_rows<2>(target, row, column, num_rows, l, ldl, u, ldu, depth);
      break;
    case 1:
      subtract_rows<1>(target, row, column, num_rows, l, ldl, u, ldu, depth);
      break;
    default:
      break;
  }
}

/// LDLᵀ factors of one matrix per lane. Owns no memory.
///   storage  panels as laid out by `Symbolic`; holds K on entry, L (unit diagonal) after
///   pivot    D by pivot position, regularized;  inverse  1 / D
///   update   `scratch` entries;  rows  one offset per row of the tallest panel
template <class L>
struct Factor {
  using V = typename L::V;
  using O = Ops<L>;

  SymbolicView symbolic;
  V* storage;
  V* pivot;
  V* inverse;
  V* update;
  long* rows;

  /// Factorize in place. In exact arithmetic no signed pivot of a quasidefinite matrix is
  /// below its regularization; one that is, by rounding, is raised to `floor`. Never fails,
  /// never allocates.
  void factorize(double floor) {
    for (int k = 0; k < symbolic.num_nodes; ++k) {
      const Supernode& node = symbolic.nodes[k];
      if (node.is_diagonal) {
        factorize_diagonal(node, floor);
      } else {
        factorize_dense(node, floor);
      }
      apply_update(node);
    }
  }

  /// Solve L D Lᵀ x = r for `count` right-hand sides, interleaved: entry i of side c is
  /// x[i * count + c]; i is the pivot position.
  template <int count>
  void solve_in_place(V* x) const {
    for (int k = 0; k < symbolic.num_nodes; ++k) forward<count>(symbolic.nodes[k], x);
    for (int i = 0; i < symbolic.dim; ++i) {
      for (int c = 0; c < count; ++c) x[i * count + c] *= inverse[i];
    }
    for (int k = symbolic.num_nodes - 1; k >= 0; --k) backward<count>(symbolic.nodes[k], x);
  }

 private:
  /// Store the regularized pivot and its inverse; returns the inverse.
  CVXLAYER_INLINE V accept_pivot(V value, int position, double floor) const {
    const double sign = symbolic.sign[position];
    const V signed_pivot = value * sign;
    // The negated comparison also replaces NaN, so that one bad lane stays finite.
    const V safe = O::select(O::gt(signed_pivot, O::splat(floor)), signed_pivot, O::splat(floor));
    pivot[position] = safe * sign;
    inverse[position] = sign / safe;
    return inverse[position];
  }

  void factorize_diagonal(const Supernode& node, double floor) {
    V* panel = storage + node.panel;
    for (int c = 0; c < node.width; ++c) {
      accept_pivot(panel[c], node.first + c, floor);
    }
    V* below = panel + node.width;
    const V* scale = inverse + node.first;
    for (int i = 0; i < node.num_below; ++i) {
      for (int c = 0; c < node.width; ++c) below[static_cast<long>(i) * node.width + c] *= scale[c];
    }
  }

  void factorize_dense(const Supernode& node, double floor) {
    const int width = node.width, height = width + node.num_below;
    V* panel = storage + node.panel;
    for (int i = 0; i < height; ++i) rows[i] = static_cast<long>(i) * width;
    for (int begin = 0; begin < width; begin += 4) {
      const int block = width - begin < 4 ? width - begin : 4;
      if (begin > 0) {
        int column[4];
        for (int j = 0; j < block; ++j) {
          column[j] = begin + j;
          unscale_row(panel + static_cast<long>(begin + j) * width, node.first, begin,
                      update + static_cast<long>(j) * begin);
        }
        subtract_strip(panel, rows + begin, column, height - begin, block,
                       panel + static_cast<long>(begin) * width, width, update, begin, begin);
      }
      factorize_block(node, panel, begin, block, floor);
    }
  }

  /// out = row · D, the unnormalized row of the factor.
  CVXLAYER_INLINE void unscale_row(const V* row, int first, int count, V* out) const {
    for (int k = 0; k < count; ++k) out[k] = row[k] * pivot[first + k];
  }

  void factorize_block(const Supernode& node, V* panel, int begin, int block, double floor) {
    const int width = node.width, height = width + node.num_below;
    V inverted[4], coupling[4][4];  // coupling[j][k] = L_jk D_k inside the block
    for (int j = 0; j < block; ++j) {
      V* row = panel + static_cast<long>(begin + j) * width + begin;
      V diagonal = row[j];
      for (int k = 0; k < j; ++k) {
        V value = row[k];
        for (int l = 0; l < k; ++l) value -= row[l] * coupling[k][l];
        coupling[j][k] = value;
        row[k] = value * inverted[k];
        diagonal -= row[k] * value;
      }
      inverted[j] = accept_pivot(diagonal, node.first + begin + j, floor);
    }
    for (int i = begin + block; i < height; ++i) {
      V* row = panel + static_cast<long>(i) * width + begin;
      for (int j = 0; j < block; ++j) {
        V value = row[j];
        for (int k = 0; k < j; ++k) value -= row[k] * coupling[j][k];
        row[j] = value * inverted[j];
      }
    }
  }

  /// Subtract L_below D L_belowᵀ from the ancestors' panels.
  void apply_update(const Supernode& node) {
    const int width = node.width;
    const V* below = storage + node.panel + static_cast<long>(node.head_rows()) * width;
    const int* pivots = symbolic.below_rows + node.below;
    for (int s = node.segment_begin; s < node.segment_end; ++s) {
      const Segment& segment = symbolic.segments[s];
      const Supernode& target = symbolic.nodes[segment.target];
      const int* relative = symbolic.relative + segment.relative_offset - segment.begin;
      for (int i = segment.begin; i < node.num_below; ++i) {
        rows[i] = static_cast<long>(relative[i]) * target.width;
      }
      for (int begin = segment.begin; begin < segment.end; begin += 4) {
        const int block = segment.end - begin < 4 ? segment.end - begin : 4;
        int column[4];
        for (int j = 0; j < block; ++j) {
          column[j] = pivots[begin + j] - target.first;
          unscale_row(below + static_cast<long>(begin + j) * width, node.first, width,
                      update + static_cast<long>(j) * width);
        }
        subtract_strip(storage + target.panel, rows + begin, column, node.num_below - begin, block,
                       below + static_cast<long>(begin) * width, width, update, width, width);
      }
    }
  }

  template <int count>
  void forward(const Supernode& node, V* x) const {
    const int width = node.width;
    const V* row = storage + node.panel;
    V* own = x + static_cast<long>(node.first) * count;
    if (node.is_diagonal) {
      row += width;
    } else {
      for (int i = 0; i < width; ++i, row += width) {
        for (int k = 0; k < i; ++k) {
          for (int c = 0; c < count; ++c) own[i * count + c] -= row[k] * own[k * count + c];
        }
      }
    }
    const int* pivots = symbolic.below_rows + node.below;
    for (int i = 0; i < node.num_below; ++i, row += width) {
      V sum[count][2] = {};
      int k = 0;
      for (; k + 2 <= width; k += 2) {
        for (int c = 0; c < count; ++c) {
          sum[c][0] += row[k] * own[k * count + c];
          sum[c][1] += row[k + 1] * own[(k + 1) * count + c];
        }
      }
      if (k < width) {
        for (int c = 0; c < count; ++c) sum[c][0] += row[k] * own[k * count + c];
      }
      V* out = x + static_cast<long>(pivots[i]) * count;
      for (int c = 0; c < count; ++c) out[c] -= sum[c][0] + sum[c][1];
    }
  }

  template <int count>
  void backward(const Supernode& node, V* x) const {
    const int width = node.width;
    V* own = x + static_cast<long>(node.first) * count;
    const V* below = storage + node.panel + static_cast<long>(node.head_rows()) * width;
    const int* pivots = symbolic.below_rows + node.below;
    for (int i = 0; i < node.num_below; ++i, below += width) {
      V value[count];
      for (int c = 0; c < count; ++c) value[c] = x[static_cast<long>(pivots[i]) * count + c];
      for (int k = 0; k < width; ++k) {
        for (int c = 0; c < count; ++c) own[k * count + c] -= below[k] * value[c];
      }
    }
    if (node.is_diagonal) return;
    const V* panel = storage + node.panel;
    for (int i = width - 1; i > 0; --i) {
      const V* row = panel + static_cast<long>(i) * width;
      for (int k = 0; k < i; ++k) {
        for (int c = 0; c < count; ++c) own[k * count + c] -= row[k] * own[i * count + c];
      }
    }
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
