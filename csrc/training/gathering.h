// Rows of an epoch in the order in which they are wanted, gathered ahead of whoever takes them.
//
// Reading rows here and there waits for memory most of the time, and one core has only so many reads under way. So a
// second thread gathers, too, while the first one steps: groups of whole batches, into a ring of slots. Whoever is free
// claims the next group; the first thread waits only for what the second has claimed. An order that is still to be
// drawn is drawn along the way. What is gathered is the same whoever did it.
#pragma once

#include <atomic>
#include <functional>
#include <memory>

#include "training/objective.h"
#include "training/shuffle.h"

namespace gdcore {

/// The rows of a problem, or of one batch of it.
template <class T>
struct RowData {
  Matrix<const T> x;
  Matrix<const T> target;
  Matrix<const T> loss_weight;  ///< or null
  Index rows_to_fetch = 0;      ///< as in `LinearMse`
};

/// Which rows, and how many of them are taken at a time.
struct RowOrder {
  const std::int32_t* rows;
  Shuffle* shuffle;  ///< that draws the rows, or null where they are there
  Index count;
  Index batch;
};

template <class T>
class Gathering {
 public:
  Gathering(const RowData<T>& data, Index x_columns, Index target_columns, const RowOrder& order, int threads);

  /// The memory that rows are gathered into.
  const RowData<T>& slots() const { return slots_; }
  /// Where the batch lies there that begins with the order's row number `row`: until the next one is asked for. Batches
  /// are asked for in their order.
  Index at(Index row);
  /// Calls `body`, which takes the batches, while another thread gathers if that is worth it.
  void beside(const std::function<void()>& body);

 private:
  bool work();
  bool gather_next();
  bool draw_more();
  void gather(Index group);
  void help();
  void stop();

  RowData<T> data_;
  Index x_columns_, target_columns_;
  RowOrder order_;
  int threads_;
  Index group_rows_, groups_, slot_count_;
  bool may_be_helped_;
  Array<T> x_, target_, loss_weight_;
  RowData<T> slots_ = {};

  Index taken_ = -1;                            ///< the group whose batches are being taken
  std::unique_ptr<std::atomic<Index>[]> held_;  ///< by slot: how many groups there were with the one that it holds
  alignas(64) std::atomic<Index> next_{0};      ///< the first group that nobody has claimed
  alignas(64) std::atomic<Index> left_{0};      ///< the first group that may still be taken from
  alignas(64) std::atomic<Index> drawn_{0};     ///< how many rows of the order are final
  std::atomic_flag drawing_;
  std::atomic<bool> stopped_{false};
};

}  // namespace gdcore
