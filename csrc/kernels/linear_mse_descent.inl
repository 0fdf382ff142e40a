// linear_mse_descent: steps of gradient descent on one group of rows, few columns and one output, all in registers.
//
// Each step is linear_mse_narrow and the update of SGD, the same to the bit. Those begin their sums with zero; here it
// is added at the end, which makes of every zero the same. A step takes as long as its chain of operations.

/// D columns, their rows in V: a pack, or its first lanes.
template <int D, class V, class T>
GDCORE_INLINE Index descend(const LinearMse<T>& a, const Descent<T>& descent) {
  constexpr Index lanes = kLanes<T>;
  alignas(kLaneBytes) T buffer[lanes];
  V x[D];
  V target;
  for (Index j = 0; j < D; ++j) {
    copy_group({a.x.data + j * a.x.column, a.x.row, 0}, 0, 1, descent.rows, buffer);
    read(x[j], buffer);
  }
  copy_group(a.target, 0, 1, descent.rows, buffer);
  read(target, buffer);

  const SgdStep<T> update(*descent.rule);
  const Index parameters = D + (a.bias ? 1 : 0);
  T theta[D + 1] = {};
  T previous[D + 1] = {};
  T state[D + 1][kMaxState] = {};
  for (Index j = 0; j < parameters; ++j) {
    theta[j] = descent.theta[j];
    previous[j] = descent.previous[j];
    if (descent.momentum != nullptr) state[j][0] = descent.momentum[j];
  }
  const double factor = 2.0 / descent.divisor;
  const double bias_factor = a.bias ? factor : 0.0;  // where there is none it is zero, and stays so

  Index step = 0;
  for (; step < descent.steps; ++step) {
    V even = like(target, theta[D]);
    V odd = {};
    for (Index j = 0; j < D; ++j) {
      V& chain = j % 2 == 0 ? even : odd;
      chain = fma(x[j], like(x[j], theta[j]), chain);
    }
    const V r = keep_first((D > 1 ? even + odd : even) - target, descent.rows);
    const T loss = static_cast<T>((total(r * r) + 0.0) / descent.divisor);
    if (!(static_cast<double>(loss) < descent.overflow)) break;
    descent.losses[step] = loss;
    for (Index j = 0; j <= D; ++j) {
      previous[j] = theta[j];
      const double sum = total(j < D ? r * x[j] : r);
      const T gradient = static_cast<T>(fma(sum, j < D ? factor : bias_factor, 0.0));
      theta[j] = update({}, theta[j], gradient, state[j]);
    }
  }

  for (Index j = 0; j < parameters; ++j) {
    descent.theta[j] = theta[j];
    descent.previous[j] = previous[j];
    if (descent.momentum != nullptr) descent.momentum[j] = state[j][0];
  }
  return step;
}

template <int D, class T>
static Index linear_mse_descent(const LinearMse<T>& a, const Descent<T>& descent) noexcept {
  if (descent.rows <= FewLanes<T>::kCount) return descend<D, FewLanes<T>>(a, descent);
  return descend<D, Pack<T>>(a, descent);
}
