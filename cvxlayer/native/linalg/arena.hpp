// SPDX-License-Identifier: Apache-2.0
//
// A bump allocator: a workspace is laid out once with a null base to learn its size, then
// again over memory of that size.
#pragma once

#include <cstddef>

namespace cvxlayer {

class Arena {
 public:
  explicit Arena(char* base) : base_(base) {}

  template <class T>
  T* take(long count) {
    T* result = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    const size_t bytes = static_cast<size_t>(count) * sizeof(T);
    used_ += (bytes + 63) / 64 * 64;
    return result;
  }
  size_t used() const { return used_; }

 private:
  char* base_;
  size_t used_ = 0;
};

}  // namespace cvxlayer
