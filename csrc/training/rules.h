// An optimizer's settings for one parameter, and the count of its steps.
#pragma once

#include <variant>

#include "kernels/adam_settings.h"

namespace gdcore {

using UpdateSettings = std::variant<SgdUpdate, RmspropUpdate, AdamSettings>;

/// A range of θ with what its updates need.
struct ParameterUpdate {
  Index offset;
  Index size;
  UpdateSettings settings;
  bool used[kMaxState];  ///< which states there are
  double step;           ///< updates made so far, counted by all but SGD
  bool single_step;      ///< whether they are counted in float32, which ends at 2²⁴
};

/// The count after one more.
inline double next_step(double step, bool single) {
  return single ? static_cast<double>(static_cast<float>(step) + 1.0f) : step + 1.0;
}

}  // namespace gdcore
