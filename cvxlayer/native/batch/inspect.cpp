// SPDX-License-Identifier: Apache-2.0
#include "inspect.hpp"

#include <algorithm>
#include <atomic>
#include <cmath>

#include "kernels.hpp"
#include "memory_pool.hpp"
#include "threads.hpp"

namespace cvxlayer {

namespace {

// Work of one thread for which it pays to wake another, and of one piece: numbers to look at.
constexpr long kNumbersPerThread = 100'000, kNumbersPerPiece = 16'384;
// One multiply-add of a factorization costs about as much as this many numbers.
constexpr double kNumbersPerMultiplyAdd = 0.5;
// What CVXPY itself tolerates when a value is assigned to a parameter.
constexpr double kRounding = 1e-10, kEigenvalueRounding = 1e-8;
constexpr long kBlock = 16;  // rows and columns that are compared while both are in cache

/// Whether test(begin, end) holds on all pieces of [0, count); the others are left out then.
template <class Test>
bool holds_everywhere(long count, double numbers_each, int threads, const Test& test) {
  const double numbers = numbers_each * static_cast<double>(count);
  const auto worthwhile = static_cast<long>(numbers / kNumbersPerThread);
  const long piece =
      std::max(1L, static_cast<long>(kNumbersPerPiece / std::max(1.0, numbers_each)));
  std::atomic<bool> holds{true};
  share_range(count, piece, static_cast<int>(std::clamp<long>(worthwhile, 1, threads)),
              [&](long begin, long end) {
                if (holds.load(std::memory_order_relaxed) && !test(begin, end)) holds = false;
              });
  return holds;
}

typedef double Eight __attribute__((vector_size(64), aligned(8), may_alias));

/// One value, and what rounding may have done to it.
struct Value {
  const double* numbers;
  long size, order;
  double epsilon;

  double largest() const {
    double found = 1.0;
    for (long k = 0; k < size; ++k) found = std::max(found, std::abs(numbers[k]));
    return found;
  }

  /// NaN where a number is infinite, so that nothing is within it.
  double rounding() const {
    const double size = largest();
    return std::max(kRounding, 8.0 * epsilon) * (size + 0.0 * size);
  }

  /// Whether sign · number ≥ −allowed everywhere.
  bool has_sign(double sign, double allowed) const {
    bool holds = true;
    for (long k = 0; k < size; ++k) holds &= sign * numbers[k] >= -allowed;
    return holds;
  }

  bool has_strict_sign(double sign) const {
    bool holds = true;
    for (long k = 0; k < size; ++k) holds &= sign * numbers[k] > 0.0;
    return holds;
  }

  bool is_symmetric(double allowed) const {
    for (long top = 0; top < order; top += kBlock) {
      for (long left = 0; left <= top; left += kBlock) {
        if (!is_block_symmetric(top, left, allowed)) return false;
      }
    }
    return true;
  }

 private:
  /// The block is compared with a copy of the other one that is transposed already, along rows.
  bool is_block_symmetric(long top, long left, double allowed) const {
    const long height = std::min(kBlock, order - top), width = std::min(kBlock, order - left);
    double mirrored[kBlock][kBlock];
    for (long j = 0; j < width; ++j) {
      const double* row = numbers + (left + j) * order + top;
      for (long i = 0; i < height; ++i) mirrored[i][j] = row[i];
    }
    bool holds = true;
    for (long i = 0; i < height; ++i) {
      const double* row = numbers + (top + i) * order + left;
      for (long j = 0; j < width; ++j) holds &= std::abs(row[j] - mirrored[i][j]) <= allowed;
    }
    return holds;
  }
};

/// What is tried exactly at first is mostly so, and then nothing has to be measured.
bool has_entries_in_domains(const Value& value, unsigned domains) {
  const auto holds = [&](unsigned domain, const auto& test) {
    return (domains & domain) == 0 || test(0.0) || test(value.rounding());
  };
  return holds(kNonnegative, [&](double allowed) { return value.has_sign(1.0, allowed); }) &&
         holds(kNonpositive, [&](double allowed) { return value.has_sign(-1.0, allowed); }) &&
         holds(kSymmetric, [&](double allowed) { return value.is_symmetric(allowed); }) &&
         ((domains & kPositive) == 0 || value.has_strict_sign(1.0)) &&
         ((domains & kNegative) == 0 || value.has_strict_sign(-1.0));
}

}  // namespace

bool all_finite(const double* numbers, long count, int threads) {
  return holds_everywhere(count, 1.0, threads, [numbers](long begin, long end) {
    // 0 · x is NaN unless x is finite; many sums, so that they need not wait for one another.
    Eight sum = {};
    long k = begin;
    for (; k + 8 <= end; k += 8) sum += 0.0 * *reinterpret_cast<const Eight*>(numbers + k);
    double total = 0.0;
    for (int c = 0; c < 8; ++c) total += sum[c];
    for (; k < end; ++k) total += 0.0 * numbers[k];
    return total == 0.0;
  });
}

bool all_in_domains(const double* values, long count, long size, unsigned domains, double epsilon,
                    int threads) {
  int available = 0;
  const Kernels& kernels = *available_kernels(&available)[0];
  const long order = std::lround(std::sqrt(static_cast<double>(size)));
  const bool has_eigenvalues = (domains & (kSemidefinite | kNegativeSemidefinite)) != 0;
  const auto n = static_cast<int>(order);
  const double rounding = std::max(kEigenvalueRounding, 8.0 * n * epsilon);
  const double pivots = has_eigenvalues ? kNumbersPerMultiplyAdd * n / 6.0 : 0.0;
  const double each = static_cast<double>(size) * (1.0 + pivots);
  const size_t bytes = has_eigenvalues ? kernels.definite_bytes(n) : 0;
  return holds_everywhere(count, each, threads, [&](long begin, long end) {
    const auto workspace = allocate_aligned(bytes);
    const auto is_definite = [&](unsigned domain, const double* matrix, double sign) {
      return (domains & domain) == 0 ||
             kernels.is_definite(workspace.get(), matrix, n, sign, rounding);
    };
    for (long k = begin; k < end; ++k) {
      const double* numbers = values + k * size;
      if (!has_entries_in_domains({numbers, size, order, epsilon}, domains)) return false;
      if (!is_definite(kSemidefinite, numbers, 1.0)) return false;
      if (!is_definite(kNegativeSemidefinite, numbers, -1.0)) return false;
    }
    return true;
  });
}

void project_dual(const CurvedCone& cone, const double* points, const double* starts, long count,
                  int width, double* nearest, double* derivative, double* root) {
  int available = 0;
  const Kernels* const* kernels = available_kernels(&available);
  const Kernels* chosen = kernels[0];
  for (int k = 0; k < available; ++k) {
    if (kernels[k]->width == width) chosen = kernels[k];
  }
  const auto workspace = allocate_aligned(chosen->projection_bytes(cone));
  chosen->project_dual(cone, workspace.get(), points, starts, count, nearest, derivative, root);
}

}  // namespace cvxlayer
