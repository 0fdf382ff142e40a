// linear_mse with few columns and outputs: lanes run over rows.
//
// A group of kLanes rows is taken column by column (from packed memory, in place, or gathered into a buffer), so that
// prediction, residual and products are whole packs with nothing wasted on a short row.
// One pass over x and target. Nothing written may overlap what is read.

/// `columns` columns of `count` rows from `row` on, each a run of lanes with zeros beyond `count`.
template <class T>
GDCORE_INLINE const T* gather(const Matrix<const T>& m, Index row, Index columns, Index count, T* buffer) {
  const T* from = m.data + row * m.row;
  if (columns == 1 && m.row == 1 && count == kLanes<T>) return from;
  for (Index j = 0; j < columns; ++j) {
    T* run = buffer + j * kLanes<T>;
    for (Index i = 0; i < count; ++i) run[i] = from[i * m.row + j * m.column];
    for (Index i = count; i < kLanes<T>; ++i) run[i] = 0;
  }
  return buffer;
}

/// D columns and K outputs, 0 where they are known only at run time; WEIGHTED: with weights.
template <class T, int D, int K, bool WEIGHTED = false>
static void linear_mse_narrow(const LinearMse<T>& a, const T* theta, Index begin, Index end, double* sums) noexcept {
  constexpr Index max_columns = D != 0 ? D : kWideColumns - 1;
  constexpr Index max_outputs = K != 0 ? K : kManyOutputs - 1;
  constexpr Index max_sums = 1 + max_outputs * (max_columns + 1);
  constexpr Index lanes = kLanes<T>;
  const Index d = D != 0 ? D : a.columns;
  const Index k = K != 0 ? K : a.outputs;
  // The bias's sums are formed always, and left out at the end where there is no bias: no branch in the loop.
  const Index count_sums = 1 + k * (d + 1);
  const Index kept_sums = 1 + k * d + (a.bias ? k : 0);

  alignas(kLaneBytes) T x_buffer[max_columns * lanes];
  alignas(kLaneBytes) T target_buffer[max_outputs * lanes];
  [[maybe_unused]] alignas(kLaneBytes) T weight_buffer[max_outputs * lanes];
  Sum<T> sum[max_sums];
  for (Index s = 0; s < count_sums; ++s) sum[s] = Sum<T>{};

  for (Index row = begin; row < end;) {
    const Index run_end = row + kRun * lanes < end ? row + kRun * lanes : end;
    Pack<T> part[max_sums];
    for (Index s = 0; s < count_sums; ++s) part[s] = zero<T>();
    for (; row < run_end; row += lanes) {
      const Index count = run_end - row < lanes ? run_end - row : lanes;
      const T* x = a.packed_x != nullptr ? a.packed_x + row * d : gather(a.x, row, d, count, x_buffer);
      const T* target =
          a.packed_target != nullptr ? a.packed_target + row * k : gather(a.target, row, k, count, target_buffer);

      [[maybe_unused]] const T* weight = nullptr;
      if constexpr (WEIGHTED) weight = gather(a.loss_weight, row, k, count, weight_buffer);

      Pack<T> residual[max_outputs];  // w r
      for (Index o = 0; o < k; ++o) {
        const T* w = theta + o * d;
        // Two chains, even and odd columns: half the latency and half the growth of rounding of one.
        Pack<T> even = broadcast(a.bias ? theta[k * d + o] : T(0));
        Pack<T> odd = zero<T>();
        for (Index j = 0; j + 1 < d; j += 2) {
          even = fma(load(x + j * lanes), broadcast(w[j]), even);
          odd = fma(load(x + (j + 1) * lanes), broadcast(w[j + 1]), odd);
        }
        if (d % 2 != 0) even = fma(load(x + (d - 1) * lanes), broadcast(w[d - 1]), even);
        Pack<T> r = (d > 1 ? even + odd : even) - load(target + o * lanes);
        if (count < lanes) r = keep_first(r, count);
        Pack<T> weighted = r;
        if constexpr (WEIGHTED) weighted = r * load(weight + o * lanes);
        residual[o] = weighted;

        part[0] = fma(weighted, r, part[0]);
        for (Index j = 0; j < d; ++j) part[1 + o * d + j] = fma(weighted, load(x + j * lanes), part[1 + o * d + j]);
        part[1 + k * d + o] = part[1 + k * d + o] + weighted;
      }

      if (a.dx != nullptr) {
        for (Index j = 0; j < d; ++j) {
          Pack<T> v = zero<T>();
          for (Index o = 0; o < k; ++o) {
            v = fma(residual[o] * broadcast(a.dx_factor), broadcast(theta[o * d + j]), v);
          }
          alignas(kLaneBytes) T column[lanes];
          store(column, v);
          for (Index i = 0; i < count; ++i) a.dx[(row + i) * d + j] = column[i];
        }
      }
    }
    for (Index s = 0; s < count_sums; ++s) add(sum[s], part[s]);
  }
  for (Index s = 0; s < kept_sums; ++s) sums[s] += total(sum[s]);
}
