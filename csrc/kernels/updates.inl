// The updates of updates.h: one driver over the slots, and one step for each optimizer, for a pack or for one element.
//
// One pass: parameter, gradient and states are read once, parameter and states written once. Rounded as torch rounds,
// but that multiply-adds are fused, and √v is multiplied by the reciprocal of its correction.

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

/// A rule's number as lanes, or as it is for one element.
template <class T>
GDCORE_INLINE Pack<T> like(const Pack<T>&, T value) {
  return broadcast(value);
}
template <class T>
GDCORE_INLINE T like(T, T value) {
  return value;
}

/// m + weight (g − m), the way round that torch.lerp takes it: an infinite m ends as NaN there, and so here.
template <class V, class T>
GDCORE_INLINE V lerp(const V& m, const V& g, T weight) {
  return weight < T(0.5) ? fma(like(g, weight), g - m, m) : fma(like(g, weight - 1), g - m, g);
}

template <class T>
struct SgdStep {
  static constexpr int kStates = 1;
  T minus_lr, momentum, one_minus_dampening, weight_decay;
  bool nesterov, maximize, fresh;

  explicit SgdStep(const SgdUpdate& u)
      : minus_lr(static_cast<T>(-u.lr)),
        momentum(static_cast<T>(u.momentum)),
        one_minus_dampening(static_cast<T>(u.one_minus_dampening)),
        weight_decay(static_cast<T>(u.weight_decay)),
        nesterov(u.nesterov),
        maximize(u.maximize),
        fresh(u.fresh) {}

  template <class V>
  GDCORE_INLINE_MEMBER V operator()(const Slots&, const V& p, V g, V (&state)[kMaxState]) const {
    auto& b = state[0];
    if (maximize) g = -g;
    if (weight_decay != 0) g = fma(like(g, weight_decay), p, g);
    if (momentum != 0) {
      b = fresh ? g : fma(like(g, one_minus_dampening), g, b * like(g, momentum));
      g = nesterov ? fma(like(g, momentum), b, g) : b;
    }
    return fma(like(g, minus_lr), g, p);
  }
};

template <class T>
struct RmspropStep {
  static constexpr int kStates = 3;
  T minus_lr, alpha, rest, eps, weight_decay, momentum;
  bool maximize;

  explicit RmspropStep(const RmspropUpdate& u)
      : minus_lr(static_cast<T>(-u.lr)),
        alpha(static_cast<T>(u.alpha)),
        rest(static_cast<T>(1.0 - u.alpha)),
        eps(static_cast<T>(u.eps)),
        weight_decay(static_cast<T>(u.weight_decay)),
        momentum(static_cast<T>(u.momentum)),
        maximize(u.maximize) {}

  template <class V>
  GDCORE_INLINE_MEMBER V operator()(const Slots& slots, const V& p, V g, V (&state)[kMaxState]) const {
    auto& [square_avg, buffer, grad_avg] = state;
    if (maximize) g = -g;
    if (weight_decay != 0) g = fma(like(g, weight_decay), p, g);
    square_avg = fma(like(g, rest) * g, g, square_avg * like(g, alpha));
    V variance = square_avg;
    if (slots.state[2] != nullptr) {
      grad_avg = lerp(grad_avg, g, rest);
      variance = fma(-grad_avg, grad_avg, square_avg);
    }
    const V denominator = square_root(variance) + like(g, eps);
    if (slots.state[1] == nullptr) return p + like(g, minus_lr) * g / denominator;
    buffer = buffer * like(g, momentum) + g / denominator;
    return fma(like(g, minus_lr), buffer, p);
  }
};

template <class T>
struct AdamStep {
  static constexpr int kStates = 3;
  T minus_step_size, beta1_rest, beta2, beta2_rest, scale, eps, weight_decay, decay;
  bool maximize;

  explicit AdamStep(const AdamUpdate& u)
      : minus_step_size(static_cast<T>(-u.step_size)),
        beta1_rest(static_cast<T>(1.0 - u.beta1)),
        beta2(static_cast<T>(u.beta2)),
        beta2_rest(static_cast<T>(1.0 - u.beta2)),
        scale(static_cast<T>(1.0 / u.root_correction)),
        eps(static_cast<T>(u.eps)),
        weight_decay(static_cast<T>(u.weight_decay)),
        decay(static_cast<T>(u.decay)),
        maximize(u.maximize) {}

  template <class V>
  GDCORE_INLINE_MEMBER V operator()(const Slots& slots, V p, V g, V (&state)[kMaxState]) const {
    auto& [exp_avg, exp_avg_sq, largest] = state;
    if (maximize) g = -g;
    if (weight_decay != 0) g = fma(like(g, weight_decay), p, g);
    if (decay != 1) p = p * like(g, decay);
    exp_avg = lerp(exp_avg, g, beta1_rest);
    exp_avg_sq = fma(like(g, beta2_rest) * g, g, exp_avg_sq * like(g, beta2));
    V second = exp_avg_sq;
    if (slots.state[2] != nullptr) second = largest = maximum(largest, exp_avg_sq);
    const V denominator = fma(square_root(second), like(g, scale), like(g, eps));
    return p + like(g, minus_step_size) * exp_avg / denominator;
  }
};

template <class S>
static constexpr Updates updates() {
  return {update<S, SgdStep, SgdUpdate>, update<S, RmspropStep, RmspropUpdate>, update<S, AdamStep, AdamUpdate>};
}
