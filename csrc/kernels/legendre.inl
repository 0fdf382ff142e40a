// legendre_mse and legendre_p3. P₃(u) = u (5u² − 3)/2 and P₃′(u) = 3 (5u² − 1)/2, from one u².
//
// Lanes run over points. legendre_mse: one pass over x, target and weights. legendre_p3: elementwise, out may be grad.

inline constexpr int kLegendreSums = 5;

/// The sums of a run of points [row, end).
template <class T, bool WEIGHTED>
GDCORE_INLINE void legendre_run(const LegendreMse<T>& a, const T* theta, Index row, Index end,
                                Pack<T> (&sums)[kLegendreSums]) {
  Pack<T> part[kLegendreSums] = {};
  const auto add_group = [&](const T* from, const T* target, const T* weight, Index count) GDCORE_INLINE_LAMBDA {
    const Pack<T> x = load(from);
    const Pack<T> u = fma(broadcast(theta[3]), x, broadcast(theta[2]));
    const Pack<T> square = u * u;
    const Pack<T> p3 = legendre_value(u, square);
    Pack<T> r = fma(broadcast(theta[1]), p3, broadcast(theta[0])) - load(target);
    if (count < kLanes<T>) r = keep_first(r, count);
    Pack<T> weighted = r;  // w r
    if constexpr (WEIGHTED) weighted = r * load(weight);
    Pack<T> slope = weighted * legendre_slope(square);
    if (count < kLanes<T>) slope = keep_first(slope, count);
    add_legendre(part, x, p3, r, weighted, slope);
  };
  for_point_groups<T, WEIGHTED>(a, row, end, add_group);
  for (int s = 0; s < kLegendreSums; ++s) sums[s] = part[s];
}

template <class T, bool WEIGHTED>
static void legendre_mse(const LegendreMse<T>& a, const T* theta, Index begin, Index end, double* sums) noexcept {
  constexpr Index rows = kRun * kLanes<T>;
  Sum<T> sum[kLegendreSums] = {};
  for (Index row = begin; row < end; row += rows) {
    Pack<T> part[kLegendreSums];
    legendre_run<T, WEIGHTED>(a, theta, row, row + rows < end ? row + rows : end, part);
    for (int s = 0; s < kLegendreSums; ++s) add(sum[s], part[s]);
  }
  for (int s = 0; s < kLegendreSums; ++s) sums[s] += total(sum[s]);
}

template <class T>
static void legendre_p3(const LegendreP3<T>& a, Index begin, Index end) noexcept {
  constexpr Index lanes = kLanes<T>;
  for (Index i = begin; i < end; i += lanes) {
    const Index count = end - i < lanes ? end - i : lanes;
    const bool whole = count == lanes;
    const Pack<T> x = whole ? load(a.x + i) : load_first(a.x + i, count);
    const Pack<T> square = x * x;
    Pack<T> out;
    if (a.grad == nullptr) {
      out = legendre_value(x, square);
    } else {
      out = (whole ? load(a.grad + i) : load_first(a.grad + i, count)) * legendre_slope(square);
    }
    if (whole) {
      store(a.out + i, out);
    } else {
      store_first(a.out + i, out, count);
    }
  }
}
