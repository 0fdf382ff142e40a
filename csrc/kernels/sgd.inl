// sgd: the update of torch.optim.SGD over one contiguous tensor, rounded where torch rounds, multiply-adds fused.
//
// One pass over parameter, gradient and momentum, which must not overlap. `momentum` is null where the rule has none.

template <class T>
GDCORE_INLINE Pack<T> sgd_step(const SgdRule<T>& rule, const Pack<T>& p, Pack<T> g, Pack<T>& b) {
  if (rule.maximize) g = -g;
  if (rule.weight_decay != 0) g = fma(broadcast(rule.weight_decay), p, g);
  if (rule.momentum != 0) {
    b = rule.fresh ? g : fma(broadcast(rule.one_minus_dampening), g, b * broadcast(rule.momentum));
    g = rule.nesterov ? fma(broadcast(rule.momentum), b, g) : b;
  }
  return fma(broadcast(-rule.lr), g, p);
}

template <class T>
static void sgd(const SgdRule<T>& rule, Index size, T* parameter, const T* grad, T* momentum) noexcept {
  constexpr Index lanes = kLanes<T>;
  const bool buffered = rule.momentum != 0;
  Pack<T> b = {};
  Index i = 0;
  for (; i + lanes <= size; i += lanes) {
    if (buffered && !rule.fresh) b = load(momentum + i);
    store(parameter + i, sgd_step(rule, load(parameter + i), load(grad + i), b));
    if (buffered) store(momentum + i, b);
  }
  if (i < size) {
    const Index count = size - i;
    if (buffered && !rule.fresh) b = load_first(momentum + i, count);
    store_first(parameter + i, sgd_step(rule, load_first(parameter + i, count), load_first(grad + i, count), b), count);
    if (buffered) store_first(momentum + i, b, count);
  }
}
