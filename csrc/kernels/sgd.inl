// sgd: the update of torch.optim.SGD over one contiguous tensor, rounded where torch rounds, multiply-adds fused.
//
// One pass over parameter, gradient and momentum, which must not overlap. `momentum` is null where the rule has none.

/// V is a pack or one element: the same arithmetic.
template <class V, class T>
GDCORE_INLINE V sgd_step(const SgdRule<T>& rule, V p, V g, V& b) {
  if (rule.maximize) g = -g;
  if (rule.weight_decay != 0) g = fma(like(g, rule.weight_decay), p, g);
  if (rule.momentum != 0) {
    b = rule.fresh ? g : fma(like(g, rule.one_minus_dampening), g, b * like(g, rule.momentum));
    g = rule.nesterov ? fma(like(g, rule.momentum), b, g) : b;
  }
  return fma(like(g, -rule.lr), g, p);
}

template <class T>
static void sgd(const SgdRule<T>& rule, Index size, T* parameter, const T* grad, T* momentum) noexcept {
  constexpr Index lanes = kLanes<T>;
  const bool buffered = rule.momentum != 0;
  const bool reads_buffer = buffered && !rule.fresh;
  Index i = 0;
  for (; i + lanes <= size; i += lanes) {
    Pack<T> b = reads_buffer ? load(momentum + i) : zero<T>();
    store(parameter + i, sgd_step(rule, load(parameter + i), load(grad + i), b));
    if (buffered) store(momentum + i, b);
  }
  for (; i < size; ++i) {
    T b = reads_buffer ? momentum[i] : T(0);
    parameter[i] = sgd_step(rule, parameter[i], grad[i], b);
    if (buffered) momentum[i] = b;
  }
}
