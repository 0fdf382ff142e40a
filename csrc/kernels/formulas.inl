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

/// Σₘ coefficients[m] xᵐ by Horner's rule.
template <class V, class T>
GDCORE_INLINE V horner(const V& x, const T* coefficients, int degree) {
  V value = like(x, coefficients[degree]);
  for (int m = degree - 1; m >= 0; --m) value = fma(value, x, like(x, coefficients[m]));
  return value;
}
