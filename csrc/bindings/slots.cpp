#include "bindings/slots.h"

#include <cstring>
#include <stdexcept>
#include <utility>

#include "kernels/instruction_sets.h"

namespace gdcore {

namespace {

// Calls copy(a pointer of the elements' size).
template <class Copy>
void by_size(Storage storage, const Copy& copy) {
  switch (bytes_of(storage)) {
    case 2:
      return copy(static_cast<std::uint16_t*>(nullptr));
    case 4:
      return copy(static_cast<std::uint32_t*>(nullptr));
    default:
      return copy(static_cast<std::uint64_t*>(nullptr));
  }
}

bool storage_of(const DLDataType& dtype, Storage& storage) {
  if (dtype.lanes != 1) return false;
  if (dtype.code == kDLBfloat && dtype.bits == 16) {
    storage = Storage::kBFloat16;
  } else if (dtype.code == kDLFloat && dtype.bits == 16) {
    storage = Storage::kFloat16;
  } else if (dtype.code == kDLFloat && dtype.bits == 32) {
    storage = Storage::kFloat32;
  } else if (dtype.code == kDLFloat && dtype.bits == 64) {
    storage = Storage::kFloat64;
  } else {
    return false;
  }
  return true;
}

[[noreturn]] void refuse(const char* name, const std::string& expected, const std::string& got) {
  throw std::runtime_error(std::string(name) + ": expected " + expected + ", got " + got);
}

void expect_apart(const Memory& written, const char* name, const Memory& other, const char* other_name) {
  if (written.overlaps(other)) {
    refuse(name, std::string("memory apart from ") + other_name + "'s, as it is written", "memory that overlaps");
  }
}

void expect_no_overlap(const Memory& written, const char* name) {
  if (!written.apart()) {
    refuse(name, "a tensor whose elements do not overlap, as it is written", "strides that do");
  }
}

const DeviceUpdates* connected = nullptr;

}  // namespace

void connect_device_updates(const py::capsule& capsule) {
  if (std::strcmp(capsule.name(), kDeviceUpdates) != 0) throw py::import_error("expected updates of CUDA tensors");
  connected = capsule.get_pointer<const DeviceUpdates>();
}

const DeviceUpdates* device_updates() { return connected; }

bool Memory::look(py::handle object) {
  if (!view_without_error(object, &view_)) return false;
  if (!on_cpu() && (view_.device.device_type != kDLCUDA || connected == nullptr)) return false;
  numel_ = numel_of(view_);
  return storage_of(view_.dtype, storage_) && (view_.data != nullptr || numel_ == 0);
}

bool Memory::same_strides(const Memory& other) const {
  for (int axis = 0; axis < view_.ndim; ++axis) {
    if (view_.shape[axis] > 1 && view_.strides[axis] != other.view_.strides[axis]) return false;
  }
  return true;
}

bool Memory::dense() const {
  Index reach = 1;
  for (int axis = 0; axis < view_.ndim; ++axis) reach += (view_.shape[axis] - 1) * view_.strides[axis];
  return numel_ == 0 || reach == numel_;
}

void Memory::read(void* to) const {
  by_size(storage_, [&]<class T>(T*) {
    T* out = static_cast<T*>(to);
    const T* from = static_cast<const T*>(data());
    for_each_offset(view_, [&](Index offset) { *out++ = from[offset]; });
  });
}

void Memory::write(const void* from) const {
  by_size(storage_, [&]<class T>(T*) {
    const T* in = static_cast<const T*>(from);
    T* to = static_cast<T*>(data());
    for_each_offset(view_, [&](Index offset) { to[offset] = *in++; });
  });
}

void SlotViews::check(const char* const* names) const {
  if (!grad.same_shape(parameter)) refuse("grad", "shape " + parameter.shape() + " as its parameter", grad.shape());
  expect_no_overlap(parameter, "parameter");
  expect_apart(parameter, "parameter", grad, "grad");
  for (int i = 0; i < kMaxState; ++i) {
    if (!used[i]) continue;
    if (!state[i].same_shape(parameter)) {
      refuse(names[i], "shape " + parameter.shape() + " as its parameter", state[i].shape());
    }
    expect_no_overlap(state[i], names[i]);
    expect_apart(state[i], names[i], parameter, "parameter");
    expect_apart(state[i], names[i], grad, "grad");
    for (int j = 0; j < i; ++j) {
      if (used[j]) expect_apart(state[i], names[i], state[j], names[j]);
    }
  }
}

bool SlotViews::together() const {
  bool same = parameter.same_device(grad);
  for (int i = 0; i < kMaxState; ++i) same = same && (!used[i] || parameter.same_device(state[i]));
  return same && (parameter.on_cpu() || flat());
}

bool SlotViews::flat() const {
  if (!parameter.dense() || !parameter.same_strides(grad)) return false;
  for (int i = 0; i < kMaxState; ++i) {
    if (used[i] && !parameter.same_strides(state[i])) return false;
  }
  return true;
}

UpdateJob SlotViews::job(UpdateKernel kernel, const void* rule) const {
  UpdateJob job = {kernel, rule, {parameter.data(), grad.data(), {}}, parameter.numel(), parameter.storage()};
  for (int i = 0; i < kMaxState; ++i) job.slots.state[i] = used[i] ? state[i].data() : nullptr;
  job.on_device = on_device;
  job.count = count;
  return job;
}

namespace {

// One update on contiguous copies.
void run_copied(const SlotViews& update, UpdateJob job, int threads) {
  const Index bytes = (job.size * bytes_of(job.storage) + kLaneBytes - 1) / kLaneBytes * kLaneBytes;
  const Array<char> memory = allocate<char>(bytes * (2 + kMaxState));
  char* const parameter = memory.get();
  char* const grad = parameter + bytes;
  const auto state = [&](int i) { return grad + bytes * (1 + i); };
  update.parameter.read(parameter);
  update.grad.read(grad);
  job.slots.parameter = parameter;
  job.slots.grad = grad;
  for (int i = 0; i < kMaxState; ++i) {
    if (!update.used[i]) continue;
    update.state[i].read(state(i));
    job.slots.state[i] = state(i);
  }
  run_updates({job}, threads);
  update.parameter.write(parameter);
  for (int i = 0; i < kMaxState; ++i) {
    if (update.used[i]) update.state[i].write(state(i));
  }
}

}  // namespace

namespace {

// One call for all of one storage and form of rule on one device, however they lie among the others; one for each where
// they share memory, in their order.
void run_on_devices(const std::vector<UpdateJob>& jobs, const std::vector<int>& devices,
                    UpdateKernel Updates::* kernel) {
  const int kind = kernel == &Updates::sgd ? 0 : kernel == &Updates::rmsprop ? 1 : 2;
  const bool shared = share_memory(jobs);
  std::vector<bool> taken(jobs.size());
  for (std::size_t first = 0; first < jobs.size(); ++first) {
    if (taken[first]) continue;
    std::vector<UpdateJob> batch = {jobs[first]};
    for (std::size_t i = first + 1; !shared && i < jobs.size(); ++i) {
      const bool alike = jobs[i].storage == jobs[first].storage && jobs[i].on_device == jobs[first].on_device;
      if (taken[i] || !alike || devices[i] != devices[first]) continue;
      batch.push_back(jobs[i]);
      taken[i] = true;
    }
    connected->run(kind, batch, devices[first]);
  }
}

}  // namespace

void run_all(const std::vector<SlotViews>& updates, const std::vector<const void*>& rules,
             UpdateKernel Updates::* kernel, int threads) {
  std::vector<UpdateJob> flat, elsewhere;
  std::vector<int> devices;
  flat.reserve(updates.size());
  for (std::size_t i = 0; i < updates.size(); ++i) {
    const UpdateJob job = updates[i].job(gdcore::updates(updates[i].parameter.storage()).*kernel, rules[i]);
    if (!updates[i].parameter.on_cpu()) {
      elsewhere.push_back(job);
      devices.push_back(updates[i].parameter.device());
      continue;
    }
    if (updates[i].flat()) {
      flat.push_back(job);
      continue;
    }
    run_updates(flat, threads);  // what comes before may share memory with this one
    flat.clear();
    run_copied(updates[i], job, threads);
  }
  run_updates(flat, threads);
  run_on_devices(elsewhere, devices, kernel);
}

}  // namespace gdcore
