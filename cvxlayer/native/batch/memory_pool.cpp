// SPDX-License-Identifier: Apache-2.0
#include "memory_pool.hpp"

#include <algorithm>
#include <iterator>
#include <new>
#include <utility>

namespace cvxlayer {

namespace {

constexpr size_t kAlignment = 64;

}  // namespace

Memory allocate_aligned(size_t bytes) {
  const size_t rounded = (bytes / kAlignment + 1) * kAlignment;
  auto* memory = static_cast<char*>(std::aligned_alloc(kAlignment, rounded));
  if (memory == nullptr) throw std::bad_alloc();
  return Memory(memory);
}

Memory MemoryPool::take(size_t bytes) {
  if (const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock); lock.owns_lock()) {
    // What was used last is still in a cache.
    const auto found = std::find_if(blocks_.rbegin(), blocks_.rend(),
                                    [bytes](const Block& block) { return block.bytes == bytes; });
    if (found != blocks_.rend()) {
      Memory memory = std::move(found->memory);
      kept_ -= bytes;
      blocks_.erase(std::next(found).base());
      return memory;
    }
  }
  return allocate_aligned(bytes);
}

void MemoryPool::give(Memory memory, size_t bytes) {
  const std::unique_lock<std::mutex> lock(mutex_, std::try_to_lock);
  if (!lock.owns_lock() || bytes > most_) return;
  for (; bytes > most_ - kept_; blocks_.pop_front()) kept_ -= blocks_.front().bytes;
  kept_ += bytes;
  blocks_.push_back({std::move(memory), bytes});
}

}  // namespace cvxlayer
