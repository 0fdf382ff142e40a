// polynomial_mse: prediction = Σₘ c[m] xᵐ by Horner's rule; gradient Σ r xᵐ from r, r x, r x², … in registers.
//
// Lanes run over points. One pass over x, target and weights; no power of x is stored.

/// DEGREE, or -1 where it is known only at run time; WEIGHTED: with weights.
template <class T, int DEGREE, bool WEIGHTED = false>
static void polynomial_mse(const PolynomialMse<T>& a, const T* theta, Index begin, Index end, double* sums) noexcept {
  constexpr int max_degree = DEGREE >= 0 ? DEGREE : kMaxDegree;
  constexpr Index lanes = kLanes<T>;
  const int degree = DEGREE >= 0 ? DEGREE : static_cast<int>(a.degree);
  alignas(kLaneBytes) T x_buffer[lanes];
  alignas(kLaneBytes) T target_buffer[lanes];
  [[maybe_unused]] alignas(kLaneBytes) T weight_buffer[lanes];
  Sum<T> sum[max_degree + 2] = {};

  for (Index row = begin; row < end;) {
    const Index run_end = row + kRun * lanes < end ? row + kRun * lanes : end;
    Pack<T> part[max_degree + 2] = {};
    for (; row < run_end; row += lanes) {
      const Index count = run_end - row < lanes ? run_end - row : lanes;
      const Pack<T> x = load(gather(a.x, row, 1, count, x_buffer));
      const Pack<T> target = load(gather(a.target, row, 1, count, target_buffer));
      Pack<T> r = horner(x, theta, degree) - target;
      if (count < lanes) r = keep_first(r, count);

      Pack<T> power = r;  // w r · x^(m − 1)
      if constexpr (WEIGHTED) power = r * load(gather(a.loss_weight, row, 1, count, weight_buffer));

      part[0] = fma(power, r, part[0]);
      part[1] = part[1] + power;
      for (int m = 1; m <= degree; ++m) {
        part[1 + m] = fma(power, x, part[1 + m]);
        power = power * x;
      }
    }
    for (int s = 0; s < degree + 2; ++s) add(sum[s], part[s]);
  }
  for (int s = 0; s < degree + 2; ++s) sums[s] += total(sum[s]);
}
