// The extension module gdcore._cuda: losses, loops and updates on CUDA tensors.
//
// gdcore's own Python (`cuda_ops.py`) has checked shapes, dtypes and devices. Everything is put on PyTorch's current
// stream of the tensors' device and nothing is waited for. The CUDA runtime is linked in; without a driver the module
// imports and says that there are no devices.
#include <pybind11/native_enum.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <memory>

#include "cuda/plan.h"
#include "cuda/tensors.h"
#include "training/device_updates.h"

namespace gdcore::cuda {

namespace {

/// How many devices there are, or none and why.
std::pair<int, std::string> devices() {
  int count = 0;
  const cudaError_t error = cudaGetDeviceCount(&count);
  if (error == cudaSuccess) return {count, ""};
  cudaGetLastError();  // it is no later call's
  return {0, cudaGetErrorString(error)};
}

/// Makes a device current while it lives, by torch's own calls. cudaSetDevice makes a context on the device that it
/// names; where the one before has none, torch remembers it without, and the memory of a context is not spent.
class DeviceGuard {
 public:
  explicit DeviceGuard(int device) {
    int current = 0;
    check(cudaGetDevice(&current), "current device");
    if (current == device) return;
    const py::gil_scoped_acquire acquire;
    before_ = exchange("_exchange_device", device);
  }
  ~DeviceGuard() {
    if (before_ == kUnchanged) return;
    const py::gil_scoped_acquire acquire;
    try {
      exchange("_maybe_exchange_device", before_);
    } catch (py::error_already_set& error) {
      error.discard_as_unraisable("gdcore._cuda: the current device");
    }
  }
  DeviceGuard(const DeviceGuard&) = delete;
  DeviceGuard& operator=(const DeviceGuard&) = delete;

 private:
  static constexpr int kUnchanged = -1;

  static int exchange(const char* name, int device) {
    return py::module_::import("torch.cuda").attr(name)(device).cast<int>();
  }

  int before_ = kUnchanged;
};

/// Calls launch(Launches for this storage, stream) on the tensor's device and its current stream.
template <class Launch>
void on_stream(Storage storage, int device, const Launch& launch) {
  const DeviceGuard guard(device);
  Stream stream = current_stream(device);
  switch (storage) {
    case Storage::kFloat32:
      return launch(Launches<float, Stream>(), stream);
    case Storage::kFloat64:
      return launch(Launches<double, Stream>(), stream);
    case Storage::kBFloat16:
      return launch(Launches<BFloat16, Stream>(), stream);
    case Storage::kFloat16:
      return launch(Launches<Float16, Stream>(), stream);
  }
}

void mse(const py::object& input, const py::object& target, const MaybeTensor& weight, bool mean,
         const MaybeTensor& loss, const MaybeTensor& losses, const MaybeTensor& gradient, const py::object& scratch) {
  const DLTensor view = look(input);
  const Storage storage = storage_of(view);
  const MseProblem problem = {
      numel_of(view), elements_view(input), elements_view(target), elements_view(weight),
      mean,           data(loss),           data(losses),          gradient_data(gradient, storage)};
  double* const memory = scratch_of(scratch, mse_scratch(storage, problem.size, mean && weight));
  on_stream(storage, view.device.device_id,
            [&](auto launches, Stream& stream) { launches.mse(stream, problem, memory); });
}

Problem problem_of(Model model, const py::object& x, const py::object& target, const MaybeTensor& weight,
                   const std::vector<py::object>& parameters, const std::vector<py::object>& index, bool mean,
                   const MaybeTensor& dx) {
  if (parameters.empty() || parameters.size() > kMaxTensors) throw py::value_error("parameters: expected one to four");
  const DLTensor view = look(x);
  Problem p = {};
  p.model = model;
  p.rows = view.shape[0];
  p.columns = p.outputs = 1;
  p.mean = mean;
  p.dx = gradient_data(dx, storage_of(view));
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const DLTensor parameter = look(parameters[i]);
    if (!is_contiguous(parameter)) throw py::value_error("parameters: expected contiguous tensors");
    p.theta[i] = data_of(parameter);
    p.parameters += numel_of(parameter);
  }
  if (model == Model::kLinear) {
    p.columns = view.shape[1];
    p.outputs = look(parameters[0]).shape[0];
    p.bias = parameters.size() > 1;
  }
  if ((model == Model::kIndexed) != !index.empty()) throw py::value_error("index: expected one for an indexed model");
  if (model == Model::kIndexed) {
    const DLTensor places = look(index.at(0));
    p.columns = view.shape[1];
    p.outputs = places.shape[0];
    p.places = {integers(index.at(0), p.outputs * p.columns), integers(index.at(1), p.parameters + 1),
                integers(index.at(2), 0), p.outputs * p.columns};
  }
  const auto looked = p.columns == 1 && p.outputs == 1 && p.dx == nullptr ? &elements_view : &rows_view;
  p.x = looked(x);
  p.target = looked(target);
  p.loss_weight = looked(weight);
  return p;
}

void lay_out_tensors(Loop& loop, const std::vector<py::object>& parameters, bool empty) {
  Index sizes[kMaxTensors];
  for (std::size_t i = 0; i < parameters.size(); ++i) sizes[i] = numel_of(look(parameters[i]));
  lay_out(loop, static_cast<int>(parameters.size()), sizes);
  loop.empty = empty;
}

void loss(Model model, const py::object& x, const py::object& target, const MaybeTensor& weight,
          const std::vector<py::object>& parameters, bool mean, const py::object& loss,
          const std::vector<py::object>& gradients, const MaybeTensor& dx, const py::object& scratch_tensor) {
  const Problem problem = problem_of(model, x, target, weight, parameters, {}, mean, dx);
  if (gradients.size() != parameters.size()) throw py::value_error("gradients: expected one for each parameter");
  Loop loop = {};
  lay_out_tensors(loop, parameters, problem.rows == 0);
  loop.losses = data(loss);
  const DLTensor view = look(x);
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    loop.ranges[i].gradient = gradient_data(gradients[i], storage_of(view));
  }
  double* const memory = scratch_of(scratch_tensor, scratch(storage_of(view), problem));
  on_stream(storage_of(view), view.device.device_id,
            [&](auto launches, Stream& stream) { launches.loss(stream, problem, loop, memory); });
}

void train(Model model, const py::object& x, const py::object& target, const MaybeTensor& weight,
           const std::vector<py::object>& parameters, const std::vector<py::object>& index, bool mean, Kind kind,
           const std::vector<std::vector<double>>& settings, const std::vector<std::vector<MaybeTensor>>& states,
           Index first_epoch, Index epochs, bool stops, const py::object& losses, const MaybeTensor& status,
           const MaybeTensor& previous, const MaybeTensor& records, Index record_every, double max_grad_norm,
           const MaybeTensor& norms, const py::object& scratch_tensor) {
  const Problem problem = problem_of(model, x, target, weight, parameters, index, mean, std::nullopt);
  if (settings.size() != parameters.size() || states.size() != parameters.size()) {
    throw py::value_error("settings, states: expected one for each parameter");
  }
  if (stops && !status) throw py::value_error("status: expected one, as the loop is to stop");
  Loop loop = {};
  lay_out_tensors(loop, parameters, problem.rows == 0);
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    const bool frozen = settings[i].empty();
    if ((!frozen && settings[i].size() != kNumbers) || states[i].size() != kMaxState) {
      throw py::value_error("settings: wrong count");
    }
    Range& range = loop.ranges[i];
    range.settings = settings_of(frozen ? Kind::kFrozen : kind, settings[i].data());
    range.slots.parameter = data(parameters[i]);
    for (std::size_t k = 0; k < kMaxState; ++k) range.slots.state[k] = data(states[i][k]);
  }
  loop.updates = true;
  loop.stops = stops;
  loop.epoch = first_epoch;
  loop.epochs = epochs;
  loop.losses = data(losses);
  loop.status = static_cast<Index*>(data(status));
  loop.previous = data(previous);
  loop.records = data(records);
  loop.record_every = record_every;
  loop.max_grad_norm = max_grad_norm;
  loop.norms = static_cast<double*>(data(norms));
  const DLTensor view = look(x);
  double* const memory = scratch_of(scratch_tensor, scratch(storage_of(view), problem));
  on_stream(storage_of(view), view.device.device_id, [&](auto launches, Stream& stream) {
    const py::gil_scoped_release release;  // a launch waits where the stream has no room for more
    launches.train(stream, problem, loop, memory);
  });
}

void legendre_p3(const py::object& x, const MaybeTensor& grad, const py::object& out) {
  const DLTensor view = look(x);
  const LegendreP3Problem problem = {numel_of(view), elements_view(x), elements_view(grad), data(out)};
  on_stream(storage_of(view), view.device.device_id,
            [&](auto launches, Stream& stream) { launches.legendre_p3(stream, problem); });
}

void scale(const py::object& tensor, const py::object& factor) {
  const DLTensor view = look(tensor), by = look(factor);
  const View values = elements_view(tensor);
  if (bytes_of(storage_of(view)) == 2) throw py::type_error("expected float32 or float64, as gradients are");
  if (!values.contiguous || !values.aligned) throw py::value_error("expected an aligned tensor without gaps");
  if (numel_of(by) != 1 || storage_of(by) != storage_of(view)) throw py::value_error("expected one factor alike");
  on_stream(storage_of(view), view.device.device_id, [&](auto launches, Stream& stream) {
    launches.scale(stream, values, numel_of(view), data_of(view), data_of(by));
  });
}

/// The updates that gdcore._core hands over: parameters of one storage, on one device.
void run_updates(int kind, const std::vector<UpdateJob>& jobs, int device) {
  on_stream(jobs.front().storage, device, [&](auto launches, Stream& stream) {
    launches.update(stream, static_cast<Kind>(kind), jobs.data(), static_cast<Index>(jobs.size()));
  });
}

bool is_capturing(int device) {
  const DeviceGuard guard(device);
  cudaStreamCaptureStatus status = cudaStreamCaptureStatusNone;
  check(cudaStreamIsCapturing(current_stream(device).stream, &status), "state of a capture");
  return status != cudaStreamCaptureStatusNone;
}

constexpr DeviceUpdates kUpdates = {&run_updates, &is_capturing};

Index model_scratch(Storage storage, Index rows, Index columns, Index outputs, Index parameters, bool weighted_mean,
                    bool dx) {
  Problem p = {};
  p.rows = rows;
  p.columns = columns;
  p.outputs = outputs;
  p.parameters = parameters;
  p.mean = weighted_mean;
  static char there;
  p.loss_weight.data = weighted_mean ? &there : nullptr;
  p.dx = dx ? &there : nullptr;
  return scratch(storage, p);
}

py::dict plan_of_linear(Storage storage, Index rows, Index columns, Index outputs) {
  const LinearPlan plan = linear_plan(storage, rows, columns, outputs);
  py::dict found;
  found["chunks"] = plan.chunks;
  found["outputs"] = plan.outputs;
  found["lanes"] = plan.lanes;
  found["rows"] = plan.rows;
  found["row_blocks"] = plan.row_blocks;
  found["output_blocks"] = plan.output_blocks;
  return found;
}

}  // namespace

PYBIND11_MODULE(_cuda, m) {
  m.doc() = "gdcore on CUDA: fused least-squares gradients, updates and training loops.";
  m.attr("architectures") = GDCORE_CUDA_ARCHITECTURES;
  m.attr("runtime") = std::to_string(CUDART_VERSION / 1000) + "." + std::to_string(CUDART_VERSION % 1000 / 10);
  m.attr("max_degree") = kMaxDegree;
  m.attr("updates") = py::capsule(&kUpdates, kDeviceUpdates);
  // Python's own enums: those of pybind11 are classes, which take a quarter of this file's time to compile.
  py::native_enum<Model>(m, "Model", "enum.Enum")
      .value("linear", Model::kLinear)
      .value("polynomial", Model::kPolynomial)
      .value("legendre", Model::kLegendre)
      .value("indexed", Model::kIndexed)
      .finalize();
  py::native_enum<Kind>(m, "Kind", "enum.Enum")
      .value("SGD", Kind::kSgd)
      .value("RMSprop", Kind::kRmsprop)
      .value("Adam", Kind::kAdam)
      .finalize();
  py::native_enum<Storage>(m, "Storage", "enum.Enum")
      .value("float32", Storage::kFloat32)
      .value("float64", Storage::kFloat64)
      .value("bfloat16", Storage::kBFloat16)
      .value("float16", Storage::kFloat16)
      .finalize();
  m.def("connect", &connect, py::arg("tensor_class"));
  m.def("devices", &devices);
  m.def("mse_scratch", &mse_scratch, py::arg("storage"), py::arg("size"), py::arg("weighted"));
  m.def("scratch", &model_scratch, py::arg("storage"), py::arg("rows"), py::arg("columns"), py::arg("outputs"),
        py::arg("parameters"), py::arg("weighted_mean"), py::arg("dx"));
  m.def("linear_plan", &plan_of_linear, py::arg("storage"), py::arg("rows"), py::arg("columns"), py::arg("outputs"));
  m.def("linear_fits", &linear_fits, py::arg("columns"), py::arg("outputs"));
  m.def("linear_writes_dx", &linear_writes_dx, py::arg("storage"), py::arg("columns"), py::arg("outputs"));
  m.def("fits_one_block", &fits_one_block, py::arg("rows"), py::arg("columns"), py::arg("outputs"));
  m.def("mse", &mse, py::arg("input"), py::arg("target"), py::arg("weight"), py::arg("mean"), py::arg("loss"),
        py::arg("losses"), py::arg("gradient"), py::arg("scratch"));
  m.def("loss", &loss, py::arg("model"), py::arg("x"), py::arg("target"), py::arg("weight"), py::arg("parameters"),
        py::arg("mean"), py::arg("loss"), py::arg("gradients"), py::arg("dx"), py::arg("scratch"));
  m.def("train", &train, py::arg("model"), py::arg("x"), py::arg("target"), py::arg("weight"), py::arg("parameters"),
        py::arg("index"), py::arg("mean"), py::arg("kind"), py::arg("settings"), py::arg("states"),
        py::arg("first_epoch"), py::arg("epochs"), py::arg("stops"), py::arg("losses"), py::arg("status"),
        py::arg("previous"), py::arg("records"), py::arg("record_every"), py::arg("max_grad_norm"), py::arg("norms"),
        py::arg("scratch"));
  m.def("scale", &scale, py::arg("tensor"), py::arg("factor"));
  m.def("legendre_p3", &legendre_p3, py::arg("x"), py::arg("grad"), py::arg("out"));
}

}  // namespace gdcore::cuda
