// A loop over indices by several threads, which the calling thread can be asked to abandon.
#pragma once

#include <algorithm>
#include <atomic>
#include <chrono>
#include <exception>
#include <functional>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

namespace dsacstar {

// Calls work(index) for every index below count, on `threads` threads (0: one per CPU) of which the calling thread is
// one. Between its own indices the calling thread asks `interrupted` every few milliseconds; true lets the indices not
// begun go. Returns whether all were done; an exception of `work` is thrown again.
template <class MakeWorker>
bool parallel_for(size_t count, int threads, const std::function<bool()>& interrupted, const MakeWorker& make_worker) {
  constexpr auto kBetweenQuestions = std::chrono::milliseconds(20);
  std::atomic<size_t> next{0};
  std::atomic<bool> stop{false};
  std::mutex failure_mutex;
  std::exception_ptr failure;
  const auto run = [&](bool asks) {
    try {
      auto worker = make_worker();
      auto asked = std::chrono::steady_clock::now();
      for (size_t i = next++; i < count && !stop; i = next++) {
        worker(i);
        const auto now = std::chrono::steady_clock::now();
        if (!asks || !interrupted || now - asked < kBetweenQuestions) continue;
        asked = now;
        if (interrupted()) stop = true;
      }
    } catch (...) {
      stop = true;
      const std::lock_guard<std::mutex> lock(failure_mutex);
      failure = std::current_exception();
    }
  };
  const size_t wanted = threads > 0 ? static_cast<size_t>(threads) : std::max<size_t>(1, std::thread::hardware_concurrency());
  std::vector<std::thread> helpers;
  for (size_t i = 1; i < std::min(wanted, count); ++i) {
    try {
      helpers.emplace_back(run, false);
    } catch (const std::system_error&) {
      break;  // no more threads to be had: the ones that run do the work
    }
  }
  run(true);
  for (std::thread& helper : helpers) helper.join();
  if (failure) std::rethrow_exception(failure);
  return !stop;
}

}  // namespace dsacstar
