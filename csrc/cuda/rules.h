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

/// The new value of p; its states are changed in place. `slots` says which states there are, `made` how many steps came
/// before since `settings.steps` was read.
template <class T>
GDCORE_KERNEL T updated(const Settings& settings, double made, const Slots& slots, T p, T g, T (&state)[kMaxState]) {
  if (settings.kind == Kind::kSgd) {
    SgdUpdate rule = settings.sgd;
    rule.fresh = rule.fresh && made == 0;
    return SgdStep<T>(rule)(slots, p, g, state);
  }
  if (settings.kind == Kind::kRmsprop) return RmspropStep<T>(settings.rmsprop)(slots, p, g, state);
  if (settings.kind == Kind::kFrozen) return p;
  return AdamStep<T>(settings.adam.rule(settings.steps + made + 1))(slots, p, g, state);
}

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
  bool empty;  ///< no rows, no gradient: not 0 · (2 / 0)

  GDCORE_KERNEL double factor() const { return empty ? 0.0 : 2.0 / divisor.get(); }
  GDCORE_KERNEL const Range& range_of(Index parameter) const {
    int r = 0;
    while (r + 1 < tensors && parameter >= ranges[r + 1].begin) ++r;
    return ranges[r];
  }
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

}  // namespace gdcore::cuda
