// SPDX-License-Identifier: Apache-2.0
//
// Constant sparse matrices times many points: θ ↦ (P, q, A, b), the recovery of variables,
// and the adjoints of both. Every row of a result is computed by one thread in one order, so
// that its bits depend neither on the number of threads nor on its neighbours.
#pragma once

#include <cstdint>
#include <functional>
#include <vector>

namespace cvxlayer {

/// A sparse matrix prepared to be multiplied. Rows that together copy evenly spaced entries,
/// times one weight, are runs: transposed matrices, slices. Rows that copy others are picks:
/// triangles of symmetric matrices, chosen variables.
class SparseMap {
 public:
  /// From CSR: sorted, without duplicates.
  SparseMap(long num_rows, long num_columns, const std::int64_t* start, const std::int64_t* column,
            const double* weight);

  /// out += M point.
  void add_to(double* out, const double* point) const;
  /// out = M point.
  void write_to(double* out, const double* point) const;

  long num_rows() const { return num_rows_; }
  long num_columns() const { return num_columns_; }
  long num_entries() const { return num_entries_; }

 private:
  struct Run {
    int target, source, stride, length;
    double weight;
  };
  struct Pick {
    int target, first, length;  // `first` of the sources in `picked_`
    double weight;
  };
  template <bool adds>
  void apply(double* out, const double* point) const;

  long num_rows_, num_columns_, num_entries_;
  bool has_empty_rows_ = false;
  std::vector<Run> runs_;
  std::vector<Pick> picks_;
  std::vector<int> picked_;
  // Other rows with entries, as CSR.
  std::vector<int> target_, start_, column_;
  std::vector<double> weight_;
};

/// One summand of a sum of maps: the point of row b begins at points + b · row_stride.
struct MapTerm {
  const SparseMap* map;
  const double* points;
  long row_stride;
};

/// out = base + Σ_k map_k point_k of one row; `base` may be null for zero.
void apply_row(const std::vector<MapTerm>& terms, const double* base, double* out, long row,
               long length);

/// out_b = base_b + Σ_k map_k point_k,b for b < batch, rows of `length`. `base` may be null for
/// zero; with `base_stride` 0 all rows share it.
void apply_maps(const std::vector<MapTerm>& terms, const double* base, long base_stride,
                double* out, long batch, long length, int threads);

/// body(begin, end) on pieces of the batch that fit into a core's nearest cache, where each row
/// moves `numbers`.
void share_rows(long batch, long numbers, int threads, const std::function<void(long, long)>& body);

/// out = Σ_b rows_b, added in the order of b.
void sum_rows(const double* rows, long batch, long length, double* out, int threads);

}  // namespace cvxlayer
