// SPDX-License-Identifier: Apache-2.0
#include "inspect.hpp"

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <memory>
#include <new>

#include "kernels.hpp"
#include "threads.hpp"

namespace cvxlayer {

namespace {

constexpr long kAlignment = 64;
// Work of one thread for which it pays to wake another, and of one piece: numbers to look at.
constexpr long kNumbersPerThread = 100'000, kNumbersPerPiece = 16'384;
// One multiply-add of a factorization costs about as much as this many numbers.
constexpr double kNumbersPerMultiplyAdd = 0.5;

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

struct Free {
  void operator()(char* memory) const { std::free(memory); }
};

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

bool all_symmetric(const double* matrices, long count, int n, int threads) {
  const long size = static_cast<long>(n) * n;
  return holds_everywhere(count, static_cast<double>(size), threads, [=](long begin, long end) {
    for (long k = begin; k < end; ++k) {
      const double* matrix = matrices + k * size;
      for (long i = 0; i < n; ++i) {
        for (long j = 0; j < i; ++j) {
          if (matrix[i * n + j] != matrix[j * n + i]) return false;
        }
      }
    }
    return true;
  });
}

bool all_positive_definite(const double* matrices, long count, int n, int threads) {
  int available = 0;
  const Kernels& kernels = *available_kernels(&available)[0];
  const long size = static_cast<long>(n) * n;
  const double each = static_cast<double>(size) * (1.0 + kNumbersPerMultiplyAdd * n / 6.0);
  const size_t bytes = (kernels.definite_bytes(n) / kAlignment + 1) * kAlignment;
  return holds_everywhere(count, each, threads, [&, bytes](long begin, long end) {
    const std::unique_ptr<char, Free> workspace(
        static_cast<char*>(std::aligned_alloc(kAlignment, bytes)));
    if (workspace == nullptr) throw std::bad_alloc();
    for (long k = begin; k < end; ++k) {
      if (!kernels.is_definite(workspace.get(), matrices + k * size, n)) return false;
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
  const size_t bytes = (chosen->projection_bytes(cone) / kAlignment + 1) * kAlignment;
  const std::unique_ptr<char, Free> workspace(
      static_cast<char*>(std::aligned_alloc(kAlignment, bytes)));
  if (workspace == nullptr) throw std::bad_alloc();
  chosen->project_dual(cone, workspace.get(), points, starts, count, nearest, derivative, root);
}

}  // namespace cvxlayer
