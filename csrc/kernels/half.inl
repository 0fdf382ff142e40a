// Packs of half types at the edge of memory: floats when they are loaded, rounded when they are stored.
//
// float16 is converted by instructions where there are any (F16C, AVX-512, Arm), else element by element.

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
