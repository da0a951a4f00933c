// SPDX-License-Identifier: Apache-2.0
#include "sparse_map.hpp"

#include <algorithm>

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
  // Whether a row has one entry, of the same weight as row `first`.
  const auto is_like = [&](long row, long first) {
    return row < num_rows && start[row + 1] - start[row] == 1 &&
           weight[start[row]] == weight[start[first]];
  };
  // The end of the evenly spaced entries that begin with a row.
  const auto end_of_run = [&](long row) {
    const std::int64_t* source = column + start[row];
    long end = row;
    while (is_like(end, row) &&
           (end < row + 2 || source[end - row] - source[end - row - 1] == source[1] - source[0])) {
      ++end;
    }
    return end;
  };
  for (long row = 0; row < num_rows;) {
    const std::int64_t first = start[row];
    has_empty_rows_ = has_empty_rows_ || start[row + 1] == first;
    const int target = static_cast<int>(row);
    long end = end_of_run(row);
    if (end - row >= kShortestRun) {
      runs_.push_back({target, static_cast<int>(column[first]),
                       static_cast<int>(column[first + 1] - column[first]),
                       static_cast<int>(end - row), weight[first]});
      row = end;
      continue;
    }
    while (is_like(end, row) && end_of_run(end) - end < kShortestRun) ++end;
    if (end - row >= kShortestRun) {
      picks_.push_back(
          {target, static_cast<int>(picked_.size()), static_cast<int>(end - row), weight[first]});
      for (; row < end; ++row) picked_.push_back(static_cast<int>(column[start[row]]));
      continue;
    }
    if (start[row + 1] > first) {
      target_.push_back(target);
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

void SparseMap::add_to(double* out, const double* point) const { apply<true>(out, point); }

void SparseMap::write_to(double* out, const double* point) const {
  if (has_empty_rows_) std::fill_n(out, num_rows_, 0.0);
  apply<false>(out, point);
}

template <bool adds>
void SparseMap::apply(double* __restrict out, const double* __restrict point) const {
  const auto put = [](double& to, double value) { to = adds ? to + value : value; };
  for (const Run& run : runs_) {
    double* to = out + run.target;
    const double* from = point + run.source;
    const double weight = run.weight;
    if (run.stride == 1) {
      for (int i = 0; i < run.length; ++i) put(to[i], weight * from[i]);
    } else {
      const long stride = run.stride;
      for (int i = 0; i < run.length; ++i) put(to[i], weight * from[i * stride]);
    }
  }
  for (const Pick& pick : picks_) {
    double* to = out + pick.target;
    const int* source = picked_.data() + pick.first;
    const double weight = pick.weight;
    for (int i = 0; i < pick.length; ++i) put(to[i], weight * point[source[i]]);
  }
  const auto num_others = static_cast<long>(target_.size());
  for (long row = 0; row < num_others; ++row) {
    double sum = 0.0;
    for (int k = start_[row]; k < start_[row + 1]; ++k) sum += weight_[k] * point[column_[k]];
    put(out[target_[row]], sum);
  }
}

void apply_row(const std::vector<MapTerm>& terms, const double* base, double* out, long row,
               long length) {
  auto term = terms.begin();
  const auto point = [&] { return term->points + row * term->row_stride; };
  if (base != nullptr) {
    std::copy_n(base, length, out);
  } else if (term == terms.end()) {
    std::fill_n(out, length, 0.0);
  } else {
    term->map->write_to(out, point());
    ++term;
  }
  for (; term != terms.end(); ++term) term->map->add_to(out, point());
}

void share_rows(long batch, long numbers, int threads,
                const std::function<void(long, long)>& body) {
  const long piece = std::max<long>(1, kNumbersPerPiece / std::max<long>(1, numbers));
  share_range(batch, piece, worthwhile_threads(numbers * batch, threads), body);
}

void apply_maps(const std::vector<MapTerm>& terms, const double* base, long base_stride,
                double* out, long batch, long length, int threads) {
  long numbers = length;
  for (const MapTerm& term : terms) numbers += term.map->num_entries();
  share_rows(batch, numbers, threads, [&](long begin, long end) {
    for (long b = begin; b < end; ++b) {
      const double* start = base == nullptr ? nullptr : base + b * base_stride;
      apply_row(terms, start, out + b * length, b, length);
    }
  });
}

void sum_rows(const double* rows, long batch, long length, double* out, int threads) {
  threads = worthwhile_threads(batch * length, threads);
  // One thread reads the rows as they lie in memory.
  const long piece = threads == 1 ? std::max(length, 1L) : kColumnsPerPiece;
  share_range(length, piece, threads, [&](long begin, long end) {
    std::fill(out + begin, out + end, 0.0);
    for (long b = 0; b < batch; ++b) {
      const double* row = rows + b * length;
      for (long j = begin; j < end; ++j) out[j] += row[j];
    }
  });
}

}  // namespace cvxlayer
