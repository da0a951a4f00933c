// SPDX-License-Identifier: Apache-2.0
//
// Numeric supernodal LDLᵀ in lanes, without pivoting: every lane follows the same schedule.
#pragma once

#include "../linalg/arena.hpp"
#include "../linalg/lanes.hpp"
#include "packed.hpp"
#include "symbolic.hpp"
#include "tiles.hpp"

namespace cvxlayer::CVXLAYER_ISA {

/// LDLᵀ factors of one matrix per lane. Owns no memory.
///   storage  panels as laid out by `Symbolic`; holds K on entry, L (unit diagonal) after,
///            but in diagonal supernodes still K, which is LD
///   A        where diagonal supernodes borrow their rows; null if all are in `storage`
///   pivot    D by pivot position, regularized;  inverse  1 / D
///   update   `scratch` entries;  rows  one offset per row of the tallest panel
template <class L>
struct Factor {
  using V = typename L::V;
  using O = Ops<L>;

  SymbolicView symbolic;
  const Supernode* nodes;  // those of `symbolic`, or some like them but narrower
  V* storage;
  const V* A = nullptr;
  V* pivot;
  V* inverse;
  V* update;
  long* rows;
  V* packed;  // a panel once more, for a single instance only

  void lay_out(const SymbolicView& view, Arena& arena) {
    symbolic = view;
    nodes = view.nodes;
    storage = arena.take<V>(view.storage);
    pivot = arena.take<V>(view.dim);
    inverse = arena.take<V>(view.dim);
    update = arena.take<V>(view.scratch > kBlockEntries ? view.scratch : kBlockEntries);
    rows = arena.take<long>(view.dim);
    long largest = 0;
    for (int k = 0; k < view.num_nodes && L::width == 1; ++k) {
      const Supernode& node = view.nodes[k];
      const int height = (node.is_diagonal ? 0 : node.width) + node.num_below;
      const long size = PackedPanel::size(height, node.width);
      if (size > largest) largest = size;
    }
    packed = arena.take<V>(largest);
  }

  /// Factorize in place. In exact arithmetic no signed pivot of a quasidefinite matrix is
  /// below its regularization; one that is, by rounding, is raised to `floor`. Never fails,
  /// never allocates.
  void factorize(V floor) { factorize(floor, 0, symbolic.num_nodes); }

  /// The same of the supernodes [begin, end) alone, whose updates reach all others.
  void factorize(V floor, int begin, int end) {
    for (int k = begin; k < end; ++k) {
      const Supernode& node = nodes[k];
      if (node.is_diagonal) {
        factorize_diagonal(node, floor);
      } else if constexpr (L::width == 1) {
        factorize_packed(node, floor);
      } else {
        factorize_dense(node, floor);
      }
      if constexpr (L::width == 1) {
        apply_packed_update(node);
      } else {
        apply_update(node);
      }
    }
  }

  /// Solve L D Lᵀ x = r for `count` ≤ 4 right-hand sides, one after the other: entry i of side c is
  /// x[c * dim + i]; i is the pivot position.
  template <int count>
  void solve_in_place(V* x) const {
    eliminate<count>(x, 0, symbolic.num_nodes);
    substitute_back<count>(x);
  }

  /// The first half of it, for the supernodes [begin, end) alone.
  template <int count>
  void eliminate(V* x, int begin, int end) const {
    for (int k = begin; k < end; ++k) forward<count>(nodes[k], x);
  }

  /// The second half.
  template <int count>
  void substitute_back(V* x) const {
    for (int k = symbolic.num_nodes - 1; k >= 0; --k) backward<count>(nodes[k], x);
  }

 private:
  /// Store the regularized pivot and its inverse; returns the inverse.
  CVXLAYER_INLINE V accept_pivot(V value, int position, V floor) const {
    const double sign = symbolic.sign[position];
    const V signed_pivot = value * sign;
    // The negated comparison also replaces NaN, so that one bad lane stays finite.
    const V safe = O::select(O::gt(signed_pivot, floor), signed_pivot, floor);
    pivot[position] = safe * sign;
    inverse[position] = sign / safe;
    return inverse[position];
  }

  void factorize_diagonal(const Supernode& node, V floor) {
    V* panel = storage + node.panel;
    for (int c = 0; c < node.width; ++c) {
      accept_pivot(panel[c], node.first + c, floor);
    }
    if constexpr (L::width == 1) {
      PackedPanel{packed, node.width}.copy<true>(rows_below(node), node.num_below, node.lead);
    }
  }

  void factorize_dense(const Supernode& node, V floor) {
    const int width = node.width, height = width + node.num_below;
    const long lead = node.lead;
    V* panel = storage + node.panel;
    for (int i = 0; i < height; ++i) rows[i] = i * lead;
    for (int begin = 0; begin < width; begin += kTileColumns) {
      const int block = width - begin < kTileColumns ? width - begin : kTileColumns;
      const int column[4] = {begin, begin + 1, begin + 2, begin + 3};
      subtract_product(panel, rows + begin, column, height - begin, block, panel + begin * lead,
                       lead, pivot + node.first, begin);
      factorize_block(node, panel, begin, block, floor);
    }
  }

  /// target[row[i] + column[j]] −= Σ_k l_i[k] · scale_k · l_j[k] for `num_columns` ≤ kBlockColumns
  /// and rows i of l at stride ldl, but for entries with i < j, which may be left out. Blocks of
  /// the depth, so that what all columns share stays in the nearest cache.
  void subtract_product(V* target, const long* row, const int* column, int num_rows,
                        int num_columns, const V* l, long ldl, const V* scale, int depth) {
    for (int from = 0; from < depth; from += kBlockDepth) {
      const int count = depth - from < kBlockDepth ? depth - from : kBlockDepth;
      for (int j = 0; j < num_columns; ++j) {
        scale_row(l + j * ldl + from, scale + from, count, update + j * count);
      }
      subtract_lower(target, row, column, num_rows, num_columns, l + from, ldl, update, count);
    }
  }

  CVXLAYER_INLINE static void scale_row(const V* row, const V* scale, int count, V* out) {
    for (int k = 0; k < count; ++k) out[k] = row[k] * scale[k];
  }

  const V* rows_below(const Supernode& node) const {
    if (A != nullptr && node.borrowed >= 0) return A + node.borrowed;
    return storage + node.panel + static_cast<long>(node.head_rows()) * node.lead;
  }

  /// What makes a stored row LD of L, or L of LD: LDLᵀ is the row as it is times the other.
  const V* other_scale(const Supernode& node) const {
    return (node.is_diagonal ? inverse : pivot) + node.first;
  }

  void factorize_block(const Supernode& node, V* panel, int begin, int block, V floor) {
    const int height = node.width + node.num_below;
    const long lead = node.lead;
    V inverted[4], coupling[4][4];  // coupling[j][k] = L_jk D_k inside the block
    for (int j = 0; j < block; ++j) {
      V* row = panel + (begin + j) * lead + begin;
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
      V* row = panel + i * lead + begin;
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
    const V* below = rows_below(node);
    const int* pivots = symbolic.below_rows + node.below;
    for (int s = node.segment_begin; s < node.segment_end; ++s) {
      const Segment& segment = symbolic.segments[s];
      const Supernode& target = symbolic.nodes[segment.target];
      const int* relative = symbolic.relative + segment.relative_offset - segment.begin;
      for (int i = segment.begin; i < node.num_below; ++i) {
        rows[i] = static_cast<long>(relative[i]) * target.lead;
      }
      for (int begin = segment.begin; begin < segment.end; begin += kBlockColumns) {
        const int left = segment.end - begin;
        const int block = left < kBlockColumns ? left : kBlockColumns;
        int column[kBlockColumns];
        for (int j = 0; j < block; ++j) column[j] = pivots[begin + j] - target.first;
        subtract_product(storage + target.panel, rows + begin, column, node.num_below - begin,
                         block, below + static_cast<long>(begin) * node.lead, node.lead,
                         other_scale(node), width);
      }
    }
  }

  // ------------------------------------------------------------------------ a single instance
  /// `factorize_dense` on a packed copy, where the rows of the panel fill vectors.
  void factorize_packed(const Supernode& node, double floor) {
    const int width = node.width, height = width + node.num_below;
    const PackedPanel panel{packed, width};
    panel.copy<true>(storage + node.panel, height, node.lead);
    for (int begin = 0; begin < width; begin += kStrip) {
      const int block = width - begin < kStrip ? width - begin : kStrip;
      if (begin > 0) {
        scale_packed(panel, pivot + node.first, begin, block, begin);
        with_strip(block, [&](auto strip) {
          constexpr int NR = decltype(strip)::size;
          subtract_packed<NR>(OwnColumns<NR>{panel, begin}, panel, begin, height, update, begin);
        });
      }
      with_strip(block, [&](auto strip) {
        factorize_packed_block<decltype(strip)::size>(panel, node, begin, floor);
      });
    }
    panel.copy<false>(storage + node.panel, height, node.lead);
  }

  template <int NR>
  struct Strip {
    static constexpr int size = NR;
  };

  template <class Body>
  CVXLAYER_INLINE static void with_strip(int num_columns, const Body& body) {
    switch (num_columns) {
      case 4:
        return body(Strip<4>{});
      case 3:
        return body(Strip<3>{});
      case 2:
        return body(Strip<2>{});
      default:
        return body(Strip<1>{});
    }
  }

  /// update[k][j] = (row + j)_k · scale_k for k < count.
  CVXLAYER_INLINE void scale_packed(const PackedPanel& panel, const double* scale, int row,
                                    int block, int count) const {
    if (block == kStrip && row % kWide + kStrip <= kWide) {
      const double* entry = &panel.at(row, 0);
      for (int k = 0; k < count; ++k) {
        *reinterpret_cast<StripEntries*>(update + k * kStrip) =
            *reinterpret_cast<const StripEntries*>(entry + k * kWide) * scale[k];
      }
      return;
    }
    for (int j = 0; j < block; ++j) {
      const double* entry = &panel.at(row + j, 0);
      for (int k = 0; k < count; ++k) update[k * kStrip + j] = entry[k * kWide] * scale[k];
    }
  }

  template <int NR>
  void factorize_packed_block(const PackedPanel& panel, const Supernode& node, int begin,
                              double floor) {
    const int height = node.width + node.num_below;
    double inverted[NR], coupling[NR][NR];  // coupling[j][k] = L_jk D_k inside the block
    for (int j = 0; j < NR; ++j) {
      double diagonal = panel.at(begin + j, begin + j);
      for (int k = 0; k < j; ++k) {
        double value = panel.at(begin + j, begin + k);
        for (int l = 0; l < k; ++l) value -= panel.at(begin + j, begin + l) * coupling[k][l];
        coupling[j][k] = value;
        panel.at(begin + j, begin + k) = value * inverted[k];
        diagonal -= value * inverted[k] * value;
      }
      inverted[j] = accept_pivot(diagonal, node.first + begin + j, floor);
    }
    int i = begin + NR;
    for (; i < height && i % kWide != 0; ++i) {
      double row[NR];
      for (int j = 0; j < NR; ++j) row[j] = panel.at(i, begin + j);
      solve_block<NR>(row, coupling, inverted);
      for (int j = 0; j < NR; ++j) panel.at(i, begin + j) = row[j];
    }
    for (; i < height; i += kWide) {
      Wide row[NR];
      for (int j = 0; j < NR; ++j) row[j] = panel.column(i, begin + j);
      solve_block<NR>(row, coupling, inverted);
      for (int j = 0; j < NR; ++j) panel.column(i, begin + j) = row[j];
    }
  }

  template <int NR, class Row>
  CVXLAYER_INLINE static void solve_block(Row (&row)[NR], const double (&coupling)[NR][NR],
                                          const double (&inverted)[NR]) {
#pragma GCC unroll 4
    for (int j = 0; j < NR; ++j) {
      Row value = row[j];
#pragma GCC unroll 4
      for (int k = 0; k < j; ++k) value -= row[k] * coupling[j][k];
      row[j] = value * inverted[j];
    }
  }

  /// `apply_update` from the packed copy of the panel.
  void apply_packed_update(const Supernode& node) {
    const int width = node.width, head = node.is_diagonal ? 0 : width;
    const PackedPanel panel{packed, width};
    const int* pivots = symbolic.below_rows + node.below;
    for (int s = node.segment_begin; s < node.segment_end; ++s) {
      const Segment& segment = symbolic.segments[s];
      const Supernode& target = symbolic.nodes[segment.target];
      const int* relative = symbolic.relative + segment.relative_offset - segment.begin;
      for (int i = segment.begin; i < node.num_below; ++i) {
        rows[head + i] = static_cast<long>(relative[i]) * target.lead;
      }
      const int end = head + node.num_below;
      for (int begin = segment.begin; begin < segment.end; begin += kStrip) {
        const int block = segment.end - begin < kStrip ? segment.end - begin : kStrip;
        int column[kStrip];
        for (int j = 0; j < block; ++j) column[j] = pivots[begin + j] - target.first;
        scale_packed(panel, other_scale(node), head + begin, block, width);
        with_strip(block, [&](auto strip) {
          constexpr int NR = decltype(strip)::size;
          const OtherPanel<NR> other{storage + target.panel, rows, column, head + begin, end};
          subtract_packed<NR>(other, panel, head + begin, end, update, width);
        });
      }
    }
  }

  template <int count>
  void forward(const Supernode& node, V* x) const {
    const int width = node.width;
    const long lead = node.lead;
    const V* row = storage + node.panel;
    V* own = x + node.first;
    long stride = symbolic.dim;
    if (node.is_diagonal) {
      // The rows below are LD, so that what they meet is D⁻¹ times the sides.
      for (int c = 0; c < count; ++c) {
        scale_row(own + c * stride, inverse + node.first, width, update + c * width);
      }
      own = update;
      stride = width;
    } else {
      int i = 0;
      for (; i + 4 <= width; i += 4) forward_block<4, count>(row, lead, i, own);
      for (; i < width; ++i) forward_block<1, count>(row, lead, i, own);
    }
    row = rows_below(node);
    const int* pivots = symbolic.below_rows + node.below;
    int i = 0;
    for (; i + 4 <= node.num_below; i += 4, row += 4 * lead) {
      forward_rows<4, count>(row, lead, width, own, stride, pivots + i, x);
    }
    for (; i < node.num_below; ++i, row += lead) {
      forward_rows<1, count>(row, lead, width, own, stride, pivots + i, x);
    }
  }

  /// Rows i, …, i + R − 1 of the unit triangle of a supernode.
  template <int R, int count>
  CVXLAYER_INLINE void forward_block(const V* panel, long lead, int i, V* own) const {
    const V* row = panel + i * lead;
    V sum[R][count];
    multiply_tile<R, count>(row, lead, own, symbolic.dim, i, sum);
    for (int c = 0; c < count; ++c) {
      V* side = own + static_cast<long>(c) * symbolic.dim + i;
      for (int r = 0; r < R; ++r) {
        V value = side[r] - sum[r][c];
        for (int k = 0; k < r; ++k) value -= row[r * lead + i + k] * side[k];
        side[r] = value;
      }
    }
  }

  template <int R, int count>
  CVXLAYER_INLINE void forward_rows(const V* row, long lead, int width, const V* own, long stride,
                                    const int* pivots, V* x) const {
    V sum[R][count];
    multiply_tile<R, count>(row, lead, own, stride, width, sum);
    for (int c = 0; c < count; ++c) {
      V* side = x + static_cast<long>(c) * symbolic.dim;
      for (int r = 0; r < R; ++r) side[pivots[r]] -= sum[r][c];
    }
  }

  /// Solve D Lᵀ x = r of a supernode.
  template <int count>
  void backward(const Supernode& node, V* x) const {
    const int width = node.width;
    const long lead = node.lead;
    V* own = x + node.first;
    if (!node.is_diagonal) divide_by_pivots<count>(node, own);
    // From the last row on: what was read last is in cache, then and in the next solve.
    const V* below = rows_below(node);
    const int* pivots = symbolic.below_rows + node.below;
    int i = node.num_below;
    for (; i % 4 != 0; --i) {
      const V* row = below + (i - 1) * lead;
      backward_rows<1, count>(row, lead, width, pivots + i - 1, x, own);
    }
    for (; i > 0; i -= 4) {
      const V* row = below + (i - 4) * lead;
      backward_rows<4, count>(row, lead, width, pivots + i - 4, x, own);
    }
    if (node.is_diagonal) return divide_by_pivots<count>(node, own);
    const V* panel = storage + node.panel;
    for (i = width; i % 4 != 0; --i) backward_block<1, count>(panel, lead, i - 1, own);
    for (; i > 0; i -= 4) backward_block<4, count>(panel, lead, i - 4, own);
  }

  template <int count>
  CVXLAYER_INLINE void divide_by_pivots(const Supernode& node, V* own) const {
    const V* scale = inverse + node.first;
    for (int c = 0; c < count; ++c) {
      V* side = own + static_cast<long>(c) * symbolic.dim;
      for (int i = 0; i < node.width; ++i) side[i] *= scale[i];
    }
  }

  /// Rows i, …, i + R − 1 of the transposed unit triangle, and what they take from those above.
  template <int R, int count>
  CVXLAYER_INLINE void backward_block(const V* panel, long lead, int i, V* own) const {
    const V* row = panel + i * lead;
    int pivots[R];
    for (int r = 0; r < R; ++r) pivots[r] = i + r;
    for (int c = 0; c < count; ++c) {
      V* side = own + static_cast<long>(c) * symbolic.dim + i;
      for (int r = R - 1; r > 0; --r) {
        for (int k = 0; k < r; ++k) side[k] -= row[r * lead + i + k] * side[r];
      }
    }
    backward_rows<R, count>(row, lead, i, pivots, own, own);
  }

  /// own_k −= Σ_r row_r[k] · x[pivot_r] for k < depth.
  template <int R, int count>
  CVXLAYER_INLINE void backward_rows(const V* row, long lead, int depth, const int* pivots,
                                     const V* x, V* own) const {
    V value[count][R];
    for (int c = 0; c < count; ++c) {
      for (int r = 0; r < R; ++r) value[c][r] = x[static_cast<long>(c) * symbolic.dim + pivots[r]];
    }
    const long stride = symbolic.dim;
#pragma GCC ivdep
    for (int k = 0; k < depth; ++k) {
#pragma GCC unroll 2
      for (int c = 0; c < count; ++c) {
        V sum = own[c * stride + k];
#pragma GCC unroll 4
        for (int r = 0; r < R; ++r) sum -= row[r * lead + k] * value[c][r];
        own[c * stride + k] = sum;
      }
    }
  }
};

}  // namespace cvxlayer::CVXLAYER_ISA
