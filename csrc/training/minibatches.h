// One epoch in minibatches: each evaluation is that of the next batch.
//
// Loss and gradient are to the bit those of the batch's rows laid out on their own, as in x[order[i:i + size]]: rows in
// order are read where they lie, others are gathered.
#pragma once

#include <functional>
#include <memory>

#include "training/gathering.h"

namespace gdcore {

template <class T>
struct Minibatches {
  RowData<T> data;
  Index rows;
  Index x_columns;
  Index target_columns;       ///< of the weights, too
  const std::int32_t* order;  ///< `rows` of the data's row numbers, or null for the first ones as they lie
  Shuffle* shuffle;           ///< that draws them, or null
  Index size;
  bool mean;
  int threads;
  /// The model's objective over rows of data, its divisor to be selected.
  std::function<std::unique_ptr<Objective<T>>(const RowData<T>& data, Index rows)> make;

  Index batches() const { return (rows + size - 1) / size; }
};

/// To be evaluated at most `batches()` times.
template <class T>
std::unique_ptr<Objective<T>> minibatch_objective(Minibatches<T> minibatches);

}  // namespace gdcore
