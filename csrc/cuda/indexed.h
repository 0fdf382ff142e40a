// Models whose weights are parameters in other places: prediction = x · weightᵀ, weight[o, j] = θ[places[o, j]], or 0
// where that is −1. The linear kernels see the weights; here is what leads from θ to them, and their gradient back to
// θ.
#pragma once

#include "cuda/block_sum.h"
#include "cuda/rules.h"

namespace gdcore::cuda {

/// Where each weight comes from, and the weights that each parameter is.
struct Places {
  const Index* of_weights;  ///< [weights]
  const Index* starts;      ///< [parameters + 1] in `members`
  const Index* members;     ///< the weights of each parameter, ascending
  Index weights;

  template <class S>
  GDCORE_KERNEL Arithmetic<S> weight(const Loop& loop, Index i) const {
    if (of_weights[i] < 0) return Arithmetic<S>(0);
    const Range& range = loop.range_of(of_weights[i]);
    return read(static_cast<const S*>(range.slots.parameter) + (of_weights[i] - range.begin));
  }
};

/// The weights as they are before the first epoch.
template <class S>
struct TakeWeights {
  static constexpr int kBlockThreads = kThreads;
  static constexpr int kBlocks = 1;
  static constexpr int kShared = 1;

  Places places;
  S* weights;
  Loop loop;

  template <class Context>
  GDCORE_KERNEL void operator()(Context& c) const {
    if (is_over(loop.status)) return;
    for (Index i = c.thread(); i < places.weights; i += kThreads) write(weights + i, places.weight<S>(loop, i));
  }
};

/// The end of an epoch: from the gradient of the weights to new parameters and new weights. One block for all.
template <class S>
struct UpdateIndexed {
  using T = Arithmetic<S>;
  static constexpr int kBlockThreads = kThreads;
  static constexpr int kBlocks = 1;
  static constexpr int kShared = kThreads / kWarpLanes;

  Places places;
  const T* gradient;  ///< of the weights
  S* weights;
  Loop loop;

  template <class Context>
  GDCORE_KERNEL void operator()(Context& c) const {
    if (is_over(loop.status)) return;
    T by = T(1);
    if (loop.looks_at_norm()) {
      double squares[1] = {};
      for (Index q = c.thread(); q < loop.parameters; q += kThreads) {
        squares[0] += loop.square(q, static_cast<double>(slope(q)));
      }
      warp_sums(c, squares, 1, c.shared());
      const double norm = square_root(block_sum<1>(c, c.shared(), 0));
      if (c.thread() == 0 && loop.norms != nullptr) loop.norms[loop.epoch] = norm;
      by = loop.clipping<T>(norm);
    }
    for (Index q = c.thread(); q < loop.parameters; q += kThreads) loop.update<S>(q, slope(q) * by);
    c.sync();
    for (Index i = c.thread(); i < places.weights; i += kThreads) write(weights + i, places.weight<S>(loop, i));
  }

  /// A parameter's gradient.
  GDCORE_KERNEL T slope(Index parameter) const {
    double sum = 0;
    for (Index m = places.starts[parameter]; m < places.starts[parameter + 1]; ++m) {
      sum += static_cast<double>(gradient[places.members[m]]);
    }
    return static_cast<T>(sum);
  }
};

}  // namespace gdcore::cuda
