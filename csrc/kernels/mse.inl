// mse: r = input − target; Σ w r², and on request every w r² and gradient_factor · w r, with w = 1 without weights.
//
// Elementwise over a rows × columns view, lanes over elements numbered row by row. One pass; what is written is
// contiguous and overlaps nothing that is read.

/// `count` elements of the view from number `index` on, zeros beyond.
template <class T>
GDCORE_INLINE const T* elements(const Matrix<const T>& m, Index columns, Index index, Index count, T* buffer) {
  if (m.column == 1 && m.row == columns && count == kLanes<T>) return m.data + index;
  Index i = index / columns;
  Index j = index % columns;
  for (Index l = 0; l < count; ++l) {
    buffer[l] = m.data[i * m.row + j * m.column];
    if (++j == columns) {
      j = 0;
      ++i;
    }
  }
  for (Index l = count; l < kLanes<T>; ++l) buffer[l] = 0;
  return buffer;
}

template <class T>
static void mse(const Mse<T>& a, Index begin, Index end, double* sums) noexcept {
  constexpr Index lanes = kLanes<T>;
  alignas(kLaneBytes) T input_buffer[lanes];
  alignas(kLaneBytes) T target_buffer[lanes];
  alignas(kLaneBytes) T weight_buffer[lanes];
  const Pack<T> factor = broadcast(a.gradient_factor);
  Sum<T> sum = {};

  for (Index index = begin; index < end;) {
    const Index run_end = index + kRun * lanes < end ? index + kRun * lanes : end;
    Pack<T> part = {};
    for (; index < run_end; index += lanes) {
      const Index count = run_end - index < lanes ? run_end - index : lanes;
      const Pack<T> r = load(elements(a.input, a.columns, index, count, input_buffer)) -
                        load(elements(a.target, a.columns, index, count, target_buffer));
      Pack<T> weighted = r;
      if (a.loss_weight.data != nullptr) {
        weighted = r * load(elements(a.loss_weight, a.columns, index, count, weight_buffer));
      }
      part = fma(weighted, r, part);
      if (a.gradient != nullptr) store_first(a.gradient + index, weighted * factor, count);
      if (a.losses != nullptr) store_first(a.losses + index, weighted * r, count);
    }
    add(sum, part);
  }
  sums[0] += total(sum);
}
