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
};

}  // namespace gdcore
