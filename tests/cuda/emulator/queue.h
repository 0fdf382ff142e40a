// The kernels on the host: every thread of a block is a fiber, and a block runs until all of them have ended.
//
// Fibers switch only where a kernel waits for others. They take turns forwards or backwards, as asked: a kernel whose
// results depend on that lacks a sync. Shared memory begins as NaNs, so what is read before it is written shows.
#pragma once

#include <setjmp.h>
#include <ucontext.h>

#include <algorithm>
#include <cstddef>
#include <cstring>
#include <limits>
#include <memory>
#include <stdexcept>
#include <vector>

#include "cuda/launches.inl"

namespace gdcore::cuda::emulated {

enum class Wait { kNothing, kBlock, kWarp, kEnded };

// Begun as a context, then resumed by a jump: swapcontext would ask the kernel each time.
struct Fiber {
  ucontext_t context;
  jmp_buf resume;
  bool begun;
  Wait wait;
  int exchanges;
  alignas(8) char exchanged[2][sizeof(double)];
};

class Block {
 public:
  Block(Index number, Index count, int threads, int shared, bool backwards)
      : number_(number),
        count_(count),
        backwards_(backwards),
        fibers_(static_cast<std::size_t>(threads)),
        shared_(static_cast<std::size_t>(shared), std::numeric_limits<double>::quiet_NaN()) {}

  /// Calls entry(argument) on every fiber; it finds its own number in `current()`.
  void run(void (*entry)()) {
    for (std::size_t i = 0; i < fibers_.size(); ++i) {
      getcontext(&fibers_[i].context);
      fibers_[i].context.uc_stack.ss_sp = stacks() + i * kStack;
      fibers_[i].context.uc_stack.ss_size = kStack;
      fibers_[i].context.uc_link = nullptr;
      fibers_[i].begun = false;
      fibers_[i].exchanges = 0;
      fibers_[i].wait = Wait::kNothing;
      makecontext(&fibers_[i].context, entry, 0);
    }
    while (advance()) {
    }
  }

  void wait(Wait what) {
    fiber(current_).wait = what;
    if (_setjmp(fiber(current_).resume) == 0) _longjmp(scheduler_, 1);
  }
  Fiber& fiber(int thread) { return fibers_[static_cast<std::size_t>(thread)]; }
  int current() const { return current_; }
  int threads() const { return static_cast<int>(fibers_.size()); }
  Index number() const { return number_; }
  Index count() const { return count_; }
  double* shared() { return shared_.data(); }

 private:
  static constexpr std::size_t kStack = 48 * 1024;

  // Of all blocks, which run one after the other.
  static char* stacks() {
    static const std::unique_ptr<char[]> memory(new char[kStack * kMaxFitThreads]);
    return memory.get();
  }

  bool all(int first, int last, Wait what) {
    return std::all_of(fibers_.begin() + first, fibers_.begin() + last,
                       [what](const Fiber& f) { return f.wait == what; });
  }

  [[gnu::noinline]] void resume() {
    Fiber& next = fiber(current_);
    if (_setjmp(scheduler_) != 0) return;
    if (next.begun) _longjmp(next.resume, 1);
    next.begun = true;
    setcontext(&next.context);
  }

  // Lets every fiber run that waits for nothing, then releases those whose wait is over.
  bool advance() {
    for (int i = 0; i < threads(); ++i) {
      current_ = backwards_ ? threads() - 1 - i : i;
      if (fiber(current_).wait == Wait::kNothing) resume();
    }
    if (all(0, threads(), Wait::kEnded)) return false;
    bool released = false;
    const auto release = [&](int first, int last, Wait what) {
      if (!all(first, last, what)) return;
      for (int i = first; i < last; ++i) fiber(i).wait = Wait::kNothing;
      released = true;
    };
    for (int i = 0; i < threads(); i += kWarpLanes) release(i, i + kWarpLanes, Wait::kWarp);
    // On a device, threads that have ended no longer count.
    const bool arrived = std::all_of(fibers_.begin(), fibers_.end(),
                                     [](const Fiber& f) { return f.wait == Wait::kBlock || f.wait == Wait::kEnded; });
    if (arrived) {
      for (Fiber& f : fibers_) {
        if (f.wait == Wait::kBlock) f.wait = Wait::kNothing;
      }
      released = true;
    }
    if (!released) throw std::logic_error("threads wait for others that never come");
    return true;
  }

  Index number_;
  Index count_;
  bool backwards_;
  int current_ = 0;
  std::vector<Fiber> fibers_;
  std::vector<double> shared_;
  jmp_buf scheduler_;
};

inline thread_local Block* running = nullptr;
inline thread_local const void* body_of_all = nullptr;

class Context {
 public:
  int thread() const { return thread_; }
  int threads() const { return running->threads(); }
  Index block() const { return running->number(); }
  Index blocks() const { return running->count(); }
  double* shared() const { return running->shared(); }
  void sync() { running->wait(Wait::kBlock); }
  template <class T>
  T exchange(T value, int mask) {
    // Two places in turn: nobody writes to one before all have read what it held.
    const int turn = running->fiber(thread_).exchanges++ % 2;
    std::memcpy(running->fiber(thread_).exchanged[turn], &value, sizeof(T));
    running->wait(Wait::kWarp);
    T other;
    std::memcpy(&other, running->fiber(thread_ ^ mask).exchanged[turn], sizeof(T));
    return other;
  }

 private:
  int thread_ = running->current();
};

template <class Body>
void entry() {
  Context context;
  (*static_cast<const Body*>(body_of_all))(context);
  running->wait(Wait::kEnded);
}

struct Queue {
  bool backwards;
  int launches = 0;

  template <class Body>
  void run(const Body& body, Index blocks, int threads) {
    ++launches;
    if (threads > Body::kBlockThreads || threads % kWarpLanes != 0) throw std::logic_error("threads of a block");
    for (Index i = 0; i < blocks; ++i) {
      const Index number = backwards ? blocks - 1 - i : i;
      Block block(number, blocks, threads, Body::kShared, backwards);
      running = &block;
      body_of_all = &body;
      block.run(&entry<Body>);
    }
  }
};

}  // namespace gdcore::cuda::emulated
