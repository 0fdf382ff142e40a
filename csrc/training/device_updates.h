// What the module for CUDA offers to the optimizers' steps of this one, which read torch's groups and state.
#pragma once

#include <vector>

#include "training/updates.h"

namespace gdcore {

/// Functions of another module; both are built together. They throw what a device says.
struct DeviceUpdates {
  /// Updates of one kind (0 SGD, 1 RMSprop, 2 Adam), one storage and one form of rule, whose tensors share no memory,
  /// on the device's current stream.
  void (*run)(int kind, const std::vector<UpdateJob>& jobs, int device);
  /// Whether that stream is being captured into a graph.
  bool (*capturing)(int device);
};

/// The name of the capsule that a pointer to them comes in, another one for each layout of what they take.
inline constexpr const char* kDeviceUpdates = "gdcore.device_updates.2";

}  // namespace gdcore
