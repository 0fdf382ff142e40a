// Tensors of any dtype that has updates, as an optimizer's step sees them.
#pragma once

#include <vector>

#include "bindings/layout.h"
#include "bindings/tensor.h"
#include "kernels/updates.h"
#include "training/device_updates.h"
#include "training/memory.h"
#include "training/updates.h"

namespace gdcore {

/// Takes the updates of CUDA tensors from the module that has them. Without, such tensors are torch's to update.
void connect_device_updates(const py::capsule& capsule);
const DeviceUpdates* device_updates();

/// The memory of a dense tensor of floating-point numbers, on the CPU or where there are updates.
class Memory {
 public:
  /// Whether `object` is such a tensor; if not, nothing else may be asked. Sets no Python error.
  bool look(py::handle object);

  bool on_cpu() const { return view_.device.device_type == kDLCPU; }
  int device() const { return view_.device.device_id; }
  bool same_device(const Memory& other) const {
    return view_.device.device_type == other.view_.device.device_type && device() == other.device();
  }

  Storage storage() const { return storage_; }
  Index numel() const { return numel_; }
  void* data() const { return data_of(view_); }
  std::string shape() const { return shape_text(view_.shape, view_.ndim); }
  bool same_shape(const Memory& other) const { return have_same_shape(view_, other.view_); }
  bool same_strides(const Memory& other) const;
  /// Whether the elements lie in memory without gaps, in any order of the dimensions.
  bool dense() const;
  bool contiguous() const { return is_contiguous(view_); }
  /// Whether no two elements share memory.
  bool apart() const { return elements_are_apart(view_); }
  bool overlaps(const Memory& other) const { return overlap(view_, other.view_); }

  /// Copies between the elements on the CPU, in row-major order, and contiguous memory.
  void read(void* to) const;
  void write(const void* from) const;

 private:
  DLTensor view_;
  Storage storage_;
  Index numel_;
};

/// One parameter's tensors, checked, with the rule of its update.
struct SlotViews {
  Memory parameter;
  Memory grad;
  Memory state[kMaxState];
  bool used[kMaxState];
  bool on_device = false;
  float* count = nullptr;

  /// Throws what torch would (a RuntimeError) where an update cannot be right. `names` are the states'.
  void check(const char* const* names) const;
  /// Whether one device has them all; one that is no CPU updates flat memory only.
  bool together() const;
  /// Whether all can be walked as flat memory, element by element.
  bool flat() const;
  UpdateJob job(UpdateKernel kernel, const void* rule) const;
};

/// Runs all updates in their order as far as they share memory; `rules` are the kernels' own, one for each.
void run_all(const std::vector<SlotViews>& updates, const std::vector<const void*>& rules,
             UpdateKernel Updates::* kernel, int threads);

}  // namespace gdcore
