// The end of a pass over the rows: partial sums to the loss, to gradients, and to the update of the parameters.
//
// One block for each sum (block 0 has the loss); each also adds up the loss, to know whether its update is to be made.
#pragma once

#include "cuda/linear.h"

namespace gdcore::cuda {

template <class S>
struct Finish {
  using T = Arithmetic<S>;
  static constexpr int kBlockThreads = kThreads;
  static constexpr int kBlocks = 1;
  static constexpr int kShared = kThreads / kWarpLanes * 2;

  const double* partials;
  Index row_blocks;
  Index output_blocks;
  Loop loop;

  template <class Context>
  GDCORE_KERNEL void operator()(Context& c) const {
    // Over before this epoch: that it is now, block 0 may be writing, and every block finds out by itself.
    if (is_over(loop.status) && *loop.status < loop.epoch) return;
    double sums[2] = {};
    for (Index i = c.thread(); i < row_blocks * output_blocks; i += kThreads) sums[0] += partials[i];
    const double* const own = partials + linear_partial(c.block(), row_blocks, output_blocks);
    if (c.block() > 0) {
      for (Index i = c.thread(); i < row_blocks; i += kThreads) sums[1] += own[i];
    }
    warp_sums(c, sums, 2, c.shared());
    if (c.thread() > 0) return;
    const T loss = static_cast<T>(block_sum<2>(c, c.shared(), 0) / loop.divisor.get());
    // Not as it is stored: a float16 is infinite from 65 520 on, where training goes on well.
    const bool over = loop.stops && !is_finite(loss);
    if (c.block() > 0) return use(c.block() - 1, block_sum<2>(c, c.shared(), 1), over);
    write(static_cast<S*>(loop.losses) + loop.epoch, loss);
    if (over) *loop.status = loop.epoch;
  }

  GDCORE_KERNEL void use(Index parameter, double sum, bool over) const {
    const Range& range = loop.range_of(parameter);
    const Index i = parameter - range.begin;
    const T gradient = static_cast<T>(sum * loop.factor());
    if (range.gradient != nullptr) static_cast<T*>(range.gradient)[i] = gradient;
    if (loop.updates && !over) loop.update<S>(parameter, gradient);
  }
};

/// The update of an epoch whose gradients are scaled by their norm, or whose norm is asked for. One block for all.
template <class S>
struct UpdateByNorm {
  using T = Arithmetic<S>;
  static constexpr int kBlockThreads = kThreads;
  static constexpr int kBlocks = 1;
  static constexpr int kShared = kThreads / kWarpLanes;

  const T* gradient;  ///< of θ
  Loop loop;

  template <class Context>
  GDCORE_KERNEL void operator()(Context& c) const {
    if (is_over(loop.status)) return;
    double squares[1] = {};
    for (Index q = c.thread(); q < loop.parameters; q += kThreads) {
      squares[0] += loop.square(q, static_cast<double>(gradient[q]));
    }
    warp_sums(c, squares, 1, c.shared());
    const double norm = square_root(block_sum<1>(c, c.shared(), 0));
    if (c.thread() == 0 && loop.norms != nullptr) loop.norms[loop.epoch] = norm;
    const T by = loop.clipping<T>(norm);
    for (Index q = c.thread(); q < loop.parameters; q += kThreads) loop.update<S>(q, gradient[q] * by);
  }
};

/// One sum of partial sums: the divisor of a weighted mean.
struct AddUp {
  static constexpr int kBlockThreads = kThreads;
  static constexpr int kBlocks = 1;
  static constexpr int kShared = kThreads / kWarpLanes;

  const double* partials;
  Index blocks;
  double* total;

  template <class Context>
  GDCORE_KERNEL void operator()(Context& c) const {
    double sums[1] = {};
    for (Index i = c.thread(); i < blocks; i += kThreads) sums[0] += partials[i];
    warp_sums(c, sums, 1, c.shared());
    if (c.thread() == 0) *total = block_sum<1>(c, c.shared(), 0);
  }
};

}  // namespace gdcore::cuda
