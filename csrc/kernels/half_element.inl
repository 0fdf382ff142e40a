// One element of a half type: a float when it is read, rounded to the nearest even when it is written.
//
// For every instruction set and for CUDA: only arithmetic on bits. A NaN stays one, quiet.

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
