#include "training/objective.h"

#include <algorithm>
#include <atomic>

namespace gdcore {

namespace {

/// Some microseconds' work: so that the last chunk, which the other threads wait for, is a small part of an evaluation.
constexpr Index kChunkElements = Index{1} << 16;
/// Where a chunk's sums are many, so many rows, or as many elements: adding them must be a small part, too.
constexpr Index kManySumsRows = 256;
constexpr Index kManySumsElements = Index{1} << 18;
constexpr Index kMaxChunkRows = 4096;
constexpr Index kMaxChunks = 256;
constexpr Index kMaxPartialSums = Index{1} << 21;
/// Elements of a piece of a chunk, after which an interrupt is looked for: some tens of milliseconds.
constexpr Index kPieceElements = Index{1} << 25;

Index round_up(Index value, Index multiple) { return (value + multiple - 1) / multiple * multiple; }

// Large enough to hide the cost of a chunk, small enough to share, and so many that their sums fit in memory.
Index rows_per_chunk(const Extent& extent) {
  const Index elements = std::max<Index>(extent.elements_per_row, 1);
  const Index least = std::min(kManySumsRows, kManySumsElements / elements);
  const Index by_work = std::clamp(std::max(kChunkElements / elements, least), kRowGroup, kMaxChunkRows);
  const Index most = std::clamp<Index>(kMaxPartialSums / (extent.parameters + 1), 4, kMaxChunks);
  const Index by_memory = (extent.rows + most - 1) / most;
  return round_up(std::max(by_work, by_memory), kRowGroup);
}

Index rows_per_piece(const Extent& extent) {
  const Index rows = kPieceElements / std::max<Index>(extent.elements_per_row, 1);
  return rows >= kRowGroup ? rows / kRowGroup * kRowGroup : std::max<Index>(rows / 4 * 4, 4);
}

}  // namespace

template <class T>
RowObjective<T>::RowObjective(const Extent& extent, int threads)
    : extent_(extent),
      threads_(extent.rows * extent.elements_per_row < kSerialElements ? 1 : std::clamp(threads, 1, kMaxThreads)),
      rows_per_chunk_(rows_per_chunk(extent)),
      rows_per_piece_(rows_per_piece(extent)),
      chunks_((extent.rows + rows_per_chunk_ - 1) / rows_per_chunk_),
      sums_(allocate<double>((1 + extent.parameters) * (1 + (chunks_ > 1 ? chunks_ : 0)))) {}

template <class T>
void RowObjective<T>::select(Index first, double divisor) {
  first_ = first;
  extent_.divisor = divisor;
}

template <class T>
bool RowObjective<T>::evaluate(const T* theta, const Interrupt& interrupt, T* loss, T* gradient) {
  const Index count = 1 + extent_.parameters;
  double* sums = sums_.get();
  std::fill_n(sums, count, 0.0);
  begin(theta);
  struct Job {
    RowObjective* objective;
    const T* theta;
    const Interrupt* interrupt;
    std::atomic<bool> stopped;

    void chunk(Index first, Index last, int worker, double* partial) {
      for (Index row = first; row < last && !stopped.load(std::memory_order_relaxed);) {
        const Index piece_end = std::min(row + objective->rows_per_piece_, last);
        objective->accumulate(theta, row, piece_end, worker, partial);
        row = piece_end;
        if (row < last && worker == 0 && (*interrupt)()) stopped.store(true, std::memory_order_relaxed);
      }
    }
  } job = {this, theta, &interrupt, false};
  if (chunks_ <= 1) {
    job.chunk(first_, first_ + extent_.rows, 0, sums);
    if (job.stopped) return false;
  } else {
    const auto run = [](void* context, std::uint32_t chunk, int worker) {
      Job& j = *static_cast<Job*>(context);
      const RowObjective& self = *j.objective;
      const Index first = self.rows_per_chunk_ * chunk;
      const Index last = std::min(first + self.rows_per_chunk_, self.extent_.rows);
      double* partial = self.sums_.get() + (1 + self.extent_.parameters) * (1 + static_cast<Index>(chunk));
      std::fill_n(partial, 1 + self.extent_.parameters, 0.0);
      j.chunk(self.first_ + first, self.first_ + last, worker, partial);
    };
    if (!run_chunks(static_cast<std::uint32_t>(chunks_), threads_, run, &job, interrupt) || job.stopped) return false;
    for (Index chunk = 0; chunk < chunks_; ++chunk) {
      const double* partial = sums + count * (1 + chunk);
      for (Index s = 0; s < count; ++s) sums[s] += partial[s];
    }
  }
  end(theta, sums);
  *loss = static_cast<T>(sums[0] / extent_.divisor);
  // No rows, no gradient: not 0 · (2 / 0).
  const double factor = extent_.rows > 0 ? 2.0 / extent_.divisor : 0.0;
  for (Index s = 1; s < count; ++s) gradient[s - 1] = static_cast<T>(sums[s] * factor);
  return true;
}

template class RowObjective<float>;
template class RowObjective<double>;

}  // namespace gdcore
