// Half types at the edge of memory: floats when they are loaded, rounded to the nearest even when they are stored.
//
// float16 is converted by instructions where there are any (F16C, AVX-512, Arm), else by the same function of the bits.
// A NaN stays one, quiet.

template <class S>
GDCORE_INLINE S load_element(const S* from) {
  return *from;
}
template <class S>
GDCORE_INLINE void store_element(S* to, S value) {
  *to = value;
}

GDCORE_INLINE float load_element(const BFloat16* from) {
  return __builtin_bit_cast(float, static_cast<std::uint32_t>(from->bits) << 16);
}

GDCORE_INLINE void store_element(BFloat16* to, float value) {
  const auto bits = __builtin_bit_cast(std::uint32_t, value);
  const std::uint32_t rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
  to->bits = static_cast<std::uint16_t>(value != value ? 0x7fc0u : rounded);
}

GDCORE_INLINE float load_element(const Float16* from) {
  const std::uint32_t sign = static_cast<std::uint32_t>(from->bits & 0x8000) << 16;
  const std::uint32_t magnitude = from->bits & 0x7fffu;
  if (magnitude >= 0x7c00u) {  // infinite, or NaN
    const std::uint32_t quiet = magnitude > 0x7c00u ? 0x00400000u : 0u;
    return __builtin_bit_cast(float, sign | 0x7f800000u | magnitude << 13 | quiet);
  }
  if (magnitude < 0x0400u) {  // subnormal: a multiple of 2⁻²⁴
    const float value = static_cast<float>(static_cast<std::int32_t>(magnitude)) * 0x1p-24f;
    return __builtin_bit_cast(float, sign | __builtin_bit_cast(std::uint32_t, value));
  }
  return __builtin_bit_cast(float, sign | ((magnitude << 13) + (112u << 23)));
}

GDCORE_INLINE void store_element(Float16* to, float value) {
  const auto bits = __builtin_bit_cast(std::uint32_t, value);
  const std::uint32_t sign = bits >> 16 & 0x8000u;
  const std::uint32_t magnitude = bits & 0x7fffffffu;
  std::uint32_t half;
  if (magnitude > 0x7f800000u) {
    half = 0x7e00u | (magnitude >> 13 & 0x3ffu);
  } else if (magnitude >= 0x477ff000u) {  // from 65 520 on
    half = 0x7c00u;
  } else if (magnitude >= 0x38800000u) {  // from 2⁻¹⁴ on: normal
    half = (magnitude - (112u << 23) + 0xfffu + (magnitude >> 13 & 1u)) >> 13;
  } else {  // the sum's last place is 2⁻²⁴, float16's smallest
    const float sum = __builtin_bit_cast(float, magnitude) + 0.5f;
    half = __builtin_bit_cast(std::uint32_t, sum) - __builtin_bit_cast(std::uint32_t, 0.5f);
  }
  to->bits = static_cast<std::uint16_t>(sign | half);
}

// ---- packs ----

// GCC's vectors of 16 and 32 bits, as many as floats in a register.
typedef std::uint16_t Halves __attribute__((vector_size(kRegisterBytes / 2)));
typedef std::uint32_t Words __attribute__((vector_size(kRegisterBytes)));

GDCORE_INLINE Pack<float> load(const BFloat16* from) {
  Pack<float> p;
  for (int i = 0; i < kRegisters; ++i) {
    Halves halves;
    __builtin_memcpy(&halves, from + i * Pack<float>::kPerRegister, sizeof(halves));
    p.r[i] = reinterpret_cast<Vector<float>::Native>(__builtin_convertvector(halves, Words) << 16);
  }
  return p;
}

GDCORE_INLINE void store(BFloat16* to, const Pack<float>& p) {
  for (int i = 0; i < kRegisters; ++i) {
    const Words bits = reinterpret_cast<Words>(p.r[i]);
    const Words rounded = (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
    const Words unordered = reinterpret_cast<Words>(p.r[i] != p.r[i]);
    const Halves halves = __builtin_convertvector((unordered & 0x7fc0u) | (~unordered & rounded), Halves);
    __builtin_memcpy(to + i * Pack<float>::kPerRegister, &halves, sizeof(halves));
  }
}

GDCORE_INLINE Pack<float> load(const Float16* from) {
  Pack<float> p;
  for (int i = 0; i < kRegisters; ++i) {
    const Float16* const at = from + i * Pack<float>::kPerRegister;
#if defined(__AVX512F__)
    p.r[i] = _mm512_maskz_cvtph_ps(0xffff, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(at)));
#elif defined(__F16C__)
    p.r[i] = _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(at)));
#else
    for (int lane = 0; lane < Pack<float>::kPerRegister; ++lane) p.r[i][lane] = load_element(at + lane);
#endif
  }
  return p;
}

GDCORE_INLINE void store(Float16* to, const Pack<float>& p) {
  for (int i = 0; i < kRegisters; ++i) {
    Float16* const at = to + i * Pack<float>::kPerRegister;
#if defined(__AVX512F__)
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(at),
                        _mm512_maskz_cvtps_ph(0xffff, p.r[i], _MM_FROUND_TO_NEAREST_INT));
#elif defined(__F16C__)
    _mm_storeu_si128(reinterpret_cast<__m128i*>(at), _mm256_cvtps_ph(p.r[i], _MM_FROUND_TO_NEAREST_INT));
#else
    for (int lane = 0; lane < Pack<float>::kPerRegister; ++lane) store_element(at + lane, p.r[i][lane]);
#endif
  }
}
