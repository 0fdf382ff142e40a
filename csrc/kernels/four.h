// Four rows at a time: one lane for each, and four packs added to four sums at once. Included after simd.h.

/// Four lanes, one for each of four rows.
template <class T>
struct Vector4;
template <>
struct Vector4<float> {
  typedef float Native __attribute__((vector_size(16)));
};
template <>
struct Vector4<double> {
  typedef double Native __attribute__((vector_size(32)));
};
template <class T>
using Four = typename Vector4<T>::Native;

#if defined(__AVX2__)
GDCORE_INLINE Four<double> widen(Four<float> v) { return _mm256_cvtps_pd(v); }
GDCORE_INLINE Four<float> narrow(Four<double> v, float /*as*/) { return _mm256_cvtpd_ps(v); }
#else
GDCORE_INLINE Four<double> widen(Four<float> v) { return __builtin_convertvector(v, Four<double>); }
GDCORE_INLINE Four<float> narrow(Four<double> v, float /*as*/) { return __builtin_convertvector(v, Four<float>); }
#endif
GDCORE_INLINE Four<double> widen(Four<double> v) { return v; }
GDCORE_INLINE Four<double> narrow(Four<double> v, double /*as*/) { return v; }

/// `count` ≤ 4 elements, `stride` apart, and zeros.
template <class T>
GDCORE_INLINE Four<T> four(const T* from, Index stride, Index count) {
  if (count == 4 && stride == 1) {
    Four<T> v;
    __builtin_memcpy(&v, from, sizeof(v));
    return v;
  }
  return Four<T>{count > 0 ? from[0] : T(0), count > 1 ? from[stride] : T(0), count > 2 ? from[2 * stride] : T(0),
                 count > 3 ? from[3 * stride] : T(0)};
}

/// The lanes of p, a pack or part of one, added as a tree, i with i + half, until four are left.
template <class T, class Lanes>
GDCORE_INLINE Four<T> last_four(const Lanes& p) {
  constexpr int per_register = Pack<T>::kPerRegister;
  constexpr int registers = static_cast<int>(sizeof(p.r) / kRegisterBytes);
  typename Vector<T>::Native r[registers];
  for (int i = 0; i < registers; ++i) r[i] = p.r[i];
  int left = registers;
  for (; left > 1 && left * per_register > 4; left /= 2) {
    for (int i = 0; i < left / 2; ++i) r[i] = r[i] + r[i + left / 2];
  }
  if constexpr (per_register == 2) {
    return __builtin_shufflevector(r[0], r[1], 0, 1, 2, 3);
  } else if constexpr (per_register == 4) {
    return r[0];
  } else if constexpr (per_register == 8) {
    return __builtin_shufflevector(r[0], r[0], 0, 1, 2, 3) + __builtin_shufflevector(r[0], r[0], 4, 5, 6, 7);
  } else {
    const auto eight = __builtin_shufflevector(r[0], r[0], 0, 1, 2, 3, 4, 5, 6, 7) +
                       __builtin_shufflevector(r[0], r[0], 8, 9, 10, 11, 12, 13, 14, 15);
    return __builtin_shufflevector(eight, eight, 0, 1, 2, 3) + __builtin_shufflevector(eight, eight, 4, 5, 6, 7);
  }
}

/// The sum of the lanes of each of four packs, or parts of packs: the tree of `total`, in T.
template <class T, class Lanes>
GDCORE_INLINE Four<T> totals(const Lanes (&p)[4]) {
  const Four<T> a = last_four<T>(p[0]), b = last_four<T>(p[1]), c = last_four<T>(p[2]), d = last_four<T>(p[3]);
  const Four<T> ab = __builtin_shufflevector(a, b, 0, 1, 4, 5) + __builtin_shufflevector(a, b, 2, 3, 6, 7);
  const Four<T> cd = __builtin_shufflevector(c, d, 0, 1, 4, 5) + __builtin_shufflevector(c, d, 2, 3, 6, 7);
  return __builtin_shufflevector(ab, cd, 0, 2, 4, 6) + __builtin_shufflevector(ab, cd, 1, 3, 5, 7);
}

GDCORE_INLINE double total(const Four<double>& p) { return (p[0] + p[2]) + (p[1] + p[3]); }
