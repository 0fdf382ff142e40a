// Optimizers' settings, and one parameter's update by any of them.
#pragma once

#include "cuda/elements.h"
#include "kernels/adam_settings.h"

namespace gdcore::cuda {

/// A frozen parameter is not updated.
enum class Kind : int { kSgd, kRmsprop, kAdam, kFrozen };

struct Settings {
  Kind kind;
  union {
    SgdUpdate sgd;
    RmspropUpdate rmsprop;
    AdamSettings adam;
  };
  double steps;  ///< made so far
};

/// One parameter's update by these settings, which are brought to T once for many steps.
template <class T>
class Updater {
 public:
  GDCORE_KERNEL explicit Updater(const Settings& settings)
      : kind_(settings.kind), settings_(settings), sgd_(SgdUpdate{}), rmsprop_(RmspropUpdate{}) {
    if (kind_ == Kind::kSgd) sgd_ = SgdStep<T>(settings.sgd);
    if (kind_ == Kind::kRmsprop) rmsprop_ = RmspropStep<T>(settings.rmsprop);
  }
  /// The new value of p; its states are changed in place. `slots` says which states there are, `made` how many steps
  /// came before since `settings.steps` was read.
  GDCORE_KERNEL T operator()(double made, const Slots& slots, T p, T g, T (&state)[kMaxState]) const {
    if (kind_ == Kind::kSgd) {
      SgdStep<T> step = sgd_;
      step.fresh = step.fresh && made == 0;
      return step(slots, p, g, state);
    }
    if (kind_ == Kind::kRmsprop) return rmsprop_(slots, p, g, state);
    if (kind_ == Kind::kFrozen) return p;
    return AdamStep<T>(settings_.adam.rule(settings_.steps + made + 1))(slots, p, g, state);
  }

 private:
  Kind kind_;
  const Settings& settings_;  ///< Adam's make another rule at each step
  SgdStep<T> sgd_;
  RmspropStep<T> rmsprop_;
};

/// What the sum of squares is divided by; for a weighted mean a sum on the device.
struct Divisor {
  double value;
  const double* at;  ///< or null

  GDCORE_KERNEL double get() const { return at != nullptr ? *at : value; }
};

/// A loop is over once an epoch has found that it diverges: its status then holds the epoch.
GDCORE_KERNEL bool is_over(const Index* status) { return status != nullptr && *status >= 0; }

/// One parameter's tensor among a model's: elements [begin, begin + size) of θ.
struct Range {
  Index begin;
  Index size;
  void* gradient;  ///< of what it is computed in, or null
  Slots slots;     ///< the gradient in it is not used
  Settings settings;
};

inline constexpr int kMaxTensors = 4;

/// The loop of which a launch does one epoch, or several. Null pointers where a result is not wanted.
struct Loop {
  Range ranges[kMaxTensors];
  int tensors;
  bool updates;  ///< else the gradients are all that is wanted
  bool stops;    ///< at a loss that is not finite
  Index epoch;   ///< the first of this launch
  Index epochs;
  void* losses;    ///< [epoch]
  Index* status;   ///< −1, or the epoch whose loss is not finite
  void* previous;  ///< θ before the last update; not written where there is none
  void* records;   ///< θ after epochs 0, record_every, 2 record_every, … of the loop
  Index record_every;
  Index parameters;
  Divisor divisor;
  bool empty;                 ///< no rows, no gradient: not 0 · (2 / 0)
  double max_grad_norm = -1;  ///< of all that is updated; negative for no clipping
  double* norms;              ///< [epoch], of the gradient before it is clipped

  GDCORE_KERNEL double factor() const { return empty ? 0.0 : 2.0 / divisor.get(); }
  /// Whether all gradients are to be known before the first parameter is updated.
  GDCORE_INLINE_MEMBER bool looks_at_norm() const { return max_grad_norm >= 0 || norms != nullptr; }
  /// What gradients of this norm are multiplied by.
  template <class T>
  GDCORE_KERNEL T clipping(double norm) const {
    const double coefficient = clip_coefficient(norm, max_grad_norm);
    return max_grad_norm < 0 || coefficient >= 1 ? T(1) : static_cast<T>(coefficient);
  }
  GDCORE_KERNEL const Range& range_of(Index parameter) const {
    int r = 0;
    while (r + 1 < tensors && parameter >= ranges[r + 1].begin) ++r;
    return ranges[r];
  }
  /// Its part of the gradient's norm: none of a parameter that is frozen.
  GDCORE_KERNEL double square(Index parameter, double gradient) const {
    return range_of(parameter).settings.kind == Kind::kFrozen ? 0.0 : gradient * gradient;
  }
  /// One parameter's update, where it lies.
  template <class S>
  GDCORE_KERNEL void update(Index parameter, Arithmetic<S> gradient) const;
  template <class S>
  GDCORE_KERNEL void record(Index at_epoch, Index parameter, Arithmetic<S> value) const {
    if (records == nullptr || at_epoch % record_every != 0) return;
    write(static_cast<S*>(records) + at_epoch / record_every * parameters + parameter, value);
  }
};

template <class S>
GDCORE_KERNEL void read_states(const Slots& slots, Index i, Arithmetic<S> (&state)[kMaxState]) {
  GDCORE_UNROLL
  for (int k = 0; k < kMaxState; ++k) {
    state[k] = slots.state[k] != nullptr ? read(static_cast<const S*>(slots.state[k]) + i) : Arithmetic<S>(0);
  }
}

template <class S>
GDCORE_KERNEL void write_states(const Slots& slots, Index i, const Arithmetic<S> (&state)[kMaxState]) {
  GDCORE_UNROLL
  for (int k = 0; k < kMaxState; ++k) {
    if (slots.state[k] != nullptr) write(static_cast<S*>(slots.state[k]) + i, state[k]);
  }
}

template <class S>
GDCORE_KERNEL void Loop::update(Index parameter, Arithmetic<S> gradient) const {
  const Range& range = range_of(parameter);
  const Index i = parameter - range.begin;
  S* const at = static_cast<S*>(range.slots.parameter) + i;
  Arithmetic<S> state[kMaxState];
  read_states<S>(range.slots, i, state);
  const Arithmetic<S> before = read(at);
  const Arithmetic<S> after =
      Updater<Arithmetic<S>>(range.settings)(static_cast<double>(epoch), range.slots, before, gradient, state);
  write(at, after);
  write_states<S>(range.slots, i, state);
  if (previous != nullptr) write(static_cast<S*>(previous) + parameter, before);
  record<S>(epoch, parameter, after);
}

}  // namespace gdcore::cuda
