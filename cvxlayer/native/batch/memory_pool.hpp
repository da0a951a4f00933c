// SPDX-License-Identifier: Apache-2.0
//
// Memory that is taken and given back at every call: workspaces, large results. An allocator hands
// large blocks back to the system, and gets them as pages that fault one by one when they are
// written: a tenth of a training step.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <deque>
#include <memory>
#include <mutex>

namespace cvxlayer {

struct FreeMemory {
  void operator()(char* memory) const { std::free(memory); }
};
using Memory = std::unique_ptr<char, FreeMemory>;

/// Aligned to a cache line, not written. Throws std::bad_alloc.
Memory allocate_aligned(size_t bytes);

/// May be used from several threads. None waits for another: who finds the pool taken goes by the
/// allocator, and so does a forked child whose parent had it taken.
class MemoryPool {
 public:
  /// Of no more than this many bytes that nobody uses.
  explicit MemoryPool(size_t most = SIZE_MAX) : most_(most) {}
  MemoryPool(const MemoryPool&) = delete;
  MemoryPool& operator=(const MemoryPool&) = delete;

  /// As `allocate_aligned`.
  Memory take(size_t bytes);
  /// Return what was taken, with its size.
  void give(Memory memory, size_t bytes);

 private:
  struct Block {
    Memory memory;
    size_t bytes;
  };
  const size_t most_;
  std::mutex mutex_;
  size_t kept_ = 0;
  std::deque<Block> blocks_;  // the oldest first
};

}  // namespace cvxlayer
