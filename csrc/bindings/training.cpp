// Steps and epochs of full-batch training on the user's own tensors.
#include <pybind11/stl.h>

#include <algorithm>
#include <chrono>
#include <optional>

#include "bindings/problem.h"
#include "bindings/register.h"
#include "training/loop.h"

namespace gdcore {

namespace {

/// Lets Python handle signals every few milliseconds, and keeps what a handler raised.
class SignalPoll {
 public:
  Interrupt interrupt() {
    return {[](void* self) { return static_cast<SignalPoll*>(self)->check(); }, this};
  }
  py::object raised() const { return raised_ ? raised_->value() : py::none(); }

 private:
  bool check() {
    const auto now = std::chrono::steady_clock::now();
    if (now - last_ < std::chrono::milliseconds(20)) return false;
    last_ = now;
    const py::gil_scoped_acquire acquire;
    if (PyErr_CheckSignals() == 0) return false;
    raised_.emplace();
    return true;
  }

  std::chrono::steady_clock::time_point last_ = std::chrono::steady_clock::now();
  std::optional<py::error_already_set> raised_;
};

/// (parameter's index, lr, momentum, dampening, weight_decay, nesterov, maximize, fresh)
using Setting = std::tuple<std::size_t, double, double, double, double, bool, bool, bool>;

/// Parameters and momentum buffers that a run writes, apart from everything else it touches.
struct Written {
  std::vector<std::size_t> parameters;
  std::vector<std::optional<Tensor>> momenta;  // one for each parameter of the problem
};

void check_written(const Problem& problem, const Written& written) {
  std::vector<const Tensor*> tensors;
  for (std::size_t i : written.parameters) {
    tensors.push_back(&problem.parameters[i]);
    if (written.momenta[i]) tensors.push_back(&*written.momenta[i]);
  }
  std::vector<const Tensor*> frozen;
  for (const Tensor& parameter : problem.parameters) {
    if (std::find(tensors.begin(), tensors.end(), &parameter) == tensors.end()) frozen.push_back(&parameter);
  }
  for (std::size_t i = 0; i < tensors.size(); ++i) {
    tensors[i]->expect_no_overlap();
    tensors[i]->expect_apart_from(problem.x);
    tensors[i]->expect_apart_from(problem.target);
    for (std::size_t j = 0; j < i; ++j) tensors[i]->expect_apart_from(*tensors[j]);
    for (const Tensor* parameter : frozen) tensors[i]->expect_apart_from(*parameter);
  }
}

template <class T>
LoopResult train_typed(const Problem& problem, const Written& written, std::vector<SgdSettings> settings, bool mean,
                       py::handle losses, Index epochs, Index record_every, py::handle records, bool stop_at_infinity,
                       int threads, const Interrupt& interrupt) {
  const Index p = problem.parameter_count();
  const std::unique_ptr<Objective<T>> objective = problem.objective<T>(mean, threads);
  const Array<T> theta = problem.theta<T>();
  const Array<T> momentum = allocate<T>(p);
  std::vector<Index> offsets;
  Index offset = 0;
  for (const Tensor& parameter : problem.parameters) {
    offsets.push_back(offset);
    offset += parameter.numel();
  }
  for (std::size_t i : written.parameters) {
    if (written.momenta[i]) written.momenta[i]->read(momentum.get() + offsets[i]);
  }
  const Index recorded = record_every > 0 ? (epochs + record_every - 1) / record_every : 0;
  const Loop<T> loop = {objective.get(), std::move(settings),
                        theta.get(),     momentum.get(),
                        epochs,          output<T>(losses, "losses", epochs),
                        record_every,    recorded > 0 ? output<T>(records, "records", recorded * p) : nullptr,
                        stop_at_infinity};
  LoopResult result;
  {
    const MaybeReleaseGil release(objective->work() * epochs);
    result = run(loop, interrupt);
  }
  for (std::size_t i : written.parameters) {
    problem.parameters[i].write(theta.get() + offsets[i]);
    if (written.momenta[i]) written.momenta[i]->write(momentum.get() + offsets[i]);
  }
  return result;
}

/// A model's parameters with the settings of their updates, ready to be run on data.
class Training {
 public:
  Training(const std::string& model, bool flat, std::vector<py::object> parameters, std::vector<py::object> momenta,
           std::vector<Setting> settings, bool mean)
      : model_(model_named(model)),
        flat_(flat),
        parameters_(std::move(parameters)),
        momenta_(std::move(momenta)),
        settings_(std::move(settings)),
        mean_(mean) {}

  /// Returns (losses written, outcome, what a signal handler raised or None).
  py::tuple run(py::handle x, py::handle target, py::handle losses, Index epochs, Index record_every,
                py::handle records, bool stop_at_infinity, int threads) const {
    const Problem problem(model_, x, target, "y", flat_, parameters_);
    std::vector<Index> offsets;
    Index offset = 0;
    for (const Tensor& parameter : problem.parameters) {
      offsets.push_back(offset);
      offset += parameter.numel();
    }
    Written written;
    written.momenta.resize(parameters_.size());
    std::vector<SgdSettings> settings;
    for (const auto& [index, lr, momentum, dampening, weight_decay, nesterov, maximize, fresh] : settings_) {
      const Tensor& parameter = problem.parameters[index];
      written.parameters.push_back(index);
      if (momentum != 0) {
        Tensor& buffer = written.momenta[index].emplace(momenta_[index], "momentum_buffer");
        buffer.expect_dtype_of(parameter);
        if (!buffer.same_shape(parameter)) {
          fail_value("momentum_buffer", "shape " + parameter.shape() + " as its parameter", buffer.shape());
        }
      }
      settings.push_back(
          {offsets[index], parameter.numel(), lr, momentum, dampening, weight_decay, nesterov, maximize, fresh});
    }
    check_written(problem, written);
    SignalPoll poll;
    const auto typed = problem.x.is_double() ? train_typed<double> : train_typed<float>;
    const LoopResult result = typed(problem, written, std::move(settings), mean_, losses, epochs, record_every, records,
                                    stop_at_infinity, threads, poll.interrupt());
    static constexpr const char* kOutcomes[] = {"finished", "interrupted", "diverged"};
    return py::make_tuple(result.epochs, kOutcomes[static_cast<int>(result.outcome)], poll.raised());
  }

 private:
  Model model_;
  bool flat_;
  std::vector<py::object> parameters_;
  std::vector<py::object> momenta_;
  std::vector<Setting> settings_;
  bool mean_;
};

}  // namespace

void register_training(py::module_& m) {
  py::class_<Training>(m, "Training")
      .def(py::init<const std::string&, bool, std::vector<py::object>, std::vector<py::object>, std::vector<Setting>,
                    bool>(),
           py::arg("model"), py::arg("flat"), py::arg("parameters"), py::arg("momenta"), py::arg("settings"),
           py::arg("mean"))
      .def("run", &Training::run, py::arg("x"), py::arg("target"), py::arg("losses"), py::arg("epochs"),
           py::arg("record_every"), py::arg("records"), py::arg("stop_at_infinity"), py::arg("threads"));
}

}  // namespace gdcore
