// SPDX-License-Identifier: Apache-2.0
#include "threads.hpp"

#include <pthread.h>

#include <chrono>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace cvxlayer {

namespace {

// How long one looks for the next event before going to sleep: longer than Python takes between
// two stages of a call, shorter than what anyone else on the machine would notice.
constexpr std::chrono::microseconds kPatience{50};
constexpr size_t kMostWorkers = 255;

/// Return the first value of `state` that is not `old`.
int await_change(const std::atomic<int>& state, int old) {
  const auto deadline = std::chrono::steady_clock::now() + kPatience;
  while (std::chrono::steady_clock::now() < deadline) {
    const int value = state.load(std::memory_order_acquire);
    if (value != old) return value;
    std::this_thread::yield();
  }
  state.wait(old, std::memory_order_acquire);
  return state.load(std::memory_order_acquire);
}

/// A thread that waits for tasks. Never destroyed: a sleeping thread holds nothing up at exit.
class Worker {
 public:
  Worker() {
    std::thread([this] { serve(); }).detach();
  }

  void offer(const std::function<void(int)>& task, int index) {
    task_ = &task;
    index_ = index;
    error_ = nullptr;
    change(kOffered);
  }

  /// Call the task off, or wait for its end if it has begun; returns what it threw.
  std::exception_ptr settle() {
    int offered = kOffered;
    if (state_.compare_exchange_strong(offered, kIdle)) return nullptr;
    await_change(state_, kRunning);
    state_.store(kIdle, std::memory_order_release);
    return std::move(error_);
  }

 private:
  enum State { kIdle, kOffered, kRunning, kEnded };

  void change(State state) {
    state_.store(state);  // in order: a sleeper sees the state, or is seen by the next line
    state_.notify_all();
  }

  void serve() {
    for (;;) {
      int state = state_.load(std::memory_order_acquire);
      while (state != kOffered) state = await_change(state_, state);
      if (!state_.compare_exchange_strong(state, kRunning)) continue;  // called off
      try {
        (*task_)(index_);
      } catch (...) {
        error_ = std::current_exception();
      }
      change(kEnded);
    }
  }

  const std::function<void(int)>* task_ = nullptr;
  int index_ = 0;
  std::exception_ptr error_;
  std::atomic<int> state_{kIdle};
};

class Pool {
 public:
  /// Up to `wanted` idle workers; starts new ones if there are too few.
  std::vector<Worker*> acquire(int wanted) {
    const std::lock_guard<std::mutex> lock(mutex_);
    std::vector<Worker*> found;
    found.reserve(static_cast<size_t>(wanted));
    for (int k = 0; k < wanted; ++k) {
      if (!idle_.empty()) {
        found.push_back(idle_.back());
        idle_.pop_back();
      } else if (Worker* started = start()) {
        found.push_back(started);
      }
    }
    return found;
  }

  void release(const std::vector<Worker*>& workers) {
    const std::lock_guard<std::mutex> lock(mutex_);
    // In reverse, so that the next call finds them in the same order.
    idle_.insert(idle_.end(), workers.rbegin(), workers.rend());
  }

 private:
  Worker* start() {
    if (num_workers_ == kMostWorkers) return nullptr;
    try {
      auto* worker = new Worker;
      idle_.reserve(++num_workers_);
      return worker;
    } catch (const std::system_error&) {
      return nullptr;  // the system has no more threads to give
    }
  }

  std::mutex mutex_;
  std::vector<Worker*> idle_;
  size_t num_workers_ = 0;
};

std::atomic<Pool*> current_pool{nullptr};

/// The pool of this process. A child that was forked has none of its parent's threads and
/// starts anew; what it inherited may be locked, so it is left alone.
Pool& pool() {
  static const int registered =
      pthread_atfork(nullptr, nullptr, [] { current_pool.store(nullptr); });
  (void)registered;
  Pool* found = current_pool.load();
  if (found != nullptr) return *found;
  auto* made = new Pool;
  if (current_pool.compare_exchange_strong(found, made)) return *made;
  delete made;
  return *found;
}

}  // namespace

void run_on_threads(int threads, const std::function<void(int)>& task) {
  if (threads <= 1) {
    task(0);
    return;
  }
  Pool& workers = pool();
  const std::vector<Worker*> helpers = workers.acquire(threads - 1);
  for (size_t k = 0; k < helpers.size(); ++k) helpers[k]->offer(task, static_cast<int>(k) + 1);
  std::exception_ptr error;
  try {
    task(0);
  } catch (...) {
    error = std::current_exception();
  }
  for (Worker* helper : helpers) {
    const std::exception_ptr thrown = helper->settle();
    if (error == nullptr) error = thrown;
  }
  workers.release(helpers);
  if (error != nullptr) std::rethrow_exception(error);
}

}  // namespace cvxlayer
