// The arithmetic of one thread, and what a kernel may ask of its block.
//
// A kernel is a struct with an operator() over a Context, and touches CUDA through that only (and through the
// conversions of float16, elements.h, which a device has instructions for):
//   thread(), threads(), block(), blocks()   numbers of this thread and block, and how many there are
//   sync()                                   waits for the block's other threads
//   exchange(value, mask)                    the value of lane (own lane xor mask) of the warp; all lanes take part
//   shared()                                 kShared doubles that the block's threads share
// So the same source runs on a device (queue.h) and, thread by thread, on the host (tests/cuda/emulator).
#pragma once

#include "kernels/kernels.h"
#include "kernels/updates.h"

#if defined(__CUDACC__)
#define GDCORE_INLINE_MEMBER __host__ __device__ __forceinline__
#define GDCORE_KERNEL __device__ __forceinline__
#else
#define GDCORE_INLINE_MEMBER inline
#define GDCORE_KERNEL inline
#endif
#if defined(__CUDA_ARCH__)
#define GDCORE_UNROLL _Pragma("unroll")
#else  // the host's compiler, which sees formulas of both
#define GDCORE_UNROLL
#endif
#define GDCORE_INLINE static GDCORE_INLINE_MEMBER

namespace gdcore::cuda {

// Written once for all: an element is the value that a pack is elsewhere.
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
GDCORE_INLINE float square_root(float a) { return __builtin_sqrtf(a); }
GDCORE_INLINE double square_root(double a) { return __builtin_sqrt(a); }
GDCORE_INLINE float maximum(float a, float b) { return a > b || a != a ? a : b; }
GDCORE_INLINE double maximum(double a, double b) { return a > b || a != a ? a : b; }
/// Neither infinite nor NaN.
GDCORE_INLINE bool is_finite(float a) { return a - a == 0; }
GDCORE_INLINE bool is_finite(double a) { return a - a == 0; }

#include "kernels/formulas.inl"
#include "kernels/half_element.inl"
#include "kernels/update_steps.inl"

}  // namespace gdcore::cuda
