// One tensor's update, on the CPU or on a device.
#pragma once

#include "kernels/updates.h"

namespace gdcore {

/// `rule` is what the kernel wants, and outlives the job.
struct UpdateJob {
  UpdateKernel kernel;  ///< of the CPU
  const void* rule;
  Slots slots;
  Index size;
  Storage storage;
  bool on_device = false;  ///< whether the rule is an OnDevice, which only the device completes
  float* count = nullptr;  ///< steps made, where a device counts them
};

}  // namespace gdcore
