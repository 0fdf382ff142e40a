// linear_mse with many columns and few outputs: lanes run over the columns of a row.
//
// Four rows at a time: one dot product each (lanes in T, their total in double), then the same rows, still in the
// first-level cache, are added to the gradient. One pass over x and target in memory.

/// The rows of one step, contiguous whatever x's column stride.
template <class T, int R>
GDCORE_INLINE void contiguous_rows(const Matrix<const T>& x, Index row, Index d, Index stride, T* buffer,
                                   const T* (&rows)[R]) {
  for (int i = 0; i < R; ++i) {
    const T* from = x.data + (row + i) * x.row;
    if (x.column != 1) {
      T* to = buffer + i * stride;
      for (Index j = 0; j < d; ++j) to[j] = from[j * x.column];
      from = to;
    }
    rows[i] = from;
  }
}

/// gradient[c] += Σᵢ residual[i] · rows[i][c]: the rows of a step first, so that the long sum has a fourth of the
/// terms.
template <class T, int R>
GDCORE_INLINE void add_rows(const T* const (&rows)[R], const T (&residual)[R], Index d, T* gradient) {
  constexpr Index lanes = kLanes<T>;
  Pack<T> r[R];
  for (int i = 0; i < R; ++i) r[i] = broadcast(residual[i]);
  Index c = 0;
  for (; c + lanes <= d; c += lanes) {
    Pack<T> step = load(rows[0] + c) * r[0];
    for (int i = 1; i < R; ++i) step = fma(load(rows[i] + c), r[i], step);
    store(gradient + c, load(gradient + c) + step);
  }
  if (c < d) {
    Pack<T> step = load_first(rows[0] + c, d - c) * r[0];
    for (int i = 1; i < R; ++i) step = fma(load_first(rows[i] + c, d - c), r[i], step);
    store(gradient + c, load(gradient + c) + step);
  }
}

/// dx = Σₒ residual[o] · weight[o], the residuals already scaled.
template <class T>
GDCORE_INLINE void row_gradient(const T* weight, const T* residual, Index d, Index k, T* dx) {
  constexpr Index lanes = kLanes<T>;
  for (Index c = 0; c < d; c += lanes) {
    const Index count = d - c < lanes ? d - c : lanes;
    Pack<T> v = zero<T>();
    for (Index o = 0; o < k; ++o) {
      const T* w = weight + o * d + c;
      v = fma(count == lanes ? load(w) : load_first(w, count), broadcast(residual[o]), v);
    }
    if (count == lanes) {
      store(dx + c, v);
    } else {
      store_first(dx + c, v, count);
    }
  }
}

/// sums += gradient, and gradient = 0.
template <class T>
GDCORE_INLINE void flush(T* gradient, Index d, Index k, Index stride, double* sums) {
  for (Index o = 0; o < k; ++o) {
    for (Index j = 0; j < d; ++j) {
      sums[o * d + j] += static_cast<double>(gradient[o * stride + j]);
      gradient[o * stride + j] = 0;
    }
  }
}

/// Four partial sums of a scalar, one for each row of a step.
struct Quarters {
  double part[4];
};

template <class T, int R>
GDCORE_INLINE void linear_mse_wide_rows(const LinearMse<T>& a, const T* theta, Index row, int lane, Index stride,
                                        T* gradient, T* buffer, Quarters& loss, Quarters* bias) {
  constexpr Index lanes = kLanes<T>;
  const Index d = a.columns;
  const Index k = a.outputs;
  const T* rows[R];
  contiguous_rows<T, R>(a.x, row, d, stride, buffer, rows);
  T scaled[R][kManyOutputs];
  for (Index o = 0; o < k; ++o) {
    const T* w = theta + o * d;
    Pack<T> dot[R] = {};
    Index c = 0;
    for (; c + lanes <= d; c += lanes) {
      const Pack<T> wc = load(w + c);
      for (int i = 0; i < R; ++i) dot[i] = fma(load(rows[i] + c), wc, dot[i]);
    }
    if (c < d) {
      const Pack<T> wc = load_first(w + c, d - c);
      for (int i = 0; i < R; ++i) dot[i] = fma(load_first(rows[i] + c, d - c), wc, dot[i]);
    }
    const double b = a.bias ? static_cast<double>(theta[k * d + o]) : 0.0;
    T residual[R];
    for (int i = 0; i < R; ++i) {
      const T target = a.target.data[(row + i) * a.target.row + o * a.target.column];
      const T r = static_cast<T>(total(dot[i]) + b - static_cast<double>(target));
      residual[i] = r;
      scaled[i][o] = r * a.dx_factor;
      loss.part[lane + i] += static_cast<double>(r) * static_cast<double>(r);
      bias[o].part[lane + i] += static_cast<double>(r);
    }
    add_rows<T, R>(rows, residual, d, gradient + o * stride);
  }
  if (a.dx != nullptr) {
    for (int i = 0; i < R; ++i) row_gradient(theta, scaled[i], d, k, a.dx + (row + i) * d);
  }
}

template <class T>
static void linear_mse_wide(const LinearMse<T>& a, const T* theta, Index begin, Index end, double* sums,
                            T* scratch) noexcept {
  const Index d = a.columns;
  const Index k = a.outputs;
  const Index stride = (d + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
  T* gradient = scratch;
  T* buffer = scratch + k * stride;
  for (Index i = 0; i < k * stride; ++i) gradient[i] = 0;
  Quarters loss = {};
  Quarters bias[kManyOutputs] = {};

  for (Index row = begin; row < end;) {
    const Index run_end = row + kRowGroup < end ? row + kRowGroup : end;
    for (; row + 4 <= run_end; row += 4) {
      linear_mse_wide_rows<T, 4>(a, theta, row, 0, stride, gradient, buffer, loss, bias);
    }
    for (int lane = 0; row < run_end; ++row, ++lane) {
      linear_mse_wide_rows<T, 1>(a, theta, row, lane, stride, gradient, buffer, loss, bias);
    }
    flush(gradient, d, k, stride, sums + 1);
  }
  sums[0] += (loss.part[0] + loss.part[2]) + (loss.part[1] + loss.part[3]);
  for (Index o = 0; a.bias && o < k; ++o) {
    sums[1 + k * d + o] += (bias[o].part[0] + bias[o].part[2]) + (bias[o].part[1] + bias[o].part[3]);
  }
}
