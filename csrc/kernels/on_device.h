// Rules of updates whose learning rate or count of steps is a tensor on a device, or that a tensor there decides on:
// only the device's kernels read them.
#pragma once

#include "kernels/adam_settings.h"

namespace gdcore {

/// Settings, to be completed where they are used.
template <class Settings>
struct OnDevice {
  Settings settings;
  const void* rate;   ///< one number in place of settings.lr, or null
  bool single_rate;   ///< whether it is float32, else float64
  double step;        ///< the number of this step, for tensors that have no count on the device
  const float* skip;  ///< one number, unless which is 0 there is no step; or null

  bool operator==(const OnDevice&) const = default;

  GDCORE_HOST_DEVICE Settings read() const {
    Settings found = settings;
    if (rate != nullptr) found.lr = single_rate ? *static_cast<const float*>(rate) : *static_cast<const double*>(rate);
    return found;
  }
};

/// What the kernels take: for a tensor whose steps before this one are in `count`, or null.
GDCORE_HOST_DEVICE inline SgdUpdate complete(const OnDevice<SgdUpdate>& rule, const float*) { return rule.read(); }
GDCORE_HOST_DEVICE inline RmspropUpdate complete(const OnDevice<RmspropUpdate>& rule, const float*) {
  return rule.read();
}
GDCORE_HOST_DEVICE inline AdamUpdate complete(const OnDevice<AdamSettings>& rule, const float* count) {
  return rule.read().rule(count != nullptr ? static_cast<double>(*count + 1.0f) : rule.step);
}

}  // namespace gdcore
