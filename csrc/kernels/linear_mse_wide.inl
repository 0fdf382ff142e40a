// linear_mse with many columns and few outputs: lanes run over the columns of a row.
//
// A block of rows that fits the first-level cache is read twice, once for its residuals (four dot products at a time)
// and once for their products with the rows; memory is read once. One pass over x and target.

/// How far ahead of the products rows are prefetched, where at least one whole row fits: less than a page.
inline constexpr Index kPrefetchBytes = 3072;
/// Rows of fewer bytes are in a cache after the first pass: nothing is gained by fetching them.
inline constexpr Index kNearBytes = Index{1} << 22;

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

/// Sums that are added to side by side, so that none waits for its last addition: half of the registers.
inline constexpr int kSumsAtOnce = kRegisters < 8 ? 8 / kRegisters : 1;

/// gradient[c] += Σᵢ residual[i · step] · row i [c] over P packs of columns from `c` on, of RUNS times `count` rows,
/// the rows of each run summed first. Where there is a mask, it is of the last columns.
template <class T, int P, int RUNS>
GDCORE_INLINE void add_columns(const Rows<T>& x, Index count, const T* residual, Index step, Index c, T* gradient,
                               const Mask<T>* mask = nullptr) {
  Pack<T> sum[RUNS][P] = {};
  for (Index i = 0; i < count; ++i) {
    for (int run = 0; run < RUNS; ++run) {
      const Index row = run * count + i;
      const Pack<T> r = broadcast(residual[row * step]);
      for (int p = 0; p < P; ++p) {
        const T* const from = x.data + row * x.stride + c + p * kLanes<T>;
        sum[run][p] = fma(mask == nullptr ? load(from) : load_masked(from, *mask), r, sum[run][p]);
      }
    }
  }
  for (int p = 0; p < P; ++p) {
    T* to = gradient + c + p * kLanes<T>;
    Pack<T> all = load(to);
    for (int run = 0; run < RUNS; ++run) all = all + sum[run][p];
    store(to, all);
  }
}

/// The same over all columns from `c` on, as many packs and runs at a time as there are registers for.
template <class T, int P, int RUNS>
GDCORE_INLINE void add_packs(const Rows<T>& x, Index count, const T* residual, Index step, Index c, Index d,
                             T* gradient) {
  constexpr int runs = kSumsAtOnce / P < RUNS ? kSumsAtOnce / P : RUNS;
  for (; c + P * kLanes<T> <= d; c += P * kLanes<T>) {
    for (Index row = 0; row < RUNS * count; row += runs * count) {
      add_columns<T, P, runs>({x.data + row * x.stride, x.stride, 0}, count, residual + row * step, step, c, gradient);
    }
  }
  if constexpr (P > 1) return add_packs<T, P / 2, RUNS>(x, count, residual, step, c, d, gradient);
  if (c == d) return;
  const Mask<T> mask = first<T>(d - c);
  for (Index row = 0; row < RUNS * count; row += runs * count) {
    add_columns<T, 1, runs>({x.data + row * x.stride, x.stride, 0}, count, residual + row * step, step, c, gradient,
                            &mask);
  }
}

/// gradient[c] += Σᵢ residual[i · step] · row i [c] over all d columns, the rows summed first.
template <class T>
static void add_rows(const Rows<T>& x, Index count, const T* residual, Index step, Index d, T* gradient) noexcept {
  add_packs<T, kSumsAtOnce, 1>(x, count, residual, step, 0, d, gradient);
}

/// gradient[c] += Σᵢ residual[i] · row i [c] over all d columns of a block of rows, each run of them summed first: as
/// many runs side by side as divide the block.
template <class T, int RUNS = kRowGroup / kWideRun>
GDCORE_INLINE void add_block(const Rows<T>& x, Index rows, const T* residual, Index d, T* gradient) {
  Index row = 0;
  for (; row < rows; row += RUNS * kWideRun) {
    const Rows<T> from = {x.data + row * x.stride, x.stride, 0};
    if constexpr (RUNS == 1) {
      add_rows(from, rows - row < kWideRun ? rows - row : kWideRun, residual + row, 1, d, gradient);
    } else if (row + RUNS * kWideRun <= rows) {
      add_packs<T, kSumsAtOnce, RUNS>(from, kWideRun, residual + row, 1, 0, d, gradient);
    } else {
      return add_block<T, RUNS / 2>(from, rows - row, residual + row, d, gradient);
    }
  }
}

/// dx = Σₒ residual[o] · weight[o], the residuals already scaled; even and odd outputs in a chain each.
template <class T>
static void row_gradient(const T* weight, const T* residual, Index d, Index k, T* dx) noexcept {
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
static void flush(T* gradient, Index d, Index k, Index stride, double* sums) noexcept {
  for (Index o = 0; o < k; ++o) {
    for (Index j = 0; j < d; ++j) {
      sums[o * d + j] += static_cast<double>(gradient[o * stride + j]);
      gradient[o * stride + j] = 0;
    }
  }
}

/// Fetches what lies `ahead` of four rows, from `row` on: in the order of memory, where products jump from row to row,
/// which the hardware's own prefetching does not follow.
template <class T>
GDCORE_INLINE void fetch(const Rows<T>& x, Index row) {
  const T* const next = x.data + (row + x.ahead) * x.stride;
  for (Index j = 0; j < 4 * x.stride; j += kLanes<T>) __builtin_prefetch(next + j);
}

/// x · weight of four rows, from `row` on; beyond `count` the first is taken again, and its product is not used.
template <class T>
GDCORE_INLINE Four<T> four_products(const Rows<T>& x, Index row, Index count, const T* weight, Index d) {
  constexpr Index lanes = kLanes<T>;
  const T* rows[4];
  for (Index i = 0; i < 4; ++i) rows[i] = x.data + (row + (i < count ? i : 0)) * x.stride;
  Pack<T> dot[4] = {};
  Index c = 0;
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

/// Residuals, times their weights where there are any, of rows whose products stand in their place; less than four at
/// the end.
template <class T>
static void any_residuals(double bias, Index rows, const T* target, Index target_row, const T* loss_weight,
                          Index loss_weight_row, T* residual, RowSums& sums) noexcept {
  for (Index row = 0; row < rows; row += 4) {
    const Index count = rows - row < 4 ? rows - row : 4;
    const T* const weights = loss_weight == nullptr ? nullptr : loss_weight + row * loss_weight_row;
    const Four<T> r = four_residuals(four(residual + row, 1, 4), bias, target + row * target_row, target_row, weights,
                                     loss_weight_row, count, sums);
    __builtin_memcpy(residual + row, &r, sizeof(r));
  }
}

/// The products of less than four rows, the last of a block. Rare, and therefore not inlined.
template <class T>
static void last_products(const Rows<T>& x, Index row, Index count, const T* weight, Index d, T* product) noexcept {
  const Four<T> dot = four_products(x, row, count, weight, d);
  __builtin_memcpy(product, &dot, sizeof(dot));
}

/// Residuals of a block of rows for one output, times their weights where there are any.
template <class T>
GDCORE_INLINE void block_residuals(const Rows<T>& x, Index rows, const T* weight, double bias, Index d, const T* target,
                                   Index target_row, const T* loss_weight, Index loss_weight_row, T* residual,
                                   RowSums& sums) {
  // Whole fours have loops of their own, in which little is left to decide. And no product waits for a residual: the
  // chain from the one to the other is long.
  Index row = 0;
  for (; row + 4 <= rows; row += 4) {
    if (x.ahead > 0) fetch(x, row);
    const Four<T> dot = four_products(x, row, 4, weight, d);
    __builtin_memcpy(residual + row, &dot, sizeof(dot));
  }
  if (row < rows) last_products(x, row, rows - row, weight, d, residual + row);
  row = 0;
  if (target_row == 1 && loss_weight == nullptr) {
    for (; row + 4 <= rows; row += 4) {
      const Four<T> r = four_residuals<T>(four(residual + row, 1, 4), bias, target + row, 1, nullptr, 0, 4, sums);
      __builtin_memcpy(residual + row, &r, sizeof(r));
    }
  }
  if (row == rows) return;
  const T* const weights = loss_weight == nullptr ? nullptr : loss_weight + row * loss_weight_row;
  any_residuals(bias, rows - row, target + row * target_row, target_row, weights, loss_weight_row, residual + row,
                sums);
}

/// D: the columns where they are known, or 0.
template <class T, Index D>
static void linear_mse_rows(const LinearMse<T>& a, const T* theta, Index begin, Index end, double* sums,
                            T* scratch) noexcept {
  const Index d = D > 0 ? D : a.columns;
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

template <class T>
static void linear_mse_wide(const LinearMse<T>& a, const T* theta, Index begin, Index end, double* sums,
                            T* scratch) noexcept {
  // Loops of a length that is known are faster.
  switch (a.columns) {
    case 16:
      return linear_mse_rows<T, 16>(a, theta, begin, end, sums, scratch);
    case 32:
      return linear_mse_rows<T, 32>(a, theta, begin, end, sums, scratch);
    case 64:
      return linear_mse_rows<T, 64>(a, theta, begin, end, sums, scratch);
    default:
      return linear_mse_rows<T, 0>(a, theta, begin, end, sums, scratch);
  }
}
