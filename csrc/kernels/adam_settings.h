// The settings of `torch.optim.Adam` and `AdamW`, and what their kernel needs of them at each step: on the CPU and on
// CUDA devices.
#pragma once

#include <cmath>

#include "kernels/updates.h"

namespace gdcore {

/// The rule depends on the count of steps.
struct AdamSettings {
  double lr;
  bool single;  ///< whether the rate is a tensor of float32, with which torch calculates in float32
  double beta1;
  double beta2;
  double eps;
  double weight_decay;
  bool decoupled;
  bool maximize;

  bool operator==(const AdamSettings&) const = default;

  /// The rule of step `step`, the first being 1.
  GDCORE_HOST_DEVICE AdamUpdate rule(double step) const {
    const auto to_single = [](double value) { return static_cast<double>(static_cast<float>(value)); };
    const double correction = 1.0 - std::pow(beta1, step);
    const double step_size = single ? to_single(lr / to_single(correction)) : lr / correction;
    double decay = 1.0;
    if (decoupled && weight_decay != 0) {
      decay = single ? to_single(1.0 - to_single(lr * to_single(weight_decay))) : 1.0 - lr * weight_decay;
    }
    const double root_correction = std::sqrt(1.0 - std::pow(beta2, step));
    return {step_size, beta1, beta2, root_correction, eps, decoupled ? 0.0 : weight_decay, decay, maximize};
  }
};

}  // namespace gdcore
