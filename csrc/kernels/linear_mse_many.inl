// linear_mse with many outputs: a matrix product over four rows at a time, lanes over the outputs.
//
// prediction (4 × k) = x (4 × d) · weight_t (d × k) is formed in runs of kSegment columns, each begun at zero and then
// added, which halves the growth of rounding against one long chain. Only the residuals of four rows are kept.

inline constexpr Index kSegment = 8;

template <class T, int R>
GDCORE_INLINE void linear_mse_many_rows(const LinearMse<T>& a, const T* theta, Index row, Index stride, Index padded,
                                        T* gradient, T* buffer, T* residual, Sum<T>& loss, double* bias) {
  constexpr Index lanes = kLanes<T>;
  const Index d = a.columns;
  const Index k = a.outputs;
  const Rows<T> x = contiguous_rows(a.x, row, R, d, stride, buffer);

  for (Index o = 0; o < k; o += lanes) {
    const Index count = k - o < lanes ? k - o : lanes;
    Pack<T> prediction[R];
    for (int i = 0; i < R; ++i) prediction[i] = a.bias ? load_first(theta + k * d + o, count) : zero<T>();
    for (Index segment = 0; segment < d; segment += kSegment) {
      const Index segment_end = segment + kSegment < d ? segment + kSegment : d;
      Pack<T> part[R] = {};
      for (Index j = segment; j < segment_end; ++j) {
        const Pack<T> w = load(a.weight_t + j * padded + o);
        for (int i = 0; i < R; ++i) part[i] = fma(broadcast(x.data[i * x.stride + j]), w, part[i]);
      }
      for (int i = 0; i < R; ++i) prediction[i] = prediction[i] + part[i];
    }
    for (int i = 0; i < R; ++i) {
      const T* target = a.target.data + (row + i) * a.target.row + o * a.target.column;
      alignas(kLaneBytes) T values[lanes] = {};
      for (Index l = 0; l < count; ++l) values[l] = target[l * a.target.column];
      const Pack<T> r = keep_first(prediction[i] - load(values), count);
      Pack<T> weighted = r;
      if (a.loss_weight.data != nullptr) {
        const T* w = a.loss_weight.data + (row + i) * a.loss_weight.row + o * a.loss_weight.column;
        for (Index l = 0; l < count; ++l) values[l] = w[l * a.loss_weight.column];
        weighted = r * load(values);
      }
      store(residual + i * padded + o, weighted);
      add(loss, weighted * r);
    }
  }

  for (Index o = 0; o < k; ++o) {
    for (int i = 0; bias != nullptr && i < R; ++i) bias[o] += static_cast<double>(residual[i * padded + o]);
    add_rows<T>(x, R, residual + o, padded, d, gradient + o * stride);
  }
  if (a.dx != nullptr) {
    for (int i = 0; i < R; ++i) {
      T* scaled = residual + i * padded;
      for (Index o = 0; o < k; ++o) scaled[o] *= a.dx_factor;
      row_gradient(theta, scaled, d, k, a.dx + (row + i) * d);
    }
  }
}

template <class T>
static void linear_mse_many(const LinearMse<T>& a, const T* theta, Index begin, Index end, double* sums,
                            T* scratch) noexcept {
  constexpr Index lanes = kLanes<T>;
  const Index d = a.columns;
  const Index k = a.outputs;
  const Index stride = (d + lanes - 1) / lanes * lanes;
  const Index padded = (k + lanes - 1) / lanes * lanes;
  T* gradient = scratch;
  T* buffer = gradient + k * stride;
  T* residual = buffer + 4 * stride;
  for (Index i = 0; i < k * stride; ++i) gradient[i] = 0;
  Sum<T> loss = {};
  double* bias = a.bias ? sums + 1 + k * d : nullptr;

  for (Index row = begin; row < end;) {
    const Index run_end = row + kRowGroup < end ? row + kRowGroup : end;
    for (; row + 4 <= run_end; row += 4) {
      linear_mse_many_rows<T, 4>(a, theta, row, stride, padded, gradient, buffer, residual, loss, bias);
    }
    for (; row < run_end; ++row) {
      linear_mse_many_rows<T, 1>(a, theta, row, stride, padded, gradient, buffer, residual, loss, bias);
    }
    flush(gradient, d, k, stride, sums + 1);
  }
  sums[0] += total(loss);
}
