// Elementwise passes over memory: mse, the models of one number, sums of weights, and P₃.
//
// One pass, kInFlight vectors of each tensor read before the first is used. Element i belongs to the same thread, in
// the same place of its order, whatever the strides and the alignment. A thread adds up a tile in T, and its tiles in
// double; block sums go to partials[sum * blocks + block].
#pragma once

#include "cuda/block_sum.h"
#include "cuda/elements.h"
#include "cuda/models.h"
#include "cuda/rules.h"

namespace gdcore::cuda {

/// Parameters where they lie: of one tensor one after the other, or one of each tensor.
template <class S>
struct Theta {
  const S* tensors[4];
  bool scattered;

  GDCORE_KERNEL Arithmetic<S> operator()(int i) const { return scattered ? read(tensors[i]) : read(tensors[0] + i); }
};

/// Calls load(element, place), then use(element, place), for the vectors of this thread, and flush() after each tile.
template <class S, class Context, class Load, class Use, class Flush>
GDCORE_KERNEL void over_tiles(const Context& c, Index size, const Load& load, const Use& use, const Flush& flush) {
  constexpr Index stride = Index{kThreads} * kVector<S>;
  for (Index tile = c.block(); tile * kInFlight * stride < size; tile += c.blocks()) {
    const Index first = tile * kInFlight * stride + Index{c.thread()} * kVector<S>;
    GDCORE_UNROLL
    for (int u = 0; u < kInFlight; ++u) load(first + u * stride, u);
    GDCORE_UNROLL
    for (int u = 0; u < kInFlight; ++u) use(first + u * stride, u);
    flush();
  }
}

/// prediction = model(x);  sums: those of the model.
template <class S, template <class> class ModelOf>
struct Points {
  using T = Arithmetic<S>;
  using Model = ModelOf<T>;
  static constexpr int kBlockThreads = kThreads;
  static constexpr int kBlocks = 1;
  static constexpr int kShared = kThreads / kWarpLanes * Model::kSums;

  View x, target, loss_weight;
  Index size;
  int count;  ///< of sums
  Theta<S> theta;
  double* partials;
  const Index* status;

  template <class Context>
  GDCORE_KERNEL void operator()(Context& c) const {
    if (is_over(status)) return;
    constexpr int vector = kVector<S>;
    const Model model(theta, count);
    double sums[Model::kSums] = {};
    T xs[kInFlight][vector], targets[kInFlight][vector], weights[kInFlight][vector];
    T part[Model::kSums] = {};
    over_tiles<S>(
        c, size,
        [&](Index i, int u) {
          elements<S>(x, i, size, xs[u]);
          elements<S>(target, i, size, targets[u]);
          if (loss_weight.data != nullptr) elements<S>(loss_weight, i, size, weights[u]);
        },
        [&](Index i, int u) {
          GDCORE_UNROLL
          for (int v = 0; v < vector; ++v) {
            if (i + v < size) {
              model.add(part, xs[u][v], targets[u][v], loss_weight.data != nullptr ? weights[u][v] : T(1));
            }
          }
        },
        [&] {
          GDCORE_UNROLL
          for (int s = 0; s < Model::kSums; ++s) {
            sums[s] += static_cast<double>(part[s]);
            part[s] = T(0);
          }
        });
    model.finish(sums);
    warp_sums(c, sums, count, c.shared());
    if (c.thread() < count) {
      partials[Index{c.thread()} * c.blocks() + c.block()] = block_sum<Model::kSums>(c, c.shared(), c.thread());
    }
  }
};

/// r = input − target;  sums: Σ w r²;  on request every w r², and 2 w r / divisor.
template <class S>
struct Mse {
  using T = Arithmetic<S>;
  static constexpr int kBlockThreads = kThreads;
  static constexpr int kBlocks = 1;
  static constexpr int kShared = kThreads / kWarpLanes;

  View input, target, loss_weight;
  Index size;
  Divisor divisor;
  void* gradient;  ///< of T, or null
  void* losses;    ///< or null
  double* partials;

  template <class Context>
  GDCORE_KERNEL void operator()(Context& c) const {
    constexpr int vector = kVector<S>;
    const T factor = static_cast<T>(2.0 / divisor.get());
    double sums[1] = {};
    T inputs[kInFlight][vector], targets[kInFlight][vector], weights[kInFlight][vector];
    T part = T(0);
    over_tiles<S>(
        c, size,
        [&](Index i, int u) {
          elements<S>(input, i, size, inputs[u]);
          elements<S>(target, i, size, targets[u]);
          if (loss_weight.data != nullptr) elements<S>(loss_weight, i, size, weights[u]);
        },
        [&](Index i, int u) {
          T slopes[vector], squares[vector];
          GDCORE_UNROLL
          for (int v = 0; v < vector; ++v) {
            const T r = inputs[u][v] - targets[u][v];
            const T weighted = loss_weight.data != nullptr ? r * weights[u][v] : r;
            if (i + v < size) part = fma(weighted, r, part);
            slopes[v] = weighted * factor;
            squares[v] = weighted * r;
          }
          if (i >= size) return;
          if (gradient != nullptr) write_arithmetic<S>(gradient, i, size, slopes);
          if (losses != nullptr) write_elements<S>(losses, i, size, squares);
        },
        [&] {
          sums[0] += static_cast<double>(part);
          part = T(0);
        });
    warp_sums(c, sums, 1, c.shared());
    if (c.thread() == 0) partials[c.block()] = block_sum<1>(c, c.shared(), 0);
  }
};

/// sums: Σ of all elements.
template <class S>
struct WeightSum {
  using T = Arithmetic<S>;
  static constexpr int kBlockThreads = kThreads;
  static constexpr int kBlocks = 1;
  static constexpr int kShared = kThreads / kWarpLanes;

  View values;
  Index size;
  double* partials;

  template <class Context>
  GDCORE_KERNEL void operator()(Context& c) const {
    double sums[1] = {};
    T loaded[kInFlight][kVector<S>];
    T part = T(0);
    over_tiles<S>(
        c, size, [&](Index i, int u) { elements<S>(values, i, size, loaded[u]); },
        [&](Index, int u) {
          GDCORE_UNROLL
          for (int v = 0; v < kVector<S>; ++v) part = part + loaded[u][v];
        },
        [&] {
          sums[0] += static_cast<double>(part);
          part = T(0);
        });
    warp_sums(c, sums, 1, c.shared());
    if (c.thread() == 0) partials[c.block()] = block_sum<1>(c, c.shared(), 0);
  }
};

/// data ← factor · data; a factor of 1 costs the reading of it.
template <class S>
struct Scale {
  using T = Arithmetic<S>;
  static constexpr int kBlockThreads = kThreads;
  static constexpr int kBlocks = 1;
  static constexpr int kShared = 1;

  View values;  ///< of `data`
  void* data;
  Index size;
  const void* factor;

  template <class Context>
  GDCORE_KERNEL void operator()(Context& c) const {
    const T by = read(static_cast<const S*>(factor));
    if (by == T(1)) return;
    T loaded[kInFlight][kVector<S>];
    over_tiles<S>(
        c, size, [&](Index i, int u) { elements<S>(values, i, size, loaded[u]); },
        [&](Index i, int u) {
          GDCORE_UNROLL
          for (int v = 0; v < kVector<S>; ++v) loaded[u][v] = loaded[u][v] * by;
          if (i < size) write_elements<S>(data, i, size, loaded[u]);
        },
        [] {});
  }
};

/// out = P₃(x), or grad · P₃′(x) where grad is given.
template <class S>
struct LegendreP3Points {
  using T = Arithmetic<S>;
  static constexpr int kBlockThreads = kThreads;
  static constexpr int kBlocks = 1;
  static constexpr int kShared = 1;

  View x, grad;
  Index size;
  void* out;

  template <class Context>
  GDCORE_KERNEL void operator()(Context& c) const {
    T xs[kInFlight][kVector<S>], grads[kInFlight][kVector<S>];
    over_tiles<S>(
        c, size,
        [&](Index i, int u) {
          elements<S>(x, i, size, xs[u]);
          if (grad.data != nullptr) elements<S>(grad, i, size, grads[u]);
        },
        [&](Index i, int u) {
          T values[kVector<S>];
          GDCORE_UNROLL
          for (int v = 0; v < kVector<S>; ++v) {
            const T square = xs[u][v] * xs[u][v];
            values[v] = grad.data != nullptr ? grads[u][v] * legendre_slope(square) : legendre_value(xs[u][v], square);
          }
          if (i < size) write_elements<S>(out, i, size, values);
        },
        [] {});
  }
};

}  // namespace gdcore::cuda
