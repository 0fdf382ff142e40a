// The optimizers' updates: what each computes, for which dtypes, on which memory.
//
// An update is elementwise: one pass over a parameter, its gradient and its state, which must not overlap (but for
// parameters that share all of it, which are then updated in turn). Half types are read as float32, computed in float32
// and rounded once, to the nearest even, when they are written; a step goes on with what it has not rounded yet.
#pragma once

#include <cstdint>

#include "kernels/kernels.h"

#if defined(__CUDACC__)
#define GDCORE_HOST_DEVICE __host__ __device__
#else
#define GDCORE_HOST_DEVICE
#endif

namespace gdcore {

/// Storage without arithmetic: the upper half of a float32, and IEEE's binary16.
struct BFloat16 {
  std::uint16_t bits;
};
struct Float16 {
  std::uint16_t bits;
};

/// What a dtype's values are computed in.
template <class S>
struct ArithmeticOf {
  using Type = S;
};
template <>
struct ArithmeticOf<BFloat16> {
  using Type = float;
};
template <>
struct ArithmeticOf<Float16> {
  using Type = float;
};
template <class S>
using Arithmetic = typename ArithmeticOf<S>::Type;

inline constexpr int kMaxState = 3;

/// A parameter's memory: as many elements of one dtype in each. A state that the settings do not need is null.
struct Slots {
  void* parameter;
  const void* grad;
  void* state[kMaxState];
};

/// `torch.nn.utils.clip_grad_norm_` multiplies gradients by this where it is below 1 (or not a number).
GDCORE_HOST_DEVICE inline double clip_coefficient(double norm, double max_norm) { return max_norm / (norm + 1e-6); }

/// The update of `torch.optim.SGD`, with the state momentum_buffer (b):
///   g ← ±grad + weight_decay · p;  b ← momentum · b + (1 − dampening) · g  (b ← g where it is fresh);
///   g ← g + momentum · b (Nesterov) or b;  p ← p − lr · g.
struct SgdUpdate {
  double lr;
  double momentum;
  double one_minus_dampening;
  double weight_decay;
  bool nesterov;
  bool maximize;
  bool fresh;

  bool operator==(const SgdUpdate&) const = default;
};

/// The update of `torch.optim.RMSprop`, with the state square_avg (v), momentum_buffer (b), grad_avg (a):
///   g ← ±grad + weight_decay · p;  v ← alpha · v + (1 − alpha) g²;  a ← a + (1 − alpha) (g − a);
///   d ← √v + eps, or √(v − a²) + eps (centered);
///   b ← momentum · b + g / d;  p ← p − lr · b, or without momentum p ← p − lr · g / d.
struct RmspropUpdate {
  double lr;
  double alpha;
  double eps;
  double weight_decay;
  double momentum;
  bool maximize;

  bool operator==(const RmspropUpdate&) const = default;
};

/// The update of `torch.optim.Adam` and `AdamW`, with the state exp_avg (m), exp_avg_sq (v), max_exp_avg_sq (w):
///   p ← decay · p (decay is 1 unless decoupled);  g ← ±grad + weight_decay · p;
///   m ← m + (1 − beta1) (g − m);  v ← beta2 · v + (1 − beta2) g²;  w ← max(w, v) (amsgrad);
///   p ← p − step_size · m / (√(w or v) / root_correction + eps),
/// step_size = lr / (1 − beta1^t), root_correction = √(1 − beta2^t).
struct AdamUpdate {
  double step_size;
  double beta1;
  double beta2;
  double root_correction;
  double eps;
  double weight_decay;
  double decay;
  bool maximize;

  bool operator==(const AdamUpdate&) const = default;
};

/// Elements [begin, end); `rule` points to the struct of the kernel's own optimizer.
using UpdateKernel = void (*)(const void* rule, const Slots& slots, Index begin, Index end) noexcept;

/// The updates of one instruction set for one dtype.
struct Updates {
  UpdateKernel sgd;
  UpdateKernel rmsprop;
  UpdateKernel adam;
};

/// The dtypes of parameters, and their place in the table of updates.
enum class Storage : std::uint8_t { kFloat32, kFloat64, kBFloat16, kFloat16 };
inline constexpr int kStorages = 4;

constexpr Index bytes_of(Storage storage) noexcept {
  return storage == Storage::kFloat64 ? 8 : storage == Storage::kFloat32 ? 4 : 2;
}

/// One entry for each `Storage`.
extern const Updates kBaselineUpdates[kStorages];
#if defined(__x86_64__)
extern const Updates kAvx2Updates[kStorages];
extern const Updates kAvx512Updates[kStorages];
#endif

}  // namespace gdcore
