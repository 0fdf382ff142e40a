#include "training/gathering.h"

#include <algorithm>
#include <exception>
#include <thread>

#include "training/chunks.h"
#include "training/spin.h"

namespace gdcore {

namespace {

/// Rows between the one that is copied and the one that is fetched: about the latency of memory.
constexpr Index kRowsAhead = 16;
constexpr Index kLineBytes = 64;
constexpr Index kRowsPerChunk = 1024;
constexpr Index kRowsPerDraw = 1024;
constexpr int kSpinsToYield = 1024;
/// Elements of a group: so many that claiming one costs little.
constexpr Index kGroupElements = 4096;
/// Elements of all slots: what a second-level cache holds beside other things.
constexpr Index kSlotElements = 16 * kGroupElements;

// Inlined at once: GCC takes a function that only prefetches for one without effect, and leaves out calls of it.
template <class T>
[[gnu::always_inline]] inline void fetch(const Matrix<const T>& from, Index columns, Index row) {
  const T* const data = from.data + row * from.row;
  if (from.column == 1) {
    const char* const end = reinterpret_cast<const char*>(data + columns);
    const char* line = reinterpret_cast<const char*>(data);
    for (line -= reinterpret_cast<std::uintptr_t>(line) % kLineBytes; line < end; line += kLineBytes) {
      __builtin_prefetch(line);
    }
  } else {
    for (Index j = 0; j < columns; ++j) __builtin_prefetch(data + j * from.column);
  }
}

template <class T>
void copy(const Matrix<const T>& from, Index columns, Index row, T* to) {
  const T* const data = from.data + row * from.row;
  if (from.column == 1) {
    constexpr Index piece = 16 / static_cast<Index>(sizeof(T));
    Index j = 0;
    for (; j + piece <= columns; j += piece) __builtin_memcpy(to + j, data + j, 16);
    for (; j < columns; ++j) to[j] = data[j];
  } else {
    for (Index j = 0; j < columns; ++j) to[j] = data[j * from.column];
  }
}

}  // namespace

template <class T>
Gathering<T>::Gathering(const RowData<T>& data, Index x_columns, Index target_columns, const RowOrder& order,
                        int threads)
    : data_(data), x_columns_(x_columns), target_columns_(target_columns), order_(order), threads_(threads) {
  const Index columns = std::max<Index>(x_columns + target_columns, 1);
  group_rows_ = std::max<Index>(kGroupElements / (order.batch * columns), 1) * order.batch;
  groups_ = (order.count + group_rows_ - 1) / group_rows_;
  // A group that is worth two threads is gathered by both, when it is wanted.
  const Index elements = group_rows_ * columns;
  may_be_helped_ = threads > 1 && elements < kSerialElements && order.count * columns >= kSerialElements;
  slot_count_ = may_be_helped_ ? std::max<Index>(kSlotElements / elements, 2) : 1;
  drawn_ = order.shuffle == nullptr ? order.count : 0;
  held_ = std::make_unique<std::atomic<Index>[]>(static_cast<std::size_t>(slot_count_));
  const Index rows = std::min(group_rows_, order.count) * slot_count_;
  x_ = allocate<T>(rows * x_columns);
  target_ = allocate<T>(rows * target_columns);
  slots_.x = {x_.get(), x_columns, 1};
  slots_.target = {target_.get(), target_columns, 1};
  if (data.loss_weight.data != nullptr) {
    loss_weight_ = allocate<T>(rows * target_columns);
    slots_.loss_weight = {loss_weight_.get(), target_columns, 1};
  }
}

template <class T>
Index Gathering<T>::at(Index row) {
  const Index group = row / group_rows_;
  std::atomic<Index>& held = held_[static_cast<std::size_t>(group % slot_count_)];
  if (group != taken_) {
    taken_ = group;
    left_.store(group, std::memory_order_release);
    if (may_be_helped_) left_.notify_one();
    const auto here = [&] { return held.load(std::memory_order_acquire) == group + 1; };
    for (int spins = 0; !here();) {
      if (work()) continue;
      relax();
      // The other thread may be waiting for this core.
      if (++spins % kSpinsToYield == 0) std::this_thread::yield();
    }
  }
  return group % slot_count_ * group_rows_ + row % group_rows_;
}

/// Whether there was something to do.
template <class T>
bool Gathering<T>::work() {
  return gather_next() || draw_more();
}

/// Claims and gathers a group, if there is one left, a slot for it, and its rows are drawn.
template <class T>
bool Gathering<T>::gather_next() {
  Index group = next_.load(std::memory_order_relaxed);
  do {
    if (group >= groups_ || group >= left_.load(std::memory_order_acquire) + slot_count_) return false;
    const Index looked_at = std::min((group + 1) * group_rows_ + kRowsAhead, order_.count);
    if (looked_at > drawn_.load(std::memory_order_acquire)) return false;
  } while (!next_.compare_exchange_weak(group, group + 1, std::memory_order_relaxed));
  gather(group);
  held_[static_cast<std::size_t>(group % slot_count_)].store(group + 1, std::memory_order_release);
  return true;
}

/// Draws some more rows, if there are any left and nobody else does.
template <class T>
bool Gathering<T>::draw_more() {
  if (drawn_.load(std::memory_order_relaxed) >= order_.count) return false;
  if (drawing_.test(std::memory_order_relaxed) || drawing_.test_and_set(std::memory_order_acquire)) return false;
  order_.shuffle->draw_until(std::min(order_.shuffle->drawn() + kRowsPerDraw, order_.count));
  drawn_.store(order_.shuffle->drawn(), std::memory_order_release);
  drawing_.clear(std::memory_order_release);
  return true;
}

template <class T>
void Gathering<T>::gather(Index group) {
  const Index first = group * group_rows_;
  const Index count = std::min(group_rows_, order_.count - first);
  const Index slot = group % slot_count_ * group_rows_;
  for_chunks(count, kRowsPerChunk, x_columns_, threads_, [&](Index begin, Index end) {
    for (Index i = begin; i < end; ++i) {
      const std::int32_t* const row = order_.rows + first + i;
      if (first + i + kRowsAhead < order_.count) {
        fetch(data_.x, x_columns_, row[kRowsAhead]);
        fetch(data_.target, target_columns_, row[kRowsAhead]);
        if (loss_weight_) fetch(data_.loss_weight, target_columns_, row[kRowsAhead]);
      }
      copy(data_.x, x_columns_, *row, x_.get() + (slot + i) * x_columns_);
      copy(data_.target, target_columns_, *row, target_.get() + (slot + i) * target_columns_);
      if (loss_weight_) {
        copy(data_.loss_weight, target_columns_, *row, loss_weight_.get() + (slot + i) * target_columns_);
      }
    }
  });
}

template <class T>
void Gathering<T>::beside(const std::function<void()>& body) {
  if (!may_be_helped_) return body();
  struct Job {
    Gathering* gathering;
    const std::function<void()>* body;
    bool called;
    std::exception_ptr thrown;

    void call() {
      if (called) return;
      called = true;
      try {
        (*body)();
      } catch (...) {
        thrown = std::current_exception();
      }
      gathering->stop();
    }
  } job = {this, &body, false, nullptr};
  const auto run = [](void* context, std::uint32_t /*chunk*/, int worker) {
    Job& j = *static_cast<Job*>(context);
    if (worker == 0) {
      j.call();
    } else {
      j.gathering->help();
    }
  };
  run_chunks(2, 2, run, &job, {nullptr, nullptr});
  job.call();  // where another thread has taken both
  if (job.thrown) std::rethrow_exception(job.thrown);
}

template <class T>
void Gathering<T>::help() {
  while (!stopped_.load(std::memory_order_acquire)) {
    const Index left = left_.load(std::memory_order_acquire);
    if (work()) continue;
    if (next_.load(std::memory_order_relaxed) >= groups_) return;
    // All slots hold what is still to be taken.
    if (!spin_until([&] { return left_.load(std::memory_order_acquire) != left; })) {
      left_.wait(left, std::memory_order_acquire);
    }
  }
}

template <class T>
void Gathering<T>::stop() {
  stopped_.store(true, std::memory_order_release);
  left_.store(groups_ + 1, std::memory_order_release);
  left_.notify_one();
}

template class Gathering<float>;
template class Gathering<double>;

}  // namespace gdcore
