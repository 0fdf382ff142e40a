// linear_mse with many columns and few outputs: lanes run over the columns of a row.
//
// A block of rows that fits the first-level cache is read twice, once for its residuals (four dot products at a time)
// and once for their products with the rows; memory is read once. One pass over x and target.

/// How far ahead of the products rows are prefetched, where at least one whole row fits: less than a page.
inline constexpr Index kPrefetchBytes = 3072;
/// Rows of fewer bytes are in a second-level cache after the first pass: nothing is gained by fetching them.
inline constexpr Index kNearBytes = Index{1} << 18;

/// Rows whose columns are neighbours.
template <class T>
struct Rows {
  const T* data;
  Index stride;
  Index ahead;  ///< how many rows further to prefetch, where rows are neighbours: 0 for none
};

/// `count` rows from `row` on: x's own memory, or a copy where its columns are apart.
template <class T>
GDCORE_INLINE Rows<T> contiguous_rows(const Matrix<const T>& x, Index row, Index count, Index d, Index stride,
                                      T* buffer) {
  const T* from = x.data + row * x.row;
  if (x.column == 1) return {from, x.row, 0};
  for (Index i = 0; i < count; ++i) {
    for (Index j = 0; j < d; ++j) buffer[i * stride + j] = from[i * x.row + j * x.column];
  }
  return {buffer, stride, 0};
}

/// gradient[c] += Σᵢ residual[i · step] · row i [c] over P packs of columns from `c` on, the rows summed first.
template <class T, int P>
GDCORE_INLINE void add_columns(const Rows<T>& x, Index count, const T* residual, Index step, Index c, T* gradient) {
  Pack<T> sum[P] = {};
  for (Index i = 0; i < count; ++i) {
    const Pack<T> r = broadcast(residual[i * step]);
    for (int p = 0; p < P; ++p) sum[p] = fma(load(x.data + i * x.stride + c + p * kLanes<T>), r, sum[p]);
  }
  for (int p = 0; p < P; ++p) {
    T* to = gradient + c + p * kLanes<T>;
    store(to, load(to) + sum[p]);
  }
}

/// The same over all d columns: eight registers of them at a time.
template <class T>
GDCORE_INLINE void add_rows(const Rows<T>& x, Index count, const T* residual, Index step, Index d, T* gradient) {
  constexpr int packs = kRegisters < 8 ? 8 / kRegisters : 1;
  Index c = 0;
  for (; c + packs * kLanes<T> <= d; c += packs * kLanes<T>) {
    add_columns<T, packs>(x, count, residual, step, c, gradient);
  }
  for (; c + kLanes<T> <= d; c += kLanes<T>) add_columns<T, 1>(x, count, residual, step, c, gradient);
  if (c == d) return;
  Pack<T> sum = zero<T>();
  for (Index i = 0; i < count; ++i) {
    sum = fma(load_first(x.data + i * x.stride + c, d - c), broadcast(residual[i * step]), sum);
  }
  store(gradient + c, load(gradient + c) + sum);
}

/// The same for one pack of columns of RUNS whole runs of rows: each is a chain of sums, and they go side by side.
template <class T, int RUNS>
GDCORE_INLINE void add_runs(const Rows<T>& x, const T* residual, Index c, T* gradient) {
  Pack<T> sum[RUNS] = {};
  for (Index i = 0; i < kWideRun; ++i) {
    for (int run = 0; run < RUNS; ++run) {
      const Index row = run * kWideRun + i;
      sum[run] = fma(load(x.data + row * x.stride + c), broadcast(residual[row]), sum[run]);
    }
  }
  Pack<T> all = load(gradient + c);
  for (int run = 0; run < RUNS; ++run) all = all + sum[run];
  store(gradient + c, all);
}

/// gradient[c] += Σᵢ residual[i] · row i [c] over all d columns of a block of rows, each run of them summed first.
template <class T>
GDCORE_INLINE void add_block(const Rows<T>& x, Index rows, const T* residual, Index d, T* gradient) {
  constexpr Index lanes = kLanes<T>;
  constexpr int runs = kRowGroup / kWideRun;
  Index row = 0;
  // One pack of columns fills no more than two registers: its runs wait for nothing of each other.
  for (; d == lanes && row + kRowGroup <= rows; row += kRowGroup) {
    add_runs<T, runs>({x.data + row * x.stride, x.stride, 0}, residual + row, 0, gradient);
  }
  for (; row < rows; row += kWideRun) {
    const Index run = rows - row < kWideRun ? rows - row : kWideRun;
    add_rows<T>({x.data + row * x.stride, x.stride, 0}, run, residual + row, 1, d, gradient);
  }
}

/// dx = Σₒ residual[o] · weight[o], the residuals already scaled; even and odd outputs in a chain each.
template <class T>
GDCORE_INLINE void row_gradient(const T* weight, const T* residual, Index d, Index k, T* dx) {
  constexpr Index lanes = kLanes<T>;
  for (Index c = 0; c < d; c += lanes) {
    const Index count = d - c < lanes ? d - c : lanes;
    Pack<T> chain[2] = {};
    for (Index o = 0; o < k; ++o) {
      const T* w = weight + o * d + c;
      chain[o % 2] = fma(count == lanes ? load(w) : load_first(w, count), broadcast(residual[o]), chain[o % 2]);
    }
    const Pack<T> v = chain[0] + chain[1];
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

/// x · weight of four rows, from `row` on; beyond `count` the first is taken again, and its product is not used.
template <class T>
GDCORE_INLINE Four<T> four_products(const Rows<T>& x, Index row, Index count, const T* weight, Index d) {
  constexpr Index lanes = kLanes<T>;
  const T* rows[4];
  for (Index i = 0; i < 4; ++i) rows[i] = x.data + (row + (i < count ? i : 0)) * x.stride;
  Pack<T> dot[4] = {};
  Index c = 0;
  // In the order of memory: the loads below jump from row to row, which the hardware's own prefetching does not follow.
  if (x.ahead > 0) {
    const T* next = rows[0] + x.ahead * x.stride;
    for (Index j = 0; j < 4 * x.stride; j += lanes) __builtin_prefetch(next + j);
  }
  for (; c + lanes <= d; c += lanes) {
    const Pack<T> w = load(weight + c);
    for (int i = 0; i < 4; ++i) dot[i] = fma(load(rows[i] + c), w, dot[i]);
  }
  if (c < d) {
    const Pack<T> w = load_first(weight + c, d - c);
    for (int i = 0; i < 4; ++i) dot[i] = fma(load_first(rows[i] + c, d - c), w, dot[i]);
  }
  return totals<T>(dot);
}

/// Σ r² and Σ r over rows, each row in its lane of four.
struct RowSums {
  Four<double> squares;
  Four<double> residuals;
};

/// Σ x · weight + bias − target of up to four rows, rounded to T, times their weights where there are any; adds to
/// the sums. What stands beyond `count` becomes zero.
template <class T>
GDCORE_INLINE Four<T> four_residuals(const Four<T>& dot, double bias, const T* target, Index target_row,
                                     const T* loss_weight, Index loss_weight_row, Index count, RowSums& sums) {
  const Four<double> targets = widen(four(target, target_row, count));
  Four<T> r = narrow(widen(dot) + bias - targets, T());
  if (count < 4) r = four(reinterpret_cast<const T*>(&r), 1, count);
  const Four<double> wide = widen(r);
  if (loss_weight != nullptr) r = r * four(loss_weight, loss_weight_row, count);
  const Four<double> weighted = widen(r);
  sums.squares = sums.squares + weighted * wide;
  sums.residuals = sums.residuals + weighted;
  return r;
}

/// Residuals of a block of rows for one output, times their weights where there are any.
template <class T>
GDCORE_INLINE void block_residuals(const Rows<T>& x, Index rows, const T* weight, double bias, Index d, const T* target,
                                   Index target_row, const T* loss_weight, Index loss_weight_row, T* residual,
                                   RowSums& sums) {
  // Two loops, so that neither waits for what the other computes: the chain from a product to its residual is long.
  for (Index row = 0; row < rows; row += 4) {
    const Four<T> dot = four_products(x, row, rows - row < 4 ? rows - row : 4, weight, d);
    __builtin_memcpy(residual + row, &dot, sizeof(dot));
  }
  for (Index row = 0; row < rows; row += 4) {
    const Index count = rows - row < 4 ? rows - row : 4;
    const T* const weights = loss_weight == nullptr ? nullptr : loss_weight + row * loss_weight_row;
    const Four<T> r = four_residuals(four(residual + row, 1, 4), bias, target + row * target_row, target_row, weights,
                                     loss_weight_row, count, sums);
    __builtin_memcpy(residual + row, &r, sizeof(r));
  }
}

template <class T>
static void linear_mse_wide(const LinearMse<T>& a, const T* theta, Index begin, Index end, double* sums,
                            T* scratch) noexcept {
  const Index d = a.columns;
  const Index k = a.outputs;
  const Index stride = (d + kLanes<T> - 1) / kLanes<T> * kLanes<T>;
  const Index row_bytes = d * static_cast<Index>(sizeof(T));
  const Index rows = end > a.rows_to_fetch ? end : a.rows_to_fetch;
  const bool far = rows * row_bytes > kNearBytes;
  const Index most = wide_block<T>(d);
  // Memory rests while a block's products are formed: not for long.
  const Index block = far && d > kLanes<T> && most > kWideRun ? kWideRun : most;
  const Index ahead = kPrefetchBytes / row_bytes;
  // Rows with gaps between them are not fetched.
  const Index fetching = far && a.x.column == 1 && a.x.row == d ? rows - ahead : -1;
  T* gradient = scratch;
  T* buffer = scratch + k * stride;
  for (Index i = 0; i < k * stride; ++i) gradient[i] = 0;
  alignas(kLaneBytes) T residual[kManyOutputs][kRowGroup];
  RowSums row_sums[kManyOutputs];
  for (Index o = 0; o < k; ++o) row_sums[o] = RowSums{};
  Index added = 0;

  for (Index row = begin; row < end; row += block) {
    const Index count = end - row < block ? end - row : block;
    Rows<T> x = contiguous_rows(a.x, row, count, d, stride, buffer);
    if (row + count <= fetching) x.ahead = ahead;
    for (Index o = 0; o < k; ++o) {
      const T* target = a.target.data + row * a.target.row + o * a.target.column;
      const T* loss_weight = a.loss_weight.data == nullptr
                                 ? nullptr
                                 : a.loss_weight.data + row * a.loss_weight.row + o * a.loss_weight.column;
      const double b = a.bias ? static_cast<double>(theta[k * d + o]) : 0.0;
      block_residuals(x, count, theta + o * d, b, d, target, a.target.row, loss_weight, a.loss_weight.row, residual[o],
                      row_sums[o]);
      add_block(x, count, residual[o], d, gradient + o * stride);
    }
    for (Index i = 0; a.dx != nullptr && i < count; ++i) {
      T scaled[kManyOutputs];
      for (Index o = 0; o < k; ++o) scaled[o] = residual[o][i] * a.dx_factor;
      row_gradient(theta, scaled, d, k, a.dx + (row + i) * d);
    }
    added += count;
    if (added >= kRowGroup || row + count == end) {
      flush(gradient, d, k, stride, sums + 1);
      added = 0;
    }
  }
  for (Index o = 0; o < k; ++o) {
    sums[0] += total(row_sums[o].squares);
    if (a.bias) sums[1 + k * d + o] += total(row_sums[o].residuals);
  }
}
