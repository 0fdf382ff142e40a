// polynomial_mse: prediction = Σₘ c[m] xᵐ by Horner's rule; gradient Σ r xᵐ from r, r x, r x², … in registers.
//
// Lanes run over points. One pass over x, target and weights; no power of x is stored.

/// The sums of a run of points [row, end): Σ w r², Σ w r xᵐ. DEGREE, or -1 where it is known only at run time.
template <class T, int DEGREE, bool WEIGHTED, int SUMS>
GDCORE_INLINE void polynomial_run(const PolynomialMse<T>& a, const T* theta, Index row, Index end,
                                  Pack<T> (&sums)[SUMS]) {
  const int degree = DEGREE >= 0 ? DEGREE : static_cast<int>(a.degree);
  Pack<T> part[SUMS] = {};
  const auto add_group = [&](const T* from, const T* target, const T* weight, Index count) GDCORE_INLINE_LAMBDA {
    const Pack<T> x = load(from);
    Pack<T> r = horner(x, theta, degree) - load(target);
    if (count < kLanes<T>) r = keep_first(r, count);
    Pack<T> weighted = r;
    if constexpr (WEIGHTED) weighted = r * load(weight);
    add_polynomial(part, x, r, weighted, degree);
  };
  for_point_groups<T, WEIGHTED>(a, row, end, add_group);
  for (int s = 0; s < degree + 2; ++s) sums[s] = part[s];
}

/// WEIGHTED: with weights.
template <class T, int DEGREE, bool WEIGHTED = false>
static void polynomial_mse(const PolynomialMse<T>& a, const T* theta, Index begin, Index end, double* sums) noexcept {
  constexpr Index rows = kRun * kLanes<T>;
  constexpr int most = (DEGREE >= 0 ? DEGREE : kMaxDegree) + 2;
  const int count = (DEGREE >= 0 ? DEGREE : static_cast<int>(a.degree)) + 2;
  Sum<T> sum[most] = {};
  for (Index row = begin; row < end; row += rows) {
    Pack<T> part[most];
    polynomial_run<T, DEGREE, WEIGHTED>(a, theta, row, row + rows < end ? row + rows : end, part);
    for (int s = 0; s < count; ++s) add(sum[s], part[s]);
  }
  for (int s = 0; s < count; ++s) sums[s] += total(sum[s]);
}
