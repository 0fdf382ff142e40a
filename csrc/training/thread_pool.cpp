#include "training/thread_pool.h"

#include <pthread.h>
#include <signal.h>

#include <algorithm>
#include <atomic>
#include <system_error>
#include <thread>

#include "training/spin.h"

namespace gdcore {

namespace {

// One word says which job runs, how many helpers it admits and how many of its chunks nobody has claimed: a worker that
// comes late, with what it read of an older job, fails to claim instead of running something twice or out of place.
struct Ticket {
  static std::uint64_t pack(std::uint64_t job, int helpers, std::uint32_t unclaimed) {
    return job << 40 | static_cast<std::uint64_t>(helpers) << 32 | unclaimed;
  }
  static std::uint64_t job(std::uint64_t ticket) { return ticket >> 40; }
  static int helpers(std::uint64_t ticket) { return static_cast<int>(ticket >> 32 & 0xff); }
  static std::uint32_t unclaimed(std::uint64_t ticket) { return static_cast<std::uint32_t>(ticket); }
};

class Pool {
 public:
  bool run(std::uint32_t chunks, int threads, ChunkFunction function, void* context, const Interrupt& interrupt) {
    if (threads <= 1 || chunks <= 1 || busy_.test_and_set(std::memory_order_acquire)) {
      return run_alone(chunks, function, context, interrupt);
    }
    const int helpers = std::min({threads, kMaxThreads, static_cast<int>(std::min(chunks, 1u << 16))}) - 1;
    start_workers(helpers);
    function_.store(function, std::memory_order_relaxed);
    context_.store(context, std::memory_order_relaxed);
    chunks_.store(chunks, std::memory_order_relaxed);
    done_.store(0, std::memory_order_relaxed);
    const std::uint64_t job = Ticket::job(ticket_.load(std::memory_order_relaxed)) + 1;
    ticket_.store(Ticket::pack(job, helpers, chunks), std::memory_order_release);
    wake_.fetch_add(1, std::memory_order_release);
    wake_.notify_all();

    bool interrupted = false;
    std::uint32_t expected = chunks;
    std::uint32_t mine = 0;
    std::uint32_t chunk;
    while (claim(0, chunk)) {
      function(context, chunk, 0);
      ++mine;
      if (interrupt()) {
        interrupted = true;
        expected -= Ticket::unclaimed(ticket_.exchange(Ticket::pack(job, helpers, 0), std::memory_order_acq_rel));
        break;
      }
    }
    const std::uint32_t theirs = expected - mine;
    const auto all_done = [&] { return done_.load(std::memory_order_acquire) == theirs; };
    while (!spin_until(all_done)) {
      const std::uint32_t done = done_.load(std::memory_order_acquire);
      if (done != theirs) done_.wait(done, std::memory_order_acquire);
    }
    busy_.clear(std::memory_order_release);
    return !interrupted;
  }

 private:
  static bool run_alone(std::uint32_t chunks, ChunkFunction function, void* context, const Interrupt& interrupt) {
    for (std::uint32_t chunk = 0; chunk < chunks; ++chunk) {
      function(context, chunk, 0);
      if (chunk + 1 < chunks && interrupt()) return false;
    }
    return true;
  }

  bool claim(int worker, std::uint32_t& chunk) {
    std::uint64_t ticket = ticket_.load(std::memory_order_acquire);
    while (Ticket::unclaimed(ticket) != 0 && worker <= Ticket::helpers(ticket)) {
      const std::uint32_t chunks = chunks_.load(std::memory_order_relaxed);
      if (ticket_.compare_exchange_weak(ticket, ticket - 1, std::memory_order_acq_rel, std::memory_order_acquire)) {
        chunk = chunks - Ticket::unclaimed(ticket);
        return true;
      }
    }
    return false;
  }

  // Workers take no signals: those are for the threads that Python knows.
  void start_workers(int wanted) {
    if (started_ >= wanted) return;
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    try {
      for (; started_ < wanted; ++started_) std::thread(&Pool::work, this, started_ + 1).detach();
    } catch (const std::system_error&) {
      // No more threads to be had: those that there are, and the caller, do the work.
    }
    pthread_sigmask(SIG_SETMASK, &before, nullptr);
  }

  void work(int worker) {
    for (std::uint32_t seen = wake_.load(std::memory_order_acquire);;) {
      std::uint32_t chunk;
      while (claim(worker, chunk)) {
        function_.load(std::memory_order_relaxed)(context_.load(std::memory_order_relaxed), chunk, worker);
        done_.fetch_add(1, std::memory_order_acq_rel);
        done_.notify_one();
      }
      if (!spin_until([&] { return wake_.load(std::memory_order_acquire) != seen; })) {
        wake_.wait(seen, std::memory_order_acquire);
      }
      seen = wake_.load(std::memory_order_acquire);
    }
  }

  std::atomic_flag busy_;
  int started_ = 0;  // written by the holder of busy_
  std::atomic<ChunkFunction> function_{nullptr};
  std::atomic<void*> context_{nullptr};
  std::atomic<std::uint32_t> chunks_{0};
  alignas(64) std::atomic<std::uint64_t> ticket_{0};
  alignas(64) std::atomic<std::uint32_t> done_{0};  // chunks that workers have finished
  alignas(64) std::atomic<std::uint32_t> wake_{0};
};

// Never destroyed: workers may still sleep on it when the process ends. A child of fork has no workers, so it gets a
// pool of its own.
std::atomic<Pool*> pool = [] {
  pthread_atfork(nullptr, nullptr, [] { pool.store(new Pool, std::memory_order_relaxed); });
  return new Pool;
}();

}  // namespace

bool run_chunks(std::uint32_t chunks, int threads, ChunkFunction function, void* context, const Interrupt& interrupt) {
  return pool.load(std::memory_order_relaxed)->run(chunks, threads, function, context, interrupt);
}

}  // namespace gdcore
