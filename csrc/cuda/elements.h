// Tensors as kernels read them: elements in order, sixteen bytes at a time where they lie so.
#pragma once

#include "cuda/context.h"

namespace gdcore::cuda {

/// Elements of sixteen bytes: what one load brings.
template <class S>
inline constexpr int kVector = 16 / static_cast<int>(sizeof(S));

/// Element (i, j) is data[i * row + j * column]; they are numbered row by row.
struct View {
  const void* data;
  Index row;
  Index column;
  Index columns;
  bool contiguous;
  bool aligned;  ///< contiguous rows that each begin at a multiple of sixteen bytes
};

struct alignas(16) Sixteen {
  std::uint32_t words[4];
};

template <class S>
GDCORE_KERNEL Arithmetic<S> read(const S* from) {
#if defined(__CUDA_ARCH__)
  if constexpr (__is_same(S, Float16)) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(from->bits));
    return value;
  }
#endif
  return load_element(from);
}

template <class S>
GDCORE_KERNEL void write(S* to, Arithmetic<S> value) {
#if defined(__CUDA_ARCH__)
  if constexpr (__is_same(S, Float16)) {
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(to->bits) : "f"(value));
    return;
  }
#endif
  store_element(to, value);
}

/// kVector elements from an address that is a multiple of sixteen bytes.
template <class S>
GDCORE_KERNEL void read_vector(const S* from, Arithmetic<S>* values) {
  const Sixteen raw = *reinterpret_cast<const Sixteen*>(from);
  S lanes[kVector<S>];
  __builtin_memcpy(lanes, &raw, sizeof(raw));
  GDCORE_UNROLL
  for (int v = 0; v < kVector<S>; ++v) values[v] = read(lanes + v);
}

template <class S>
GDCORE_KERNEL void write_vector(S* to, const Arithmetic<S>* values) {
  S lanes[kVector<S>];
  GDCORE_UNROLL
  for (int v = 0; v < kVector<S>; ++v) write(lanes + v, values[v]);
  Sixteen raw;
  __builtin_memcpy(&raw, lanes, sizeof(raw));
  *reinterpret_cast<Sixteen*>(to) = raw;
}

/// Element (i, j) of a matrix with strides.
template <class S>
GDCORE_KERNEL Arithmetic<S> cell(const View& view, Index i, Index j) {
  return read(static_cast<const S*>(view.data) + i * view.row + j * view.column);
}

/// Elements [i, i + kVector), zeros from `end` on; i is a multiple of kVector.
template <class S>
GDCORE_KERNEL void elements(const View& view, Index i, Index end, Arithmetic<S>* values) {
  if (view.contiguous && view.aligned && i + kVector<S> <= end) {
    return read_vector(static_cast<const S*>(view.data) + i, values);
  }
  const S* const data = static_cast<const S*>(view.data);
  Index row = view.contiguous ? 0 : i / view.columns, column = view.contiguous ? i : i - row * view.columns;
  GDCORE_UNROLL
  for (int v = 0; v < kVector<S>; ++v) {
    const Index at = view.contiguous ? column : row * view.row + column * view.column;
    values[v] = i + v < end ? read(data + at) : Arithmetic<S>(0);
    column += 1;
    if (!view.contiguous && column == view.columns) {
      column = 0;
      row += 1;
    }
  }
}

/// The same of a result, which is contiguous and aligned.
template <class S>
GDCORE_KERNEL void write_elements(void* to, Index i, Index end, const Arithmetic<S>* values) {
  S* const data = static_cast<S*>(to);
  if (i + kVector<S> <= end) return write_vector(data + i, values);
  GDCORE_UNROLL
  for (int v = 0; v < kVector<S>; ++v) {
    if (i + v < end) write(data + i + v, values[v]);
  }
}

/// The same of what was computed for kVector<S> elements, as it is.
template <class S>
GDCORE_KERNEL void write_arithmetic(void* to, Index i, Index end, const Arithmetic<S>* values) {
  constexpr int vector = kVector<Arithmetic<S>>;
  GDCORE_UNROLL
  for (int v = 0; v < kVector<S>; v += vector) {
    if (i + v < end) write_elements<Arithmetic<S>>(to, i + v, end, values + v);
  }
}

}  // namespace gdcore::cuda
