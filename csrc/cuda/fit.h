// Many epochs of a small problem in one launch: one block goes through the rows again and again, which stay in its
// registers or in the caches. `fit` cuts its epochs into chunks, a launch each, and looks for Ctrl-C between them.
//
// Parameters are kept in shared memory in their own dtype, float32 or float64, and rounded at every step.
#pragma once

#include "cuda/points.h"

namespace gdcore::cuda {

/// Rows that a thread adds in T before it adds them to a double.
inline constexpr int kFitRun = 16;

template <class T>
struct SharedTheta {
  const T* values;
  GDCORE_KERNEL T operator()(int i) const { return values[i]; }
};

/// A sum of squares divided, which all threads wait for: for float32 by a reciprocal in double, whose rounding is lost
/// in the loss's own.
template <class T>
class LossOf {
 public:
  GDCORE_KERNEL explicit LossOf(double divisor) : number_(sizeof(T) > 4 ? divisor : 1.0 / divisor) {}
  GDCORE_KERNEL T operator()(double sum) const { return static_cast<T>(sizeof(T) > 4 ? sum / number_ : sum * number_); }

 private:
  double number_;
};

/// One number of each row: a vector, or a matrix of one column.
template <class T>
struct Column {
  const T* data;
  Index step;

  explicit Column(const View& view)
      : data(static_cast<const T*>(view.data)), step(view.columns == 1 ? view.row : view.column) {}
  GDCORE_KERNEL T operator[](Index i) const { return data[i * step]; }
};

/// A model of one number; one thread for each parameter keeps its states in registers, and each thread some points.
///
/// An epoch is as long as its chain of operations that wait for one another: what need not be in it is outside of the
/// loop: settings, for example, are brought to T before.
template <class T, template <class> class ModelOf>
struct FitPoints {
  using Model = ModelOf<T>;
  /// What leaves each enough registers.
  static constexpr int kBlockThreads = Model::kSums > 8 || sizeof(T) > 4 ? kMaxFitThreads / 2 : kMaxFitThreads;
  static constexpr int kBlocks = 1;
  static constexpr int kSumsShared = kBlockThreads / kWarpLanes * Model::kSums;
  static constexpr int kShared = kSumsShared + 2 * Model::kSums;
  static constexpr int kHeld = fit_held(sizeof(T));  ///< points of a thread in registers

  Column<T> x, target, loss_weight;
  int size;
  int busy;   ///< threads that have points, a power of two: the fewer, the sooner they are added up
  int count;  ///< of sums
  Loop loop;

  template <class Context>
  GDCORE_KERNEL void operator()(Context& c) const {
    if (is_over(loop.status)) return;
    T* const theta = reinterpret_cast<T*>(c.shared() + kSumsShared);
    T* const gradients = reinterpret_cast<T*>(c.shared() + kSumsShared + Model::kSums);
    const int own = c.thread();
    const bool owner = own < count - 1;
    const Range& range = loop.range_of(owner ? own : 0);
    const Index place = own - range.begin;
    T p = T(0), before = T(0), state[kMaxState] = {};
    bool updates = false;
    if (owner) {
      p = static_cast<const T*>(range.slots.parameter)[place];
      read_states<T>(range.slots, place, state);
      theta[own] = p;
    }
    const Updater<T> update(range.settings);
    const Slots slots = range.slots;
    const Held held = hold(c);
    const LossOf<T> loss_of(loop.divisor.get());
    const double factor = loop.factor();
    c.sync();
    for (Index epoch = 0; epoch < loop.epochs; ++epoch) {
      accumulate(c, theta, held);
      const T loss = loss_of(block_sum<Model::kSums>(c, c.shared(), 0));
      const double sum = block_sum<Model::kSums>(c, c.shared(), owner ? 1 + own : 0);
      if (own == 0) static_cast<T*>(loop.losses)[loop.epoch + epoch] = loss;
      if (loop.stops && !is_finite(loss)) {
        if (own == 0) *loop.status = loop.epoch + epoch;
        break;
      }
      T gradient = owner ? static_cast<T>(sum * factor) : T(0);
      if (loop.looks_at_norm()) gradient = gradient * clipping(c, epoch, gradient, gradients);
      if (owner) {
        before = p;
        updates = true;
        p = update(static_cast<double>(loop.epoch + epoch), slots, p, gradient, state);
        theta[own] = p;
        loop.record<T>(loop.epoch + epoch, own, p);
      }
      c.sync();
    }
    if (!owner) return;
    static_cast<T*>(range.slots.parameter)[place] = p;
    write_states<T>(range.slots, place, state);
    if (updates && loop.previous != nullptr) static_cast<T*>(loop.previous)[own] = before;
  }

  /// What the gradient is multiplied by, once every thread has put its own where all see it.
  template <class Context>
  GDCORE_KERNEL T clipping(Context& c, Index epoch, T gradient, T* gradients) const {
    if (c.thread() < count - 1) gradients[c.thread()] = gradient;
    c.sync();
    double squares = 0;
    for (int q = 0; q < count - 1; ++q) squares += loop.square(q, static_cast<double>(gradients[q]));
    const double norm = square_root(squares);
    if (c.thread() == 0 && loop.norms != nullptr) loop.norms[loop.epoch + epoch] = norm;
    return loop.clipping<T>(norm);
  }

  /// The first points of a thread.
  struct Held {
    T x[kHeld], target[kHeld], weight[kHeld];
    int points;  ///< more than kHeld where others are left in the caches
  };

  template <class Context>
  GDCORE_KERNEL Held hold(const Context& c) const {
    Held held = {};
    held.points = c.thread() < busy && c.thread() < size ? (size - c.thread() - 1) / busy + 1 : 0;
    GDCORE_UNROLL
    for (int k = 0; k < kHeld; ++k) {
      if (k >= held.points) continue;
      const int i = c.thread() + k * busy;
      held.x[k] = x[i];
      held.target[k] = target[i];
      held.weight[k] = weight_of(i);
    }
    return held;
  }
  GDCORE_KERNEL T weight_of(Index i) const { return loss_weight.data != nullptr ? loss_weight[i] : T(1); }

  /// The sums of all points, of each warp, into shared memory.
  template <class Context>
  GDCORE_KERNEL void accumulate(Context& c, const T* theta, const Held& held) const {
    const Model model(SharedTheta<T>{theta}, count);
    double sums[Model::kSums] = {};
    T part[Model::kSums] = {};
    GDCORE_UNROLL
    for (int k = 0; k < kHeld; ++k) {
      if (k < held.points) model.add(part, held.x[k], held.target[k], held.weight[k]);
    }
    flush(part, sums);
    for (int k = kHeld; k < held.points; k += kFitRun) {
      for (int m = k; m < held.points && m < k + kFitRun; ++m) {
        const Index i = c.thread() + Index{m} * busy;
        model.add(part, x[i], target[i], weight_of(i));
      }
      flush(part, sums);
    }
    model.finish(sums);
    warp_sums(c, sums, count, c.shared(), busy);
  }
  GDCORE_KERNEL static void flush(T (&part)[Model::kSums], double (&sums)[Model::kSums]) {
    GDCORE_UNROLL
    for (int s = 0; s < Model::kSums; ++s) {
      sums[s] += static_cast<double>(part[s]);
      part[s] = T(0);
    }
  }
};

/// A linear model: first the residuals, some lanes to each, then the gradients, some lanes to each.
template <class T>
struct FitLinear {
  static constexpr int kBlockThreads = kMaxFitThreads;
  static constexpr int kBlocks = 1;
  static constexpr int kWarps = kMaxFitThreads / kWarpLanes;
  static constexpr int kShared = kWarps + 2 * kMaxFitParameters + kMaxFitResiduals;

  View x, target, loss_weight;
  int rows;
  int columns;
  int outputs;
  bool bias;
  FitPlan plan;
  Loop loop;

  template <class Context>
  GDCORE_KERNEL void operator()(Context& c) const {
    if (is_over(loop.status)) return;
    T* const theta = reinterpret_cast<T*>(c.shared() + kWarps);
    T* const gradients = reinterpret_cast<T*>(c.shared() + kWarps + kMaxFitParameters);
    T* const residuals = reinterpret_cast<T*>(c.shared() + kWarps + 2 * kMaxFitParameters);
    const int parameters = static_cast<int>(loop.parameters);
    for (int q = c.thread(); q < parameters; q += c.threads()) {
      const Range& range = loop.range_of(q);
      theta[q] = static_cast<const T*>(range.slots.parameter)[q - range.begin];
    }
    const LossOf<T> loss_of(loop.divisor.get());
    const double factor = loop.factor();
    c.sync();
    for (Index epoch = loop.epoch; epoch < loop.epoch + loop.epochs; ++epoch) {
      const double squares[1] = {residual_pass(c, theta, residuals)};
      warp_sums(c, squares, 1, c.shared());
      const T loss = loss_of(block_sum<1>(c, c.shared(), 0));
      if (c.thread() == 0) static_cast<T*>(loop.losses)[epoch] = loss;
      if (loop.stops && !is_finite(loss)) {
        if (c.thread() == 0) *loop.status = epoch;
        break;
      }
      gradient_pass(c, epoch, factor, residuals, gradients, theta);
      if (loop.looks_at_norm()) update_by_norm(c, epoch, gradients, theta);
      c.sync();
    }
    for (int q = c.thread(); q < parameters; q += c.threads()) {
      const Range& range = loop.range_of(q);
      static_cast<T*>(range.slots.parameter)[q - range.begin] = theta[q];
    }
  }

  /// w r of every row and output into shared memory; returns this thread's Σ w r².
  template <class Context>
  GDCORE_KERNEL double residual_pass(Context& c, const T* theta, T* residuals) const {
    const int lane = c.thread() % plan.row_lanes, step = c.threads() / plan.row_lanes;
    double squares = 0;
    for (int base = 0; base < rows * outputs; base += step) {
      const int place = base + c.thread() / plan.row_lanes;
      const bool there = place < rows * outputs;
      const int row = place / outputs, o = place % outputs;
      T dot = T(0);
      for (int j = lane; there && j < columns; j += plan.row_lanes)
        dot = fma(cell<T>(x, row, j), theta[o * columns + j], dot);
      dot = lane_sum(c, dot, 1, plan.row_lanes);
      if (!there || lane > 0) continue;
      const T r = (bias ? dot + theta[outputs * columns + o] : dot) - cell<T>(target, row, o);
      const T weighted = loss_weight.data != nullptr ? r * cell<T>(loss_weight, row, o) : r;
      residuals[place] = weighted;
      squares += static_cast<double>(weighted) * static_cast<double>(r);
    }
    return squares;
  }

  template <class Context>
  GDCORE_KERNEL void gradient_pass(Context& c, Index epoch, double factor, const T* residuals, T* gradients,
                                   T* theta) const {
    const int lane = c.thread() % plan.column_lanes, step = c.threads() / plan.column_lanes;
    const int parameters = static_cast<int>(loop.parameters);
    for (int base = 0; base < parameters; base += step) {
      const int q = base + c.thread() / plan.column_lanes;
      const bool there = q < parameters;
      const bool is_bias = q >= outputs * columns;
      const int o = is_bias ? q - outputs * columns : q / columns, j = q % columns;
      double sum = 0;
      for (int first = lane; there && first < rows; first += kFitRun * plan.column_lanes) {
        T part = T(0);
        for (int i = first; i < rows && i < first + kFitRun * plan.column_lanes; i += plan.column_lanes) {
          part = fma(residuals[i * outputs + o], is_bias ? T(1) : cell<T>(x, i, j), part);
        }
        sum += static_cast<double>(part);
      }
      sum = lane_sum(c, sum, 1, plan.column_lanes);
      if (!there || lane > 0) continue;
      const T gradient = static_cast<T>(sum * factor);
      if (loop.looks_at_norm()) {
        gradients[q] = gradient;
      } else {
        update(epoch, q, gradient, theta);
      }
    }
  }

  template <class Context>
  GDCORE_KERNEL void update_by_norm(Context& c, Index epoch, const T* gradients, T* theta) const {
    c.sync();
    const int parameters = static_cast<int>(loop.parameters);
    double squares[1] = {};
    for (int q = c.thread(); q < parameters; q += c.threads()) {
      squares[0] += loop.square(q, static_cast<double>(gradients[q]));
    }
    warp_sums(c, squares, 1, c.shared());
    const double norm = square_root(block_sum<1>(c, c.shared(), 0));
    if (c.thread() == 0 && loop.norms != nullptr) loop.norms[epoch] = norm;
    const T by = loop.clipping<T>(norm);
    for (int q = c.thread(); q < parameters; q += c.threads()) update(epoch, q, gradients[q] * by, theta);
  }

  GDCORE_KERNEL void update(Index epoch, int q, T gradient, T* theta) const {
    const Range& range = loop.range_of(q);
    const Index place = q - range.begin;
    T state[kMaxState];
    read_states<T>(range.slots, place, state);
    if (loop.previous != nullptr) static_cast<T*>(loop.previous)[q] = theta[q];
    theta[q] = Updater<T>(range.settings)(static_cast<double>(epoch), range.slots, theta[q], gradient, state);
    write_states<T>(range.slots, place, state);
    loop.record<T>(epoch, q, theta[q]);
  }
};

}  // namespace gdcore::cuda
