// One step of each optimizer's update (updates.h), on a value V: a pack of lanes, or one element of type T.
//
// For every instruction set and for CUDA: V brings its own fma, square_root, maximum and `like`. Rounded as torch
// rounds, but that multiply-adds are fused, and √v is multiplied by the reciprocal of its correction. Whether a term
// is there at all is a matter of the setting in double precision: T may hold none of it.

/// m + weight (g − m), the way round that torch.lerp takes it: an infinite m ends as NaN there, and so here.
template <class V, class T>
GDCORE_INLINE V lerp(const V& m, const V& g, T weight) {
  return weight < T(0.5) ? fma(like(g, weight), g - m, m) : fma(like(g, weight - 1), g - m, g);
}

template <class T>
struct SgdStep {
  static constexpr int kStates = 1;
  T minus_lr, momentum, one_minus_dampening, weight_decay;
  bool decays, keeps, nesterov, maximize, fresh;

  GDCORE_INLINE_MEMBER explicit SgdStep(const SgdUpdate& u)
      : minus_lr(static_cast<T>(-u.lr)),
        momentum(static_cast<T>(u.momentum)),
        one_minus_dampening(static_cast<T>(u.one_minus_dampening)),
        weight_decay(static_cast<T>(u.weight_decay)),
        decays(u.weight_decay != 0),
        keeps(u.momentum != 0),
        nesterov(u.nesterov),
        maximize(u.maximize),
        fresh(u.fresh) {}

  template <class V>
  GDCORE_INLINE_MEMBER V operator()(const Slots&, const V& p, V g, V (&state)[kMaxState]) const {
    auto& b = state[0];
    if (maximize) g = -g;
    if (decays) g = fma(like(g, weight_decay), p, g);
    if (keeps) {
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
  bool decays, maximize;

  GDCORE_INLINE_MEMBER explicit RmspropStep(const RmspropUpdate& u)
      : minus_lr(static_cast<T>(-u.lr)),
        alpha(static_cast<T>(u.alpha)),
        rest(static_cast<T>(1.0 - u.alpha)),
        eps(static_cast<T>(u.eps)),
        weight_decay(static_cast<T>(u.weight_decay)),
        momentum(static_cast<T>(u.momentum)),
        decays(u.weight_decay != 0),
        maximize(u.maximize) {}

  template <class V>
  GDCORE_INLINE_MEMBER V operator()(const Slots& slots, const V& p, V g, V (&state)[kMaxState]) const {
    auto& [square_avg, buffer, grad_avg] = state;
    if (maximize) g = -g;
    if (decays) g = fma(like(g, weight_decay), p, g);
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
  bool decays, maximize;

  GDCORE_INLINE_MEMBER explicit AdamStep(const AdamUpdate& u)
      : minus_step_size(static_cast<T>(-u.step_size)),
        beta1_rest(static_cast<T>(1.0 - u.beta1)),
        beta2(static_cast<T>(u.beta2)),
        beta2_rest(static_cast<T>(1.0 - u.beta2)),
        scale(static_cast<T>(1.0 / u.root_correction)),
        eps(static_cast<T>(u.eps)),
        weight_decay(static_cast<T>(u.weight_decay)),
        decay(static_cast<T>(u.decay)),
        decays(u.weight_decay != 0),
        maximize(u.maximize) {}

  template <class V>
  GDCORE_INLINE_MEMBER V operator()(const Slots& slots, V p, V g, V (&state)[kMaxState]) const {
    auto& [exp_avg, exp_avg_sq, largest] = state;
    if (maximize) g = -g;
    if (decays) g = fma(like(g, weight_decay), p, g);
    if (decay != 1) p = p * like(g, decay);
    exp_avg = lerp(exp_avg, g, beta1_rest);
    exp_avg_sq = fma(like(g, beta2_rest) * g, g, exp_avg_sq * like(g, beta2));
    V second = exp_avg_sq;
    if (slots.state[2] != nullptr) second = largest = maximum(largest, exp_avg_sq);
    const V denominator = fma(square_root(second), like(g, scale), like(g, eps));
    return p + like(g, minus_step_size) * exp_avg / denominator;
  }
};
