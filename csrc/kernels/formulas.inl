// Formulas of one value V: a pack of lanes, or one element of type T. For every instruction set and for CUDA.

/// P₃(u) from u and u².
template <class V>
GDCORE_INLINE V legendre_value(const V& u, const V& square) {
  return u * fma(square, like(u, 2.5f), like(u, -1.5f));
}

/// P₃′(u) from u².
template <class V>
GDCORE_INLINE V legendre_slope(const V& square) {
  return fma(square, like(square, 7.5f), like(square, -1.5f));
}

/// What a point adds to the sums of a + b P₃(u), u = c + d x: Σ w r², Σ w r, Σ w r P₃(u), and without their factor b
/// Σ w r P₃′(u), Σ w r P₃′(u) x. `slope` is w r P₃′(u).
template <class V>
GDCORE_INLINE void add_legendre(V* sums, const V& x, const V& p3, const V& r, const V& weighted, const V& slope) {
  sums[0] = fma(weighted, r, sums[0]);
  sums[1] = sums[1] + weighted;
  sums[2] = fma(weighted, p3, sums[2]);
  sums[3] = sums[3] + slope;
  sums[4] = fma(slope, x, sums[4]);
}

/// For polynomials that have all powers up to the highest that is asked for.
struct EveryPower {
  GDCORE_INLINE_MEMBER bool operator()(int) const { return true; }
};

/// Σₘ coefficients[m] xᵐ by Horner's rule. Powers that are not there add exact zeros, whatever x is: their
/// coefficients are zeros.
template <class V, class T, class Has = EveryPower>
GDCORE_INLINE V horner(const V& x, const T* coefficients, int highest, const Has& has = {}) {
  V value = like(x, coefficients[highest]);
  GDCORE_UNROLL
  for (int m = highest - 1; m >= 0; --m) {
    value = fma(value, has(m + 1) ? x : like(x, T(0)), like(x, coefficients[m]));
  }
  return value;
}

/// What a point adds to the sums of a polynomial: Σ w r², and Σ w r xᵐ for each power that is there.
template <class V, class Has = EveryPower>
GDCORE_INLINE void add_polynomial(V* sums, const V& x, const V& r, const V& weighted, int highest,
                                  const Has& has = {}) {
  sums[0] = fma(weighted, r, sums[0]);
  sums[1] = sums[1] + weighted;
  V power = weighted;  // w r xᵐ⁻¹
  GDCORE_UNROLL
  for (int m = 1; m <= highest; ++m) {
    sums[1 + m] = has(m) ? fma(power, x, sums[1 + m]) : sums[1 + m];
    power = power * x;
  }
}
