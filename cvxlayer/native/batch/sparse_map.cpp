// SPDX-License-Identifier: Apache-2.0
#include "sparse_map.hpp"

#include <algorithm>
#include <cstring>

#include "threads.hpp"

namespace cvxlayer {

namespace {

constexpr long kShortestRun = 4;
// Numbers moved by one thread for which it pays to wake another: about 20 microseconds.
constexpr long kNumbersPerThread = 20'000;
// Numbers handed out at a time: large against the cost of asking, small against a core's cache.
constexpr long kNumbersPerPiece = 5'000;
constexpr long kColumnsPerPiece = 64;  // of a sum: whole cache lines

int worthwhile_threads(long numbers, int threads) {
  return static_cast<int>(std::clamp<long>(numbers / kNumbersPerThread, 1, threads));
}

}  // namespace

SparseMap::SparseMap(long num_rows, long num_columns, const std::int64_t* start,
                     const std::int64_t* column, const double* weight)
    : num_rows_(num_rows), num_columns_(num_columns), num_entries_(start[num_rows]) {
  const auto has_one = [&](long row) { return start[row + 1] - start[row] == 1; };
  for (long row = 0; row < num_rows;) {
    const std::int64_t first = start[row];
    // Rows row, …, end − 1 have one entry each, of equal weight and spacing.
    long end = row;
    while (end < num_rows && has_one(end) && weight[start[end]] == weight[first] &&
           (end < row + 2 ||
            column[start[end]] - column[start[end] - 1] == column[first + 1] - column[first])) {
      ++end;
    }
    if (end - row >= kShortestRun) {
      runs_.push_back({static_cast<int>(row), static_cast<int>(column[first]),
                       static_cast<int>(column[first + 1] - column[first]),
                       static_cast<int>(end - row), weight[first]});
      row = end;
      continue;
    }
    if (start[row + 1] > first) {
      target_.push_back(static_cast<int>(row));
      start_.push_back(static_cast<int>(column_.size()));
      for (std::int64_t k = first; k < start[row + 1]; ++k) {
        column_.push_back(static_cast<int>(column[k]));
        weight_.push_back(weight[k]);
      }
    }
    ++row;
  }
  start_.push_back(static_cast<int>(column_.size()));
}

void SparseMap::add_to(double* out, const double* point) const {
  for (const Run& run : runs_) {
    double* to = out + run.target;
    const double* from = point + run.source;
    const double weight = run.weight;
    if (run.stride == 1) {
      for (int i = 0; i < run.length; ++i) to[i] += weight * from[i];
    } else {
      const long stride = run.stride;
      for (int i = 0; i < run.length; ++i) to[i] += weight * from[i * stride];
    }
  }
  const auto num_others = static_cast<long>(target_.size());
  for (long row = 0; row < num_others; ++row) {
    double sum = 0.0;
    for (int k = start_[row]; k < start_[row + 1]; ++k) sum += weight_[k] * point[column_[k]];
    out[target_[row]] += sum;
  }
}

void apply_maps(const std::vector<MapTerm>& terms, const double* base, long base_stride,
                double* out, long batch, long length, int threads) {
  long numbers = length;
  for (const MapTerm& term : terms) numbers += term.map->num_entries();
  const long piece = std::max<long>(1, kNumbersPerPiece / std::max<long>(1, numbers));
  share_range(batch, piece, worthwhile_threads(numbers * batch, threads),
              [&](long begin, long end) {
                for (long b = begin; b < end; ++b) {
                  double* row = out + b * length;
                  if (base == nullptr) {
                    std::fill_n(row, length, 0.0);
                  } else {
                    std::copy_n(base + b * base_stride, length, row);
                  }
                  for (const MapTerm& term : terms) {
                    term.map->add_to(row, term.points + b * term.row_stride);
                  }
                }
              });
}

void sum_rows(const double* rows, long batch, long length, double* out, int threads) {
  share_range(length, kColumnsPerPiece, worthwhile_threads(batch * length, threads),
              [&](long begin, long end) {
                std::fill(out + begin, out + end, 0.0);
                for (long b = 0; b < batch; ++b) {
                  const double* row = rows + b * length;
                  for (long j = begin; j < end; ++j) out[j] += row[j];
                }
              });
}

}  // namespace cvxlayer
