// The updates of updates.h: one driver over the slots, in packs of lanes and then element by element.
//
// One pass: parameter, gradient and states are read once, parameter and states written once.

/// Reads and writes what one step works on: V is a pack, or one element.
template <class V>
struct At;
template <class T>
struct At<Pack<T>> {
  template <class S>
  GDCORE_INLINE_MEMBER static Pack<T> get(const void* slot, Index i) {
    return load(static_cast<const S*>(slot) + i);
  }
  template <class S>
  GDCORE_INLINE_MEMBER static void put(void* slot, Index i, const Pack<T>& value) {
    store(static_cast<S*>(slot) + i, value);
  }
};
template <class T>
struct AtElement {
  template <class S>
  GDCORE_INLINE_MEMBER static T get(const void* slot, Index i) {
    return load_element(static_cast<const S*>(slot) + i);
  }
  template <class S>
  GDCORE_INLINE_MEMBER static void put(void* slot, Index i, T value) {
    store_element(static_cast<S*>(slot) + i, value);
  }
};
template <>
struct At<float> : AtElement<float> {};
template <>
struct At<double> : AtElement<double> {};

template <class S, class V, class Step>
GDCORE_INLINE void step_at(const Step& step, const Slots& slots, Index i) {
  V state[kMaxState] = {};
  for (int k = 0; k < Step::kStates; ++k) {
    if (slots.state[k] != nullptr) state[k] = At<V>::template get<S>(slots.state[k], i);
  }
  const V parameter = At<V>::template get<S>(slots.parameter, i);
  const V grad = At<V>::template get<S>(slots.grad, i);
  At<V>::template put<S>(slots.parameter, i, step(slots, parameter, grad, state));
  for (int k = 0; k < Step::kStates; ++k) {
    if (slots.state[k] != nullptr) At<V>::template put<S>(slots.state[k], i, state[k]);
  }
}

template <class S, template <class> class Step, class Rule>
static void update(const void* rule, const Slots& slots, Index begin, Index end) noexcept {
  using T = Arithmetic<S>;
  const Step<T> step(*static_cast<const Rule*>(rule));
  const Slots own = slots;  // what is stored cannot be these pointers
  Index i = begin;
  for (; i + kLanes<T> <= end; i += kLanes<T>) step_at<S, Pack<T>>(step, own, i);
  for (; i < end; ++i) step_at<S, T>(step, own, i);
}

#include "kernels/update_steps.inl"

template <class S>
static constexpr Updates updates() {
  return {update<S, SgdStep, SgdUpdate>, update<S, RmspropStep, RmspropUpdate>, update<S, AdamStep, AdamUpdate>};
}
