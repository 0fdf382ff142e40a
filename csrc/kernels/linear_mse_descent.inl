// linear_mse_descent: steps of gradient descent on few rows, few columns and one output, without leaving the kernel.
//
// Each step is linear_mse and the update of SGD, the same to the bit. Those begin their sums with zero; here it is
// added at the end, which makes of every zero the same. A step takes as long as its chain of operations.

/// D columns; sum(theta, sums) gives Σ r², Σ r x and Σ r of all rows.
template <int D, class T, class SumRows>
GDCORE_INLINE Index descend(const LinearMse<T>& a, const Descent<T>& descent, const SumRows& sum) {
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
    double sums[D + 2];
    sum(theta, sums);
    const T loss = static_cast<T>((sums[0] + 0.0) / descent.divisor);
    if (!(static_cast<double>(loss) < descent.overflow)) break;
    descent.losses[step] = loss;
    for (Index j = 0; j <= D; ++j) {
      previous[j] = theta[j];
      const T gradient = static_cast<T>(fma(sums[1 + j], j < D ? factor : bias_factor, 0.0));
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

/// One group of rows, which stay in registers, each column in V: a pack, or its first lanes.
template <int D, class V, class T>
GDCORE_INLINE Index descend_group(const LinearMse<T>& a, const Descent<T>& descent) {
  alignas(kLaneBytes) T buffer[kLanes<T>];
  V x[D];
  V target;
  for (Index j = 0; j < D; ++j) {
    copy_group({a.x.data + j * a.x.column, a.x.row, 0}, 0, 1, descent.rows, buffer);
    read(x[j], buffer);
  }
  copy_group(a.target, 0, 1, descent.rows, buffer);
  read(target, buffer);
  return descend<D>(a, descent, [&](const T* theta, double* sums) GDCORE_INLINE_LAMBDA {
    V even = like(target, theta[D]);
    V odd = {};
    for (Index j = 0; j < D; ++j) {
      V& chain = j % 2 == 0 ? even : odd;
      chain = fma(x[j], like(x[j], theta[j]), chain);
    }
    const V r = keep_first((D > 1 ? even + odd : even) - target, descent.rows);
    sums[0] = total(r * r);
    for (Index j = 0; j <= D; ++j) sums[1 + j] = total(j < D ? r * x[j] : r);
  });
}

/// Several groups of rows, which stay in the first-level cache.
template <int D, class T>
GDCORE_INLINE Index descend_groups(const LinearMse<T>& a, const Descent<T>& descent) {
  constexpr Index lanes = kLanes<T>;
  alignas(kLaneBytes) T x[kDescentRows * D];
  alignas(kLaneBytes) T target[kDescentRows];
  for (Index row = 0; row < descent.rows; row += lanes) {
    const Index count = descent.rows - row < lanes ? descent.rows - row : lanes;
    copy_group(a.x, row, D, count, x + row * D);
    copy_group(a.target, row, 1, count, target + row);
  }
  return descend<D>(a, descent, [&](const T* theta, double* sums) GDCORE_INLINE_LAMBDA {
    Pack<T> part[D + 2] = {};
    for (Index row = 0; row < descent.rows; row += lanes) {
      Pack<T> r[1];
      narrow_residuals<T, 1>(x + row * D, theta, theta[D], D, target + row, 0, r);
      if (descent.rows - row < lanes) r[0] = keep_first(r[0], descent.rows - row);
      part[0] = fma(r[0], r[0], part[0]);
      for (Index j = 0; j < D; ++j) part[1 + j] = fma(r[0], load(x + row * D + j * lanes), part[1 + j]);
      part[1 + D] = part[1 + D] + r[0];
    }
    for (Index s = 0; s < D + 2; ++s) sums[s] = total(part[s]);
  });
}

template <int D, class T>
static Index linear_mse_descent(const LinearMse<T>& a, const Descent<T>& descent) noexcept {
  if constexpr (D <= kDescentColumnsInRegisters) {
    if (descent.rows <= FewLanes<T>::kCount) return descend_group<D, FewLanes<T>>(a, descent);
    if (descent.rows <= kLanes<T>) return descend_group<D, Pack<T>>(a, descent);
  }
  return descend_groups<D>(a, descent);
}
