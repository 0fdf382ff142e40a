// linear_mse with few columns and outputs: lanes run over rows.
//
// A group of kLanes rows is taken column by column (from packed memory, in place, or copied into a buffer), so that
// prediction, residual and products are whole packs with nothing wasted on a short row. With up to four columns and one
// output all sums of a run fit the registers; with more, a run of groups is passed over twice in the first-level cache:
// once for its residuals, once for a few sums at a time. One pass over x and target in memory. Nothing written may
// overlap what is read.

/// r = x · w + bias − target of G groups for one output, `target_step` between their targets.
template <class T, int G>
GDCORE_INLINE void narrow_residuals(const T* x, const T* w, T bias, Index d, const T* target, Index target_step,
                                    Pack<T> (&r)[G]) {
  constexpr Index lanes = kLanes<T>;
  // Two chains, even and odd columns: half the latency and half the growth of rounding of one.
  Pack<T> even[G];
  Pack<T> odd[G] = {};
  for (int g = 0; g < G; ++g) even[g] = broadcast(bias);
  for (Index j = 0; j + 1 < d; j += 2) {
    const Pack<T> w0 = broadcast(w[j]);
    const Pack<T> w1 = broadcast(w[j + 1]);
    for (int g = 0; g < G; ++g) {
      even[g] = fma(load(x + (g * d + j) * lanes), w0, even[g]);
      odd[g] = fma(load(x + (g * d + j + 1) * lanes), w1, odd[g]);
    }
  }
  for (int g = 0; g < G; ++g) {
    if (d % 2 != 0) even[g] = fma(load(x + (g * d + d - 1) * lanes), broadcast(w[d - 1]), even[g]);
    r[g] = (d > 1 ? even[g] + odd[g] : even[g]) - load(target + g * target_step);
  }
}

/// dx of `count` rows of a group, from its residuals times their weights, one for each output.
template <class T>
GDCORE_INLINE void narrow_row_gradients(const LinearMse<T>& a, const T* theta, const Pack<T>* residual, Index row,
                                        Index count) {
  const Index d = a.columns;
  for (Index j = 0; j < d; ++j) {
    Pack<T> v = zero<T>();
    for (Index o = 0; o < a.outputs; ++o) {
      v = fma(residual[o] * broadcast(a.dx_factor), broadcast(theta[o * d + j]), v);
    }
    alignas(kLaneBytes) T column[kLanes<T>];
    store(column, v);
    for (Index i = 0; i < count; ++i) a.dx[(row + i) * d + j] = column[i];
  }
}

/// dx of rows [begin, end).
template <class T, int D>
static void narrow_dx(const LinearMse<T>& a, const T* theta, Index begin, Index end) {
  constexpr Index lanes = kLanes<T>;
  alignas(kLaneBytes) T x_buffer[D * lanes];
  alignas(kLaneBytes) T target_buffer[lanes];
  for (Index row = begin; row < end; row += lanes) {
    const Index count = end - row < lanes ? end - row : lanes;
    const T* x = a.packed_x != nullptr ? a.packed_x + row * D : gather(a.x, row, D, count, x_buffer);
    const T* target =
        a.packed_target != nullptr ? a.packed_target + row : gather(a.target, row, 1, count, target_buffer);
    Pack<T> r[1];
    narrow_residuals<T, 1>(x, theta, a.bias ? theta[D] : T(0), D, target, 0, r);
    narrow_row_gradients(a, theta, r, row, count);
  }
}

/// The sums of a run of rows [row, end) with D columns and one output, in registers: Σ r², Σ r x, Σ r.
template <class T, int D>
GDCORE_INLINE void narrow_run(const LinearMse<T>& a, const T* theta, Index row, Index end, Pack<T> (&sums)[D + 2]) {
  constexpr Index lanes = kLanes<T>;
  alignas(kLaneBytes) T x_buffer[kRun * D * lanes];
  alignas(kLaneBytes) T target_buffer[kRun * lanes];
  const T bias = a.bias ? theta[D] : T(0);
  Pack<T> part[D + 2] = {};
  const auto add_group = [&](const T* x, const T* target, Index count) GDCORE_INLINE_LAMBDA {
    Pack<T> r[1];
    narrow_residuals<T, 1>(x, theta, bias, D, target, 0, r);
    if (count < lanes) r[0] = keep_first(r[0], count);
    part[0] = fma(r[0], r[0], part[0]);
    for (Index j = 0; j < D; ++j) part[1 + j] = fma(r[0], load(x + j * lanes), part[1 + j]);
    part[1 + D] = part[1 + D] + r[0];
  };

  const Index rest = (end - row) % lanes;
  const Index whole = end - row - rest;
  const T* x = a.packed_x != nullptr ? a.packed_x + row * D : gather_run(a.x, row, D, whole, x_buffer);
  const T* target =
      a.packed_target != nullptr ? a.packed_target + row : gather_run(a.target, row, 1, whole, target_buffer);
  for (Index i = 0; i < whole; i += lanes) add_group(x + i * D, target + i, lanes);
  if (rest > 0) {
    row += whole;
    x = a.packed_x != nullptr ? a.packed_x + row * D : gather(a.x, row, D, rest, x_buffer);
    target = a.packed_target != nullptr ? a.packed_target + row : gather(a.target, row, 1, rest, target_buffer);
    add_group(x, target, rest);
  }
  for (Index s = 0; s < D + 2; ++s) sums[s] = part[s];
}

/// D columns and one output.
template <class T, int D>
static void linear_mse_narrow(const LinearMse<T>& a, const T* theta, Index begin, Index end, double* sums) noexcept {
  constexpr Index rows = kRun * kLanes<T>;
  // The bias's sum is formed always, and left out at the end where there is no bias: no branch in the loop.
  const Index count_sums = 1 + D + (a.bias ? 1 : 0);
  const bool one_run = end - begin <= rows;  // whose sums need no others beside them
  Sum<T> sum[D + 2];
  for (Index s = 0; !one_run && s < D + 2; ++s) sum[s] = Sum<T>{};
  for (Index row = begin; row < end; row += rows) {
    Pack<T> part[D + 2];
    narrow_run<T, D>(a, theta, row, row + rows < end ? row + rows : end, part);
    if (one_run) {
      for (Index s = 0; s < count_sums; ++s) sums[s] += total(part[s]);
    } else {
      for (Index s = 0; s < D + 2; ++s) add(sum[s], part[s]);
    }
  }
  for (Index s = 0; !one_run && s < count_sums; ++s) sums[s] += total(sum[s]);
  if (a.dx != nullptr) narrow_dx<T, D>(a, theta, begin, end);
}

/// The groups of a run, which are passed over twice, and what comes of them.
template <class T>
struct Tile {
  Index rows;
  const T* x;
  const T* target;
  const T* weight;                  ///< or null
  T (*residual)[kRun * kLanes<T>];  ///< w r, by output
};

/// Residuals of G whole groups, or of one that may lack rows, from number `group` on; adds their squares.
template <class T, int G>
GDCORE_INLINE void tile_residuals(const LinearMse<T>& a, const T* theta, const Tile<T>& tile, Index group,
                                  Pack<T>& squares) {
  constexpr Index lanes = kLanes<T>;
  const Index d = a.columns;
  const Index k = a.outputs;
  const Index left = tile.rows - group * lanes;
  for (Index o = 0; o < k; ++o) {
    const Index at = (group * k + o) * lanes;
    const T bias = a.bias ? theta[k * d + o] : T(0);
    Pack<T> r[G];
    narrow_residuals<T, G>(tile.x + group * d * lanes, theta + o * d, bias, d, tile.target + at, k * lanes, r);
    if (G == 1 && left < lanes) r[0] = keep_first(r[0], left);
    for (int g = 0; g < G; ++g) {
      const Pack<T> weighted = tile.weight != nullptr ? r[g] * load(tile.weight + at + g * k * lanes) : r[g];
      store(tile.residual[o] + (group + g) * lanes, weighted);
      squares = fma(weighted, r[g], squares);
    }
  }
}

/// sum[j] += Σ over the groups of a run of residual · column j, for C columns from x on.
template <class T, int C>
GDCORE_INLINE void add_group_products(const T* x, Index columns, const T* residual, Index groups, Sum<T>* sum) {
  constexpr Index lanes = kLanes<T>;
  Pack<T> part[C] = {};
  for (Index g = 0; g < groups; ++g) {
    const Pack<T> r = load(residual + g * lanes);
    for (Index j = 0; j < C; ++j) part[j] = fma(r, load(x + (g * columns + j) * lanes), part[j]);
  }
  for (Index j = 0; j < C; ++j) add(sum[j], part[j]);
}

/// Any number of columns and outputs, with weights or without.
template <class T>
static void linear_mse_tiled(const LinearMse<T>& a, const T* theta, Index begin, Index end, double* sums) noexcept {
  constexpr Index lanes = kLanes<T>;
  constexpr Index most_columns = kWideColumns - 1;
  constexpr Index most_outputs = kManyOutputs - 1;
  const Index d = a.columns;
  const Index k = a.outputs;
  const bool weighted = a.loss_weight.data != nullptr;
  alignas(kLaneBytes) T x_buffer[kRun * most_columns * lanes];
  alignas(kLaneBytes) T target_buffer[kRun * most_outputs * lanes];
  alignas(kLaneBytes) T weight_buffer[kRun * most_outputs * lanes];
  alignas(kLaneBytes) T residual[most_outputs][kRun * lanes];  // w r
  Sum<T> loss = {};
  Sum<T> sum[most_outputs * (most_columns + 1)];
  for (Index s = 0; s < k * (d + 1); ++s) sum[s] = Sum<T>{};

  for (Index row = begin; row < end; row += kRun * lanes) {
    const Index rows = end - row < kRun * lanes ? end - row : kRun * lanes;
    const Index groups = (rows + lanes - 1) / lanes;
    const T* x = a.packed_x != nullptr ? a.packed_x + row * d : gather_run(a.x, row, d, rows, x_buffer);
    const T* target =
        a.packed_target != nullptr ? a.packed_target + row * k : gather_run(a.target, row, k, rows, target_buffer);
    const T* weight = weighted ? gather_run(a.loss_weight, row, k, rows, weight_buffer) : nullptr;

    const Tile<T> tile = {rows, x, target, weight, residual};
    Pack<T> squares = zero<T>();
    Index group = 0;
    for (; (group + 2) * lanes <= rows; group += 2) tile_residuals<T, 2>(a, theta, tile, group, squares);
    for (; group < groups; ++group) tile_residuals<T, 1>(a, theta, tile, group, squares);
    add(loss, squares);
    for (Index g = 0; a.dx != nullptr && g < groups; ++g) {
      Pack<T> of_group[most_outputs];
      for (Index o = 0; o < k; ++o) of_group[o] = load(residual[o] + g * lanes);
      const Index first = row + g * lanes;
      narrow_row_gradients(a, theta, of_group, first, end - first < lanes ? end - first : lanes);
    }

    for (Index o = 0; o < k; ++o) {
      Sum<T>* to = sum + o * (d + 1);
      Index j = 0;
      for (; j + 5 <= d; j += 5) add_group_products<T, 5>(x + j * lanes, d, residual[o], groups, to + j);
      for (; j + 2 <= d; j += 2) add_group_products<T, 2>(x + j * lanes, d, residual[o], groups, to + j);
      if (j < d) add_group_products<T, 1>(x + j * lanes, d, residual[o], groups, to + j);
      Pack<T> part = zero<T>();
      for (Index g = 0; g < groups; ++g) part = part + load(residual[o] + g * lanes);
      add(to[d], part);
    }
  }
  sums[0] += total(loss);
  for (Index o = 0; o < k; ++o) {
    for (Index j = 0; j < d; ++j) sums[1 + o * d + j] += total(sum[o * (d + 1) + j]);
    if (a.bias) sums[1 + k * d + o] += total(sum[o * (d + 1) + d]);
  }
}
