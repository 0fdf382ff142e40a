// Sixty-four bytes of lanes as the registers of the instruction set that this file is compiled for.
//
// Included inside namespace gdcore::GDCORE_ISA by one source file per instruction set, so that no inline function
// compiled with wide instructions can be merged by the linker with one that must run everywhere.

inline constexpr int kRegisterBytes =
#if defined(__AVX512F__)
    64;
#elif defined(__AVX2__)
    32;
#else
    16;
#endif
inline constexpr int kRegisters = kLaneBytes / kRegisterBytes;

#define GDCORE_INLINE static inline __attribute__((always_inline))
#define GDCORE_INLINE_MEMBER inline __attribute__((always_inline))
#define GDCORE_INLINE_LAMBDA __attribute__((always_inline))
#define GDCORE_UNROLL  // a matter of this compiler's own flags

template <class T>
struct Vector;
template <>
struct Vector<float> {
  typedef float Native __attribute__((vector_size(kRegisterBytes)));
  typedef float Unaligned __attribute__((vector_size(kRegisterBytes), aligned(4), may_alias));
  typedef std::int32_t Bits __attribute__((vector_size(kRegisterBytes)));
};
template <>
struct Vector<double> {
  typedef double Native __attribute__((vector_size(kRegisterBytes)));
  typedef double Unaligned __attribute__((vector_size(kRegisterBytes), aligned(8), may_alias));
  typedef std::int64_t Bits __attribute__((vector_size(kRegisterBytes)));
};

/// kLanes<T> lanes of T. `total` adds the lanes of doubles as a tree: i with i + half, until one is left.
template <class T>
struct Pack {
  static constexpr int kPerRegister = kRegisterBytes / static_cast<int>(sizeof(T));
  typename Vector<T>::Native r[kRegisters];
};

// ---- one register: fused multiply-add, masked load, floats to doubles, four last sums of a tree to one ----

#if defined(__AVX512F__)
GDCORE_INLINE __m512 multiply_add(__m512 a, __m512 b, __m512 c) { return _mm512_fmadd_ps(a, b, c); }
GDCORE_INLINE __m512d multiply_add(__m512d a, __m512d b, __m512d c) { return _mm512_fmadd_pd(a, b, c); }
// Masked, as GCC 12 warns of uninitialised values inside the plain intrinsics.
GDCORE_INLINE __m512 root(__m512 v) { return _mm512_maskz_sqrt_ps(0xffff, v); }
GDCORE_INLINE __m512d root(__m512d v) { return _mm512_maskz_sqrt_pd(0xff, v); }
GDCORE_INLINE __m512 masked_load(const float* from, Vector<float>::Bits mask) {
  return _mm512_maskz_loadu_ps(_mm512_movepi32_mask(reinterpret_cast<__m512i>(mask)), from);
}
GDCORE_INLINE __m512d masked_load(const double* from, Vector<double>::Bits mask) {
  return _mm512_maskz_loadu_pd(_mm512_movepi64_mask(reinterpret_cast<__m512i>(mask)), from);
}
// Shuffles, as GCC 12 warns of uninitialised values inside the intrinsics for halves of a register.
GDCORE_INLINE __m512d widen_low(__m512 v) {
  return __builtin_convertvector(__builtin_shufflevector(v, v, 0, 1, 2, 3, 4, 5, 6, 7), __m512d);
}
GDCORE_INLINE __m512d widen_high(__m512 v) {
  return __builtin_convertvector(__builtin_shufflevector(v, v, 8, 9, 10, 11, 12, 13, 14, 15), __m512d);
}
GDCORE_INLINE double total(const Pack<double>& p) {
  const auto four =
      __builtin_shufflevector(p.r[0], p.r[0], 0, 1, 2, 3) + __builtin_shufflevector(p.r[0], p.r[0], 4, 5, 6, 7);
  const auto two = __builtin_shufflevector(four, four, 0, 1) + __builtin_shufflevector(four, four, 2, 3);
  return two[0] + two[1];
}
#elif defined(__AVX2__)
GDCORE_INLINE __m256 multiply_add(__m256 a, __m256 b, __m256 c) { return _mm256_fmadd_ps(a, b, c); }
GDCORE_INLINE __m256d multiply_add(__m256d a, __m256d b, __m256d c) { return _mm256_fmadd_pd(a, b, c); }
GDCORE_INLINE __m256 root(__m256 v) { return _mm256_sqrt_ps(v); }
GDCORE_INLINE __m256d root(__m256d v) { return _mm256_sqrt_pd(v); }
GDCORE_INLINE __m256 masked_load(const float* from, Vector<float>::Bits mask) {
  return _mm256_maskload_ps(from, reinterpret_cast<__m256i>(mask));
}
GDCORE_INLINE __m256d masked_load(const double* from, Vector<double>::Bits mask) {
  return _mm256_maskload_pd(from, reinterpret_cast<__m256i>(mask));
}
GDCORE_INLINE __m256d widen_low(__m256 v) { return _mm256_cvtps_pd(_mm256_castps256_ps128(v)); }
GDCORE_INLINE __m256d widen_high(__m256 v) { return _mm256_cvtps_pd(_mm256_extractf128_ps(v, 1)); }
GDCORE_INLINE double total(const Pack<double>& p) {
  const __m256d four = p.r[0] + p.r[1];
  const __m128d two = _mm256_castpd256_pd128(four) + _mm256_extractf128_pd(four, 1);
  return two[0] + two[1];
}
#else
typedef Vector<float>::Native Float4;
typedef Vector<double>::Native Double2;
#if defined(__aarch64__)
GDCORE_INLINE Float4 multiply_add(Float4 a, Float4 b, Float4 c) { return vfmaq_f32(c, a, b); }
GDCORE_INLINE Double2 multiply_add(Double2 a, Double2 b, Double2 c) { return vfmaq_f64(c, a, b); }
GDCORE_INLINE Float4 root(Float4 v) { return vsqrtq_f32(v); }
GDCORE_INLINE Double2 root(Double2 v) { return vsqrtq_f64(v); }
#else
// No fused multiply-add in this instruction set: the C library's, lane by lane, is slow and equal to the bit.
GDCORE_INLINE Float4 multiply_add(Float4 a, Float4 b, Float4 c) {
  return Float4{__builtin_fmaf(a[0], b[0], c[0]), __builtin_fmaf(a[1], b[1], c[1]), __builtin_fmaf(a[2], b[2], c[2]),
                __builtin_fmaf(a[3], b[3], c[3])};
}
GDCORE_INLINE Double2 multiply_add(Double2 a, Double2 b, Double2 c) {
  return Double2{__builtin_fma(a[0], b[0], c[0]), __builtin_fma(a[1], b[1], c[1])};
}
GDCORE_INLINE Float4 root(Float4 v) { return _mm_sqrt_ps(v); }
GDCORE_INLINE Double2 root(Double2 v) { return _mm_sqrt_pd(v); }
#endif
GDCORE_INLINE Float4 masked_load(const float* from, Vector<float>::Bits mask) {
  Float4 v = {};
  for (int i = 0; i < 4; ++i) v[i] = mask[i] != 0 ? from[i] : 0.0F;
  return v;
}
GDCORE_INLINE Double2 masked_load(const double* from, Vector<double>::Bits mask) {
  return Double2{mask[0] != 0 ? from[0] : 0.0, mask[1] != 0 ? from[1] : 0.0};
}
GDCORE_INLINE Double2 widen_low(Float4 v) { return Double2{v[0], v[1]}; }
GDCORE_INLINE Double2 widen_high(Float4 v) { return Double2{v[2], v[3]}; }
GDCORE_INLINE double total(const Pack<double>& p) {
  const Double2 two = (p.r[0] + p.r[2]) + (p.r[1] + p.r[3]);
  return two[0] + two[1];
}
#endif

// ---- packs ----

template <class T>
GDCORE_INLINE Pack<T> zero() {
  return Pack<T>{};
}

template <class T>
GDCORE_INLINE Pack<T> broadcast(T value) {
  Pack<T> p;
  for (int i = 0; i < kRegisters; ++i) p.r[i] = value - typename Vector<T>::Native{};
  return p;
}

template <class T>
GDCORE_INLINE Pack<T> load(const T* from) {
  Pack<T> p;
  for (int i = 0; i < kRegisters; ++i) {
    p.r[i] = *reinterpret_cast<const typename Vector<T>::Unaligned*>(from + i * Pack<T>::kPerRegister);
  }
  return p;
}

template <class T>
GDCORE_INLINE void store(T* to, const Pack<T>& p) {
  for (int i = 0; i < kRegisters; ++i) {
    *reinterpret_cast<typename Vector<T>::Unaligned*>(to + i * Pack<T>::kPerRegister) = p.r[i];
  }
}

template <class T>
GDCORE_INLINE Pack<T> fma(const Pack<T>& a, const Pack<T>& b, const Pack<T>& c) {
  Pack<T> p;
  for (int i = 0; i < kRegisters; ++i) p.r[i] = multiply_add(a.r[i], b.r[i], c.r[i]);
  return p;
}

/// A number as lanes, or as it is for one element.
template <class T, class N>
GDCORE_INLINE Pack<T> like(const Pack<T>&, N value) {
  return broadcast(static_cast<T>(value));
}
template <class N>
GDCORE_INLINE float like(float, N value) {
  return static_cast<float>(value);
}
template <class N>
GDCORE_INLINE double like(double, N value) {
  return static_cast<double>(value);
}

GDCORE_INLINE float fma(float a, float b, float c) { return __builtin_fmaf(a, b, c); }
GDCORE_INLINE double fma(double a, double b, double c) { return __builtin_fma(a, b, c); }

template <class T>
GDCORE_INLINE Pack<T> operator+(const Pack<T>& a, const Pack<T>& b) {
  Pack<T> p;
  for (int i = 0; i < kRegisters; ++i) p.r[i] = a.r[i] + b.r[i];
  return p;
}

template <class T>
GDCORE_INLINE Pack<T> operator-(const Pack<T>& a, const Pack<T>& b) {
  Pack<T> p;
  for (int i = 0; i < kRegisters; ++i) p.r[i] = a.r[i] - b.r[i];
  return p;
}

template <class T>
GDCORE_INLINE Pack<T> operator-(const Pack<T>& a) {
  Pack<T> p;
  for (int i = 0; i < kRegisters; ++i) p.r[i] = -a.r[i];
  return p;
}

template <class T>
GDCORE_INLINE Pack<T> operator*(const Pack<T>& a, const Pack<T>& b) {
  Pack<T> p;
  for (int i = 0; i < kRegisters; ++i) p.r[i] = a.r[i] * b.r[i];
  return p;
}

template <class T>
GDCORE_INLINE Pack<T> operator/(const Pack<T>& a, const Pack<T>& b) {
  Pack<T> p;
  for (int i = 0; i < kRegisters; ++i) p.r[i] = a.r[i] / b.r[i];
  return p;
}

template <class T>
GDCORE_INLINE Pack<T> square_root(const Pack<T>& a) {
  Pack<T> p;
  for (int i = 0; i < kRegisters; ++i) p.r[i] = root(a.r[i]);
  return p;
}

GDCORE_INLINE float square_root(float a) { return __builtin_sqrtf(a); }
GDCORE_INLINE double square_root(double a) { return __builtin_sqrt(a); }

/// The larger of two, and NaN where one of them is.
template <class T>
GDCORE_INLINE Pack<T> maximum(const Pack<T>& a, const Pack<T>& b) {
  Pack<T> p;
  for (int i = 0; i < kRegisters; ++i) p.r[i] = (a.r[i] > b.r[i]) | (a.r[i] != a.r[i]) ? a.r[i] : b.r[i];
  return p;
}

GDCORE_INLINE float maximum(float a, float b) { return a > b || a != a ? a : b; }
GDCORE_INLINE double maximum(double a, double b) { return a > b || a != a ? a : b; }

/// All ones in the first `count` lanes, zeros in the others.
template <class T>
struct Mask {
  typename Vector<T>::Bits r[kRegisters];
};

template <class T>
GDCORE_INLINE Mask<T> first(Index count) {
  alignas(kLaneBytes) static const std::int32_t ones[32] = {
      -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, -1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  constexpr Index words = static_cast<Index>(sizeof(T) / sizeof(std::int32_t));
  Mask<T> mask;
  for (int i = 0; i < kRegisters; ++i) {
    __builtin_memcpy(&mask.r[i], ones + (16 - count * words) + i * (kRegisterBytes / 4), kRegisterBytes);
  }
  return mask;
}

/// The first `count` lanes of p, zeros in the others, whatever they held.
template <class T>
GDCORE_INLINE Pack<T> keep_first(const Pack<T>& p, Index count) {
  typedef typename Vector<T>::Bits Bits;
  const Mask<T> mask = first<T>(count);
  Pack<T> kept;
  for (int i = 0; i < kRegisters; ++i) {
    kept.r[i] = reinterpret_cast<typename Vector<T>::Native>(reinterpret_cast<Bits>(p.r[i]) & mask.r[i]);
  }
  return kept;
}

/// The elements of the mask's lanes, and zeros; reads nothing else.
template <class T>
GDCORE_INLINE Pack<T> load_masked(const T* from, const Mask<T>& mask) {
  Pack<T> p;
  for (int i = 0; i < kRegisters; ++i) p.r[i] = masked_load(from + i * Pack<T>::kPerRegister, mask.r[i]);
  return p;
}

/// The first `count` elements and zeros; reads nothing beyond them.
template <class T>
GDCORE_INLINE Pack<T> load_first(const T* from, Index count) {
  return load_masked(from, first<T>(count));
}

/// Writes the first `count` lanes and nothing beyond them.
template <class T>
GDCORE_INLINE void store_first(T* to, const Pack<T>& p, Index count) {
  alignas(kLaneBytes) T buffer[kLanes<T>];
  store(buffer, p);
  for (Index i = 0; i < count; ++i) to[i] = buffer[i];
}

// ---- sums ----

/// Running sums of kLanes<T> lanes in double.
template <class T>
struct Sum;
template <>
struct Sum<double> {
  Pack<double> lanes[1];
};
template <>
struct Sum<float> {
  Pack<double> lanes[2];
};

GDCORE_INLINE void add(Sum<double>& sum, const Pack<double>& p) { sum.lanes[0] = sum.lanes[0] + p; }

GDCORE_INLINE void add(Sum<float>& sum, const Pack<float>& p) {
  for (int i = 0; i < kRegisters; ++i) {
    Vector<double>::Native& low = sum.lanes[2 * i / kRegisters].r[2 * i % kRegisters];
    Vector<double>::Native& high = sum.lanes[(2 * i + 1) / kRegisters].r[(2 * i + 1) % kRegisters];
    low = low + widen_low(p.r[i]);
    high = high + widen_high(p.r[i]);
  }
}

/// The first level of the tree.
GDCORE_INLINE Pack<double> fold(const Sum<double>& sum) { return sum.lanes[0]; }
GDCORE_INLINE Pack<double> fold(const Sum<float>& sum) { return sum.lanes[0] + sum.lanes[1]; }

template <class T>
GDCORE_INLINE double total(const Sum<T>& sum) {
  return total(fold(sum));
}

GDCORE_INLINE Pack<double> fold(const Pack<double>& p) { return p; }
GDCORE_INLINE Pack<double> fold(const Pack<float>& p) {
  Sum<float> sum;
  for (int i = 0; i < kRegisters; ++i) {
    sum.lanes[2 * i / kRegisters].r[2 * i % kRegisters] = widen_low(p.r[i]);
    sum.lanes[(2 * i + 1) / kRegisters].r[(2 * i + 1) % kRegisters] = widen_high(p.r[i]);
  }
  return fold(sum);
}

/// The sum of one pack's lanes, each exact in double.
template <class T>
GDCORE_INLINE double total(const Pack<T>& p) {
  return total(fold(p));
}
