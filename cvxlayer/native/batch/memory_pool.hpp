// SPDX-License-Identifier: Apache-2.0
//
// Memory of large arrays that are made and dropped at every call. An allocator hands such blocks
// back to the system, and gets them as pages that fault one by one when they are written: a tenth
// of a training step.
#pragma once

#include <cstddef>
#include <deque>
#include <mutex>

namespace cvxlayer {

/// May be used from several threads. None waits for another: who finds the pool taken goes by the
/// allocator, and so does a forked child whose parent had it taken.
class MemoryPool {
 public:
  /// Of no more than this many bytes that nobody uses.
  explicit MemoryPool(size_t most) : most_(most) {}
  MemoryPool(const MemoryPool&) = delete;
  MemoryPool& operator=(const MemoryPool&) = delete;
  ~MemoryPool();

  /// Aligned to a cache line, not written. Throws std::bad_alloc.
  void* take(size_t bytes);
  /// Return what was taken.
  void give(void* memory, size_t bytes);

 private:
  struct Block {
    void* memory;
    size_t bytes;
  };
  const size_t most_;
  std::mutex mutex_;
  size_t kept_ = 0;
  std::deque<Block> blocks_;  // the oldest first
};

}  // namespace cvxlayer
