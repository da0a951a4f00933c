// SPDX-License-Identifier: Apache-2.0
#include "memory_pool.hpp"

#include <algorithm>
#include <cstdlib>
#include <new>

namespace cvxlayer {

namespace {

constexpr size_t kAlignment = 64;

}  // namespace

MemoryPool::~MemoryPool() {
  for (const Block& block : blocks_) std::free(block.memory);
}

void* MemoryPool::take(size_t bytes) {
  if (const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock); lock.owns_lock()) {
    const auto found = std::find_if(blocks_.rbegin(), blocks_.rend(),
                                    [bytes](const Block& block) { return block.bytes == bytes; });
    if (found != blocks_.rend()) {
      void* memory = found->memory;
      kept_ -= bytes;
      blocks_.erase(std::next(found).base());
      return memory;
    }
  }
  void* memory = std::aligned_alloc(kAlignment, (bytes / kAlignment + 1) * kAlignment);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}

void MemoryPool::give(void* memory, size_t bytes) {
  const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock() || bytes > most_) return std::free(memory);
  kept_ += bytes;
  blocks_.push_back({memory, bytes});
  while (kept_ > most_) {
    kept_ -= blocks_.front().bytes;
    std::free(blocks_.front().memory);
    blocks_.pop_front();
  }
}

}  // namespace cvxlayer
