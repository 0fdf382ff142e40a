// The launches of csrc/cuda on the host, for ctypes: see emulator.py beside this.
#include <dlpack/dlpack.h>

#include <cmath>
#include <cstdio>
#include <cstring>
#include <exception>
#include <utility>

#include "cuda/arguments.h"
#include "queue.h"
#include "training/device_updates.h"

namespace gdcore::cuda {
namespace {

/// A tensor of at most two dimensions; `flat` where its elements lie in order without gaps.
struct Tensor {
  void* data;
  Index rows;
  Index columns;
  Index row;
  Index column;
  int flat;
};

View elements_view(const Tensor& t) {
  if (t.data == nullptr) return {};
  if (t.flat) return flat_view(t.data, t.rows * t.columns);
  return {t.data, t.row, t.column, t.columns, false, false};
}

int launches_made = 0;

template <class Launch>
int launched(Storage storage, bool backwards, const Launch& launch) {
  emulated::Queue queue = {backwards};
  try {
    switch (storage) {
      case Storage::kFloat32:
        launch(Launches<float, emulated::Queue>(), queue);
        break;
      case Storage::kFloat64:
        launch(Launches<double, emulated::Queue>(), queue);
        break;
      case Storage::kBFloat16:
        launch(Launches<BFloat16, emulated::Queue>(), queue);
        break;
      case Storage::kFloat16:
        launch(Launches<Float16, emulated::Queue>(), queue);
        break;
    }
  } catch (const std::exception& error) {
    std::fprintf(stderr, "%s\n", error.what());
    return 1;
  }
  launches_made += queue.launches;
  return 0;
}

/// What lies behind a rule's last member, a flag, is as the memory was before: other bytes in each.
template <class Rule>
void spoil_padding(Rule& rule, const bool& last, int byte) {
  const auto used = static_cast<std::size_t>(reinterpret_cast<const char*>(&last + 1) - reinterpret_cast<char*>(&rule));
  std::memset(reinterpret_cast<char*>(&rule) + used, byte, sizeof(Rule) - used);
}

/// Memory as the caller has it to give: all NaN, and exactly as long as is asked for.
std::vector<double> scratch_memory(Index size) {
  return std::vector<double>(static_cast<std::size_t>(size), std::numeric_limits<double>::quiet_NaN());
}

Problem problem_of(int model, Storage storage, const Tensor* data, void* const* theta, const Index* sizes, int tensors,
                   int mean, void* dx, Index* const* index = nullptr) {
  Problem p = {};
  p.model = static_cast<Model>(model);
  p.rows = data[0].rows;
  p.columns = p.outputs = 1;
  p.mean = mean != 0;
  p.dx = dx;
  for (int i = 0; i < tensors; ++i) {
    p.theta[i] = theta[i];
    p.parameters += sizes[i];
  }
  if (p.model == Model::kLinear) {
    p.columns = data[0].columns;
    p.outputs = data[1].columns;
    p.bias = tensors > 1;
  }
  if (p.model == Model::kIndexed) {
    p.columns = data[0].columns;
    p.outputs = data[1].columns;
    p.places = {index[0], index[1], index[2], p.outputs * p.columns};
  }
  const bool points = p.columns == 1 && p.outputs == 1 && dx == nullptr;
  const auto looked = [&](const Tensor& t) {
    if (t.columns == 0 || points) return elements_view(t);
    return matrix_view(t.data, storage, t.rows, t.columns, t.row, t.column);
  };
  p.x = looked(data[0]);
  p.target = looked(data[1]);
  p.loss_weight = looked(data[2]);
  return p;
}

/// gdcore._core, told that tensors of any dimension are on CUDA (their counters have none), steps them here; those of
/// two dimensions are on a second device.
DLPackExchangeAPI pretending;
decltype(DLPackExchangeAPI::dltensor_from_py_object_no_sync) look_at_host;
bool pretended_launches_fail = false;
bool pretended_capture = false;

int look_as_on_device(void* object, DLTensor* view) {
  const int failed = look_at_host(object, view);
  if (failed == 0 && view->ndim > 0) view->device = {kDLCUDA, view->ndim == 2 ? 1 : 0};
  return failed;
}

template <class S>
void update(Launches<S, emulated::Queue>, emulated::Queue& queue, int kind, const std::vector<UpdateJob>& jobs) {
  Launches<S, emulated::Queue>::update(queue, static_cast<Kind>(kind), jobs.data(), static_cast<Index>(jobs.size()));
}

void pretended_update(int kind, const std::vector<UpdateJob>& jobs, int) {
  if (pretended_launches_fail) throw std::runtime_error("a launch that failed");
  launched(jobs.front().storage, false, [&](auto launches, auto& queue) { update(launches, queue, kind, jobs); });
}

constexpr DeviceUpdates kPretendedUpdates = {&pretended_update, [](int) { return pretended_capture; }};

}  // namespace
}  // namespace gdcore::cuda

using namespace gdcore;
using namespace gdcore::cuda;

extern "C" {

const void* pretended_exchange(const void* of_torch) {
  pretending = *static_cast<const DLPackExchangeAPI*>(of_torch);
  look_at_host = pretending.dltensor_from_py_object_no_sync;
  pretending.dltensor_from_py_object_no_sync = &look_as_on_device;
  return &pretending;
}

const void* pretended_updates() { return &kPretendedUpdates; }

void pretend_failure(int fails) { pretended_launches_fail = fails != 0; }

void pretend_capture(int captures) { pretended_capture = captures != 0; }

/// Since the last call of this.
int count_launches() { return std::exchange(launches_made, 0); }

int emulate_mse(int storage, int backwards, const Tensor* data, int mean, void* loss, void* losses, void* gradient) {
  const auto kind = static_cast<Storage>(storage);
  const MseProblem p = {data[0].rows * data[0].columns,
                        elements_view(data[0]),
                        elements_view(data[1]),
                        elements_view(data[2]),
                        mean != 0,
                        loss,
                        losses,
                        gradient};
  std::vector<double> memory = scratch_memory(mse_scratch(kind, p.size, p.mean && p.loss_weight.data != nullptr));
  return launched(kind, backwards, [&](auto launches, auto& queue) { launches.mse(queue, p, memory.data()); });
}

int emulate_loss(int storage, int backwards, int model, const Tensor* data, void* const* theta, const Index* sizes,
                 int tensors, int mean, void* dx, void* loss, void* const* gradients) {
  const auto kind = static_cast<Storage>(storage);
  const Problem p = problem_of(model, kind, data, theta, sizes, tensors, mean, dx);
  Loop loop = {};
  lay_out(loop, tensors, sizes);
  loop.empty = p.rows == 0;
  loop.losses = loss;
  for (int i = 0; i < tensors; ++i) loop.ranges[i].gradient = gradients[i];
  std::vector<double> memory = scratch_memory(scratch(kind, p));
  return launched(kind, backwards, [&](auto launches, auto& queue) { launches.loss(queue, p, loop, memory.data()); });
}

int emulate_train(int storage, int backwards, int model, const Tensor* data, void* const* theta, const Index* sizes,
                  int tensors, Index* const* index, int mean, int kind, const double* settings, void* const* states,
                  Index first_epoch, Index epochs, int stops, void* losses, Index* status, void* previous,
                  void* records, Index record_every, double max_grad_norm, double* norms) {
  const auto stored = static_cast<Storage>(storage);
  const Problem p = problem_of(model, stored, data, theta, sizes, tensors, mean, nullptr, index);
  Loop loop = {};
  lay_out(loop, tensors, sizes);
  loop.empty = p.rows == 0;
  for (int i = 0; i < tensors; ++i) {
    const bool frozen = std::isnan(settings[i * kNumbers]);
    loop.ranges[i].settings = settings_of(frozen ? Kind::kFrozen : static_cast<Kind>(kind), settings + i * kNumbers);
    loop.ranges[i].slots.parameter = theta[i];
    for (int k = 0; k < kMaxState; ++k) loop.ranges[i].slots.state[k] = states[i * kMaxState + k];
  }
  loop.updates = true;
  loop.stops = stops != 0;
  loop.epoch = first_epoch;
  loop.epochs = epochs;
  loop.losses = losses;
  loop.status = status;
  loop.previous = previous;
  loop.records = records;
  loop.record_every = record_every;
  loop.max_grad_norm = max_grad_norm;
  loop.norms = norms;
  std::vector<double> memory = scratch_memory(scratch(stored, p));
  return launched(stored, backwards,
                  [&](auto launches, auto& queue) { launches.train(queue, p, loop, memory.data()); });
}

int emulate_scale(int storage, int backwards, const Tensor* data, const void* factor) {
  const Index size = data->rows * data->columns;
  return launched(static_cast<Storage>(storage), backwards, [&](auto launches, auto& queue) {
    launches.scale(queue, elements_view(*data), size, data->data, factor);
  });
}

int emulate_legendre_p3(int storage, int backwards, const Tensor* data, void* out) {
  const LegendreP3Problem p = {data[0].rows * data[0].columns, elements_view(data[0]), elements_view(data[1]), out};
  return launched(static_cast<Storage>(storage), backwards,
                  [&](auto launches, auto& queue) { launches.legendre_p3(queue, p); });
}

int emulate_update(int storage, int backwards, int kind, int count, void* const* slots, const Index* sizes,
                   const double* settings) {
  std::vector<Settings> parsed;
  std::vector<AdamUpdate> adam;
  std::vector<UpdateJob> jobs;
  for (int i = 0; i < count; ++i) parsed.push_back(settings_of(static_cast<Kind>(kind), settings + i * kNumbers));
  for (const Settings& s : parsed) adam.push_back(s.adam.rule(s.steps + 1));
  for (int i = 0; i < count; ++i) {
    const auto at = static_cast<std::size_t>(i);
    if (kind == 0) spoil_padding(parsed[at].sgd, parsed[at].sgd.fresh, i);
    if (kind == 1) spoil_padding(parsed[at].rmsprop, parsed[at].rmsprop.maximize, i);
    spoil_padding(adam[at], adam[at].maximize, i);
    const void* const rule = kind == 0   ? static_cast<const void*>(&parsed[at].sgd)
                             : kind == 1 ? static_cast<const void*>(&parsed[at].rmsprop)
                                         : static_cast<const void*>(&adam[at]);
    void* const* own = slots + i * (2 + kMaxState);
    jobs.push_back(
        {nullptr, rule, {own[0], own[1], {own[2], own[3], own[4]}}, sizes[i], static_cast<Storage>(storage)});
  }
  return launched(static_cast<Storage>(storage), backwards,
                  [&](auto launches, auto& queue) { update(launches, queue, kind, jobs); });
}

}  // extern "C"
