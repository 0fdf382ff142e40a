// linear_mse with many outputs: two matrix products over a few rows at a time, lanes over the outputs, then the
// columns.
//
// prediction (4 × k) = x (4 × d) · weight_t (d × k) is formed in runs of kSegment columns, each begun at zero and then
// added, which halves the growth of rounding against one long chain. The residuals of kWideRun rows are kept, and
// multiplied with these rows for two outputs at a time: each row of x that is loaded serves both.

inline constexpr Index kSegment = 8;

/// `count` ≤ kLanes elements of a row from column `first` on, and zeros.
template <class T>
GDCORE_INLINE Pack<T> many_values(const Matrix<const T>& m, Index row, Index first, Index count) {
  const T* from = m.data + row * m.row + first * m.column;
  if (m.column == 1) return count == kLanes<T> ? load(from) : load_first(from, count);
  alignas(kLaneBytes) T values[kLanes<T>] = {};
  for (Index l = 0; l < count; ++l) values[l] = from[l * m.column];
  return load(values);
}

/// Residuals of R rows from number `row` on, times their weights.
template <class T, int R>
GDCORE_INLINE void many_residuals(const LinearMse<T>& a, const T* theta, const Rows<T>& x, Index row, Index padded,
                                  T* residual, Sum<T>& loss) {
  constexpr Index lanes = kLanes<T>;
  const Index d = a.columns;
  const Index k = a.outputs;

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
    Pack<T> squares = zero<T>();
    for (int i = 0; i < R; ++i) {
      const Pack<T> r = keep_first(prediction[i] - many_values(a.target, row + i, o, count), count);
      const Pack<T> weighted = a.loss_weight.data == nullptr ? r : r * many_values(a.loss_weight, row + i, o, count);
      store(residual + i * padded + o, weighted);
      squares = fma(weighted, r, squares);
    }
    add(loss, squares);
  }
}

/// gradient[o][c] += Σᵢ residual[i][o] · row i [c] for two outputs and a pack of columns from `c` on; four rows are
/// summed first.
template <class T>
GDCORE_INLINE void add_two_outputs(const Rows<T>& x, Index count, const T* residual, Index padded, Index c, T* first,
                                   T* second) {
  Pack<T> sum[2] = {load(first + c), load(second + c)};
  for (Index i = 0; i < count; i += 4) {
    const Index end = count - i < 4 ? count : i + 4;
    Pack<T> part[2] = {};
    for (Index j = i; j < end; ++j) {
      const Pack<T> row = load(x.data + j * x.stride + c);
      for (int o = 0; o < 2; ++o) part[o] = fma(row, broadcast(residual[j * padded + o]), part[o]);
    }
    for (int o = 0; o < 2; ++o) sum[o] = sum[o] + part[o];
  }
  store(first + c, sum[0]);
  store(second + c, sum[1]);
}

/// The same over all d columns and k outputs.
template <class T>
GDCORE_INLINE void add_products(const Rows<T>& x, Index count, const T* residual, Index padded, Index d, Index k,
                                T* gradient, Index stride) {
  constexpr Index lanes = kLanes<T>;
  Index o = 0;
  for (; o + 2 <= k; o += 2) {
    Index c = 0;
    T* even = gradient + o * stride;
    for (; c + lanes <= d; c += lanes) add_two_outputs(x, count, residual + o, padded, c, even, even + stride);
    if (c == d) continue;
    const Mask<T> mask = first<T>(d - c);
    for (Index i = 0; i < count; i += 4) {
      const Rows<T> rest = {x.data + i * x.stride, x.stride, 0};
      const Index rows = count - i < 4 ? count - i : 4;
      add_columns<T, 1, 1>(rest, rows, residual + i * padded + o, padded, c, even, &mask);
      add_columns<T, 1, 1>(rest, rows, residual + i * padded + o + 1, padded, c, even + stride, &mask);
    }
  }
  for (Index i = 0; o < k && i < count; i += 4) {
    const Rows<T> rows = {x.data + i * x.stride, x.stride, 0};
    add_rows<T>(rows, count - i < 4 ? count - i : 4, residual + i * padded + o, padded, d, gradient + o * stride);
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
  T* residual = buffer + kWideRun * stride;
  for (Index i = 0; i < k * stride; ++i) gradient[i] = 0;
  Sum<T> loss = {};
  double* bias = a.bias ? sums + 1 + k * d : nullptr;

  for (Index row = begin; row < end; row += kWideRun) {
    const Index count = end - row < kWideRun ? end - row : kWideRun;
    const Rows<T> x = contiguous_rows(a.x, row, count, d, stride, buffer);
    Index i = 0;
    for (; i + 4 <= count; i += 4) {
      many_residuals<T, 4>(a, theta, {x.data + i * x.stride, x.stride, 0}, row + i, padded, residual + i * padded,
                           loss);
    }
    for (; i < count; ++i) {
      many_residuals<T, 1>(a, theta, {x.data + i * x.stride, x.stride, 0}, row + i, padded, residual + i * padded,
                           loss);
    }
    for (Index o = 0; bias != nullptr && o < k; o += lanes) {
      Sum<T> sum = {};
      for (i = 0; i < count; ++i) add(sum, load(residual + i * padded + o));
      alignas(kLaneBytes) double values[lanes];
      for (Index half = 0; half * kLanes<double> < lanes; ++half)
        store(values + half * kLanes<double>, sum.lanes[half]);
      for (Index l = 0; l < lanes && o + l < k; ++l) bias[o + l] += values[l];
    }
    add_products(x, count, residual, padded, d, k, gradient, stride);
    for (i = 0; a.dx != nullptr && i < count; ++i) {
      T* scaled = residual + i * padded;
      for (Index o = 0; o < k; ++o) scaled[o] *= a.dx_factor;
      row_gradient(theta, scaled, d, k, a.dx + (row + i) * d);
    }
    if ((row + count - begin) % kRowGroup == 0 || row + count == end) flush(gradient, d, k, stride, sums + 1);
  }
  sums[0] += total(loss);
}
