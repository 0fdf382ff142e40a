#include "training/gathering.h"

#include <algorithm>
#include <exception>
#include <thread>

#include "training/chunks.h"
#include "training/spin.h"

namespace gdcore {

namespace {

/// Rows between the one that is copied and the one that is fetched: more than the latency of memory.
constexpr Index kRowsAhead = 32;
constexpr Index kLineBytes = 64;
constexpr Index kRowsPerChunk = 1024;
constexpr Index kRowsPerDraw = 1024;
constexpr int kSpinsToYield = 1024;
/// Elements of a group: so many that claiming one costs little.
constexpr Index kGroupElements = 4096;
/// Elements of all slots: what a second-level cache holds beside other things.
constexpr Index kSlotElements = 16 * kGroupElements;

/// Rows here and there that are to lie one after another: `rows` names `count` of them, and `ahead` more may be looked
/// at.
struct Wanted {
  const std::int32_t* rows;
  Index count;
  Index ahead;
};

/// `copy(i, row)` for every row, and `fetch(row)` some rows before that.
template <class Fetch, class Copy>
[[gnu::always_inline]] inline void for_rows(const Wanted& wanted, const Fetch& fetch, const Copy& copy) {
  const std::int32_t* const rows = wanted.rows;
  const Index fetched = std::min(wanted.count, wanted.count + wanted.ahead - kRowsAhead);
  Index i = 0;
  for (; i < fetched; ++i) {
    fetch(rows[i + kRowsAhead]);
    copy(i, rows[i]);
  }
  for (; i < wanted.count; ++i) copy(i, rows[i]);
}

/// The same for rows of the width of PIECES times 16 bytes, or of any: a loop of known length is no loop.
template <Index PIECES>
void copy_rows(const char* data, Index stride, Index bytes, const Wanted& wanted, char* to) {
  constexpr Index piece = 16;
  const Index width = PIECES > 0 ? PIECES * piece : bytes;
  // Inlined at once: GCC takes a function that only prefetches for one without effect, and leaves out calls of it.
  const auto fetch = [=](Index row) __attribute__((always_inline)) {
    const char* const from = data + row * stride;
    for (Index line = 0; line < width; line += kLineBytes) __builtin_prefetch(from + line);
    __builtin_prefetch(from + width - 1);
  };
  for_rows(wanted, fetch, [=](Index i, Index row) {
    const char* const from = data + row * stride;
    char* const there = to + i * width;
    Index j = 0;
    for (; j + piece <= width; j += piece) __builtin_memcpy(there + j, from + j, piece);
    for (; j < width; j += 4) __builtin_memcpy(there + j, from + j, 4);
  });
}

template <class T>
void gather_rows(const Matrix<const T>& from, Index columns, const Wanted& wanted, T* to) {
  const T* const data = from.data;
  const Index row_stride = from.row, column_stride = from.column;
  if (columns == 1) {
    const auto fetch = [=](Index row) __attribute__((always_inline)) { __builtin_prefetch(data + row * row_stride); };
    for_rows(wanted, fetch, [=](Index i, Index row) { to[i] = data[row * row_stride]; });
  } else if (column_stride == 1) {
    constexpr Index size = sizeof(T);
    const auto copy = columns * size == 64 ? copy_rows<4> : copy_rows<0>;
    copy(reinterpret_cast<const char*>(data), row_stride * size, columns * size, wanted, reinterpret_cast<char*>(to));
  } else {
    const auto fetch = [=](Index row) __attribute__((always_inline)) {
      for (Index j = 0; j < columns; ++j) __builtin_prefetch(data + row * row_stride + j * column_stride);
    };
    for_rows(wanted, fetch, [=](Index i, Index row) {
      for (Index j = 0; j < columns; ++j) to[i * columns + j] = data[row * row_stride + j * column_stride];
    });
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
    const Wanted wanted = {order_.rows + first + begin, end - begin, order_.count - first - end};
    gather_rows(data_.x, x_columns_, wanted, x_.get() + (slot + begin) * x_columns_);
    gather_rows(data_.target, target_columns_, wanted, target_.get() + (slot + begin) * target_columns_);
    if (loss_weight_) {
      gather_rows(data_.loss_weight, target_columns_, wanted, loss_weight_.get() + (slot + begin) * target_columns_);
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
