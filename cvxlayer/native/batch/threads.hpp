// SPDX-License-Identifier: Apache-2.0
//
// The only place with threads: a pool that outlives the calls, so that half a millisecond of
// work can be shared.
#pragma once

#include <algorithm>
#include <atomic>
#include <functional>

namespace cvxlayer {

/// Run task(0) on this thread and task(1), …, task(threads − 1) on others, and return when all
/// have ended; the first exception is thrown again. A task that has not begun when task(0)
/// returns is called off, so they must share their work among those that come.
void run_on_threads(int threads, const std::function<void(int)>& task);

/// body(begin, end) on consecutive pieces of [0, count), handed out as threads ask for them.
template <class Body>
void share_range(long count, long piece, int threads, const Body& body) {
  if (threads <= 1 || count <= piece) {
    for (long begin = 0; begin < count; begin += piece) body(begin, std::min(begin + piece, count));
    return;
  }
  std::atomic<long> next{0};
  run_on_threads(threads, [&](int) {
    for (long begin = next.fetch_add(piece); begin < count; begin = next.fetch_add(piece)) {
      body(begin, std::min(begin + piece, count));
    }
  });
}

}  // namespace cvxlayer
