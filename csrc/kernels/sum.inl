// sum: Σ of the elements of a matrix, such as a loss's weights.
//
// Lanes over elements numbered row by row, as in `mse`. One pass; nothing is written.

template <class T>
static void sum(const MatrixSum<T>& a, Index begin, Index end, double* sums) noexcept {
  constexpr Index lanes = kLanes<T>;
  alignas(kLaneBytes) T buffer[lanes];
  Sum<T> sum = {};

  for (Index index = begin; index < end;) {
    const Index run_end = index + kRun * lanes < end ? index + kRun * lanes : end;
    Pack<T> part = {};
    for (; index < run_end; index += lanes) {
      const Index count = run_end - index < lanes ? run_end - index : lanes;
      part = part + load(elements(a.values, a.columns, index, count, buffer));
    }
    add(sum, part);
  }
  sums[0] += total(sum);
}
