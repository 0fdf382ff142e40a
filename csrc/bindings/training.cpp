#include "bindings/training.h"

#include <pybind11/stl.h>

#include <algorithm>

#include "bindings/register.h"

namespace gdcore {

namespace {

bool contains(const std::vector<std::size_t>& indices, std::size_t index) {
  return std::find(indices.begin(), indices.end(), index) != indices.end();
}

/// Everything that is written lies apart from everything else.
void check_written(const Problem& problem, const Written& written) {
  std::vector<const Tensor*> others;
  others.reserve(2 + 2 * problem.parameters.size());
  others = {&problem.x, &problem.target};
  for (std::size_t i = 0; i < problem.parameters.size(); ++i) {
    if (!contains(written.parameters, i)) others.push_back(&problem.parameters[i]);
  }
  const auto check = [&others](const Tensor& tensor) {
    tensor.expect_no_overlap();
    for (const Tensor* other : others) tensor.expect_apart_from(*other);
    others.push_back(&tensor);
  };
  for (std::size_t i = 0; i < written.parameters.size(); ++i) {
    check(problem.parameters[written.parameters[i]]);
    if (written.momenta[i]) check(*written.momenta[i]);
  }
}

template <class T>
LoopResult train_typed(const Problem& problem, const Written& written, bool mean, const Request& request,
                       const Interrupt& interrupt) {
  const Index p = problem.parameter_count();
  const std::unique_ptr<Objective<T>> objective = problem.objective<T>(mean, request.threads);
  const Array<T> theta = problem.theta<T>();
  const Array<T> momentum = allocate<T>(p);
  for (std::size_t i = 0; i < written.parameters.size(); ++i) {
    if (written.momenta[i]) written.momenta[i]->read(momentum.get() + written.settings[i].offset);
  }
  const Index every = request.record_every;
  const Index recorded = every > 0 ? (request.epochs + every - 1) / every : 0;
  const Loop<T> loop = {objective.get(),
                        written.settings,
                        theta.get(),
                        momentum.get(),
                        request.epochs,
                        output<T>(request.losses, "losses", request.epochs),
                        every,
                        recorded > 0 ? output<T>(request.records, "records", recorded * p) : nullptr,
                        request.stop_at_infinity};
  LoopResult result;
  {
    const MaybeReleaseGil release(objective->work() * request.epochs);
    result = run(loop, interrupt);
  }
  for (std::size_t i = 0; i < written.parameters.size(); ++i) {
    const Index offset = written.settings[i].offset;
    problem.parameters[written.parameters[i]].write(theta.get() + offset);
    if (written.momenta[i]) written.momenta[i]->write(momentum.get() + offset);
  }
  return result;
}

/// Returns (losses written, outcome, what a signal handler raised or None).
py::tuple run_epochs(const Training& training, py::handle x, py::handle target, py::handle losses, Index epochs,
                     Index record_every, py::handle records, bool stop_at_infinity, int threads) {
  SignalPoll poll;
  const LoopResult result =
      training.run(x, target, {losses, epochs, record_every, records, stop_at_infinity, threads}, poll.interrupt());
  static constexpr const char* kOutcomes[] = {"finished", "interrupted", "diverged"};
  return py::make_tuple(result.epochs, kOutcomes[static_cast<int>(result.outcome)], poll.raised());
}

}  // namespace

Written Training::written(const Problem& problem) const {
  Written written;
  written.offsets.reserve(parameters_.size());
  written.parameters.reserve(settings_.size());
  written.settings.reserve(settings_.size());
  written.momenta.resize(settings_.size());
  Index offset = 0;
  for (const Tensor& parameter : problem.parameters) {
    written.offsets.push_back(offset);
    offset += parameter.numel();
  }
  for (const auto& [index, lr, momentum, dampening, weight_decay, nesterov, maximize, fresh] : settings_) {
    const Tensor& parameter = problem.parameters[index];
    if (momentum != 0) {
      Tensor& buffer = written.momenta[written.settings.size()].emplace(momenta_[index], "momentum_buffer");
      buffer.expect_dtype_of(parameter);
      if (!buffer.same_shape(parameter)) {
        fail_value("momentum_buffer", "shape " + parameter.shape() + " as its parameter", buffer.shape());
      }
    }
    written.parameters.push_back(index);
    written.settings.push_back(
        {written.offsets[index], parameter.numel(), lr, momentum, dampening, weight_decay, nesterov, maximize, fresh});
  }
  return written;
}

LoopResult Training::run(py::handle x, py::handle target, const Request& request, const Interrupt& interrupt) const {
  const Problem problem(model_, x, target, Given::kModel, flat_, parameters_);
  const Written written = this->written(problem);
  check_written(problem, written);
  const auto typed = problem.x.is_double() ? train_typed<double> : train_typed<float>;
  return typed(problem, written, mean_, request, interrupt);
}

void register_training(py::module_& m) {
  py::class_<Training>(m, "Training")
      .def(py::init<const std::string&, bool, std::vector<py::object>, std::vector<py::object>,
                    std::vector<Training::Setting>, bool>(),
           py::arg("model"), py::arg("flat"), py::arg("parameters"), py::arg("momenta"), py::arg("settings"),
           py::arg("mean"))
      .def("run", &run_epochs, py::arg("x"), py::arg("target"), py::arg("losses"), py::arg("epochs"),
           py::arg("record_every"), py::arg("records"), py::arg("stop_at_infinity"), py::arg("threads"));
}

}  // namespace gdcore
