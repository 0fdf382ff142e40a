#include "bindings/training.h"

#include <pybind11/stl.h>

#include <algorithm>
#include <limits>

#include "bindings/python.h"
#include "bindings/register.h"
#include "bindings/shuffle.h"

namespace gdcore {

namespace {

/// Everything that is written lies apart from everything else.
void check_written(const Problem& problem, const std::vector<Trained>& trained) {
  std::vector<const Tensor*> others;
  others.reserve(3 + (1 + kMaxState) * problem.parameters.size());
  others = {&problem.x, &problem.target};
  if (problem.loss_weight) others.push_back(&*problem.loss_weight);
  std::vector<bool> is_trained(problem.parameters.size(), false);
  for (const Trained& t : trained) is_trained[t.index] = true;
  for (std::size_t i = 0; i < problem.parameters.size(); ++i) {
    if (!is_trained[i]) others.push_back(&problem.parameters[i]);
  }
  const auto check = [&others](const Tensor& tensor) {
    tensor.expect_no_overlap();
    for (const Tensor* other : others) tensor.expect_apart_from(*other);
    others.push_back(&tensor);
  };
  for (const Trained& t : trained) {
    check(problem.parameters[t.index]);
    for (const auto& state : t.state) {
      if (state) check(*state);
    }
  }
}

/// Gives each its place in θ, and checks its state against it.
void place(const Problem& problem, std::vector<Trained>& trained) {
  std::vector<Index> offsets;
  offsets.reserve(problem.parameters.size());
  Index offset = 0;
  for (const Tensor& parameter : problem.parameters) {
    offsets.push_back(offset);
    offset += parameter.numel();
  }
  for (Trained& t : trained) {
    const Tensor& parameter = problem.parameters[t.index];
    t.update.offset = offsets[t.index];
    t.update.size = parameter.numel();
    for (const auto& state : t.state) {
      if (!state) continue;
      state->expect_dtype_of(parameter);
      if (!state->same_shape(parameter)) {
        fail_value(state->name(), "shape " + parameter.shape() + " as its parameter", state->shape());
      }
    }
  }
}

/// The rows of an epoch in minibatches, or all.
struct Order {
  const std::int32_t* rows = nullptr;  ///< null for the first ones as they lie
  Index count = 0;
  Index steps = 0;
  std::unique_ptr<Shuffle> shuffle;
  std::vector<std::int32_t> given;
};

/// What is given is (state of a generator, rows to shuffle, how many of them to take).
void shuffled_order(const Problem& problem, const py::tuple& given, Order& order) {
  const GeneratorState& state = generator_state(given[0]);
  const Index n = given[1].cast<Index>();
  order.count = given[2].cast<Index>();
  check_shuffled(n, order.count);
  if (n > problem.rows()) fail_value("order", "rows below " + std::to_string(problem.rows()), std::to_string(n - 1));
  order.shuffle = std::make_unique<Shuffle>(state, n);
  order.rows = order.shuffle->rows();
}

void given_order(const Problem& problem, py::handle given, Order& order) {
  const IndexView view(given, "order");
  if (view.dim() != 1) fail_value("order", "shape (rows,)", view.shape());
  if (problem.rows() > std::numeric_limits<std::int32_t>::max()) {
    fail_value("order", "fewer than 2³¹ rows", std::to_string(problem.rows()));
  }
  order.count = view.size(0);
  order.given.reserve(static_cast<std::size_t>(order.count));
  bool lying = true;
  for (const Index row : view.read()) {
    if (row < 0 || row >= problem.rows()) {
      fail_value("order", "rows from 0 to " + std::to_string(problem.rows() - 1), std::to_string(row));
    }
    lying = lying && row == static_cast<Index>(order.given.size());
    order.given.push_back(static_cast<std::int32_t>(row));
  }
  // The first rows as they lie need no gathering.
  order.rows = lying ? nullptr : order.given.data();
}

Order read_order(const Problem& problem, const RunData& data, Index epochs) {
  Order order;
  order.count = problem.rows();
  order.steps = epochs;
  if (data.batch_size == 0) return order;
  if (py::isinstance<py::tuple>(data.order)) {
    shuffled_order(problem, py::reinterpret_borrow<py::tuple>(data.order), order);
  } else if (!data.order.is_none()) {
    given_order(problem, data.order, order);
  }
  order.steps = (order.count + data.batch_size - 1) / data.batch_size;
  return order;
}

template <class T>
std::unique_ptr<Objective<T>> objective_of(const Problem& problem, const RunData& data, const Order& order, bool mean,
                                           int threads) {
  if (data.batch_size == 0) return problem.objective<T>(problem.divisor<T>(mean, threads), threads);
  const auto make = [&problem, threads](const RowData<T>& batch, Index rows) {
    return problem.objective<T>(batch, rows, 1.0, threads);
  };
  return minibatch_objective<T>({problem.data<T>(), order.count, problem.columns(), problem.outputs(), order.rows,
                                 order.shuffle.get(), data.batch_size, mean, threads, make});
}

template <class T>
LoopResult train_typed(const Problem& problem, const RunData& data, const Order& order, bool mean,
                       std::vector<Trained>& trained, const Request& request, const Interrupt& interrupt) {
  const Index p = problem.parameter_count();
  const Index every = request.record_every;
  const Index recorded = every > 0 ? (request.epochs + every - 1) / every : 0;
  T* const losses = output<T>(request.losses, "losses", order.steps);
  T* const records = recorded > 0 ? output<T>(request.records, "records", recorded * p) : nullptr;

  const Array<T> theta = problem.theta<T>();
  const Array<T> state = allocate<T>(kMaxState * p);
  const auto state_at = [&](const Trained& t, int k) { return state.get() + k * p + t.update.offset; };
  std::vector<ParameterUpdate> updates;
  updates.reserve(trained.size());
  for (const Trained& t : trained) {
    for (int k = 0; k < kMaxState; ++k) {
      if (t.state[k]) t.state[k]->read(state_at(t, k));
    }
    updates.push_back(t.update);
  }
  LoopResult result;
  {
    const MaybeReleaseGil release(problem.rows() * (problem.columns() + 1) * problem.outputs() *
                                  (data.batch_size == 0 ? order.steps : 1));
    const std::unique_ptr<Objective<T>> objective = objective_of<T>(problem, data, order, mean, request.threads);
    const Loop<T> loop = {
        objective.get(), updates, theta.get(),      state.get(),     order.steps,           losses,
        every,           records, request.overflow, request.threads, request.max_grad_norm, request.stop};
    result = run(loop, interrupt);
  }
  if (result.updates == 0) return result;
  for (std::size_t i = 0; i < trained.size(); ++i) {
    const Trained& t = trained[i];
    problem.parameters[t.index].write(theta.get() + t.update.offset);
    for (int k = 0; k < kMaxState; ++k) {
      if (t.state[k]) t.state[k]->write(state_at(t, k));
    }
    trained[i].update.step = updates[i].step;
  }
  return result;
}

void write_counter(const Memory& counter, double step) {
  if (counter.storage() == Storage::kFloat32) {
    *static_cast<float*>(counter.data()) = static_cast<float>(step);
  } else {
    *static_cast<double*>(counter.data()) = step;
  }
}

/// What the objects know of an update: counters, versions, states that were made.
void leave(const std::vector<Trained>& trained, const py::dict& state) {
  // Never destroyed: at exit the interpreter is gone first.
  static const auto* const increment_version =
      new py::object(py::module_::import("torch").attr("_C").attr("_increment_version"));
  std::size_t count = 0;
  for (const Trained& t : trained) count += 1 + t.alive.size();
  const py::tuple written(count);
  Py_ssize_t next = 0;
  const auto add = [&](const py::object& value) { PyTuple_SET_ITEM(written.ptr(), next++, value.inc_ref().ptr()); };
  for (const Trained& t : trained) {
    add(t.parameter);
    for (const py::object& value : t.alive) add(value);
    if (t.counted) write_counter(t.counter, t.update.step);
    if (!t.fresh) continue;
    PyObject* const known = find(state, t.parameter);
    if (known == nullptr || !PyDict_Check(known)) {
      state[t.parameter] = t.fresh;
    } else if (PyDict_Update(known, t.fresh.ptr()) != 0) {
      throw py::error_already_set();
    }
  }
  call(*increment_version, written);
}

/// Returns (losses written, updates made, outcome, what a signal handler raised or None).
py::tuple run_epochs(const Training& training, py::handle x, py::handle target, py::handle weight,
                     const py::list& groups, const py::dict& state, py::handle losses, Index epochs, Index record_every,
                     py::handle records, int threads, py::handle order, Index batch_size, double max_grad_norm,
                     StopRule* stop, double overflow) {
  SignalPoll poll;
  const Request request = {losses, epochs, record_every, records, threads, overflow, max_grad_norm, stop};
  const LoopResult result =
      training.run({x, target, weight, order, batch_size}, groups, state, request, poll.interrupt());
  static constexpr const char* kOutcomes[] = {"finished", "interrupted", "diverged", "stopped"};
  return py::make_tuple(result.losses, result.updates, kOutcomes[static_cast<int>(result.outcome)], poll.raised());
}

}  // namespace

Training::Training(const std::string& model, bool flat, std::vector<py::object> parameters, bool mean,
                   const std::string& optimizer, py::tuple plain_types, py::function fresh, py::handle index)
    : model_(model_named(model)),
      flat_(flat),
      parameters_(std::move(parameters)),
      mean_(mean),
      optimizer_(optimizer_state(optimizer, std::move(plain_types))),
      fresh_(std::move(fresh)) {
  if (model_ != Model::kIndexed) return;
  Index end = 0;
  for (const py::object& parameter : parameters_) end += Tensor(parameter, "parameter").numel();
  index_ = weight_index(index, end);
}

void Training::check_run(const RunData& data, const py::list& groups, const py::dict& state) const {
  const Problem problem(model_, data.x, data.target, Given::kModel, flat_, parameters_, data.loss_weight, &index_);
  std::vector<Trained> trained = optimizer_->read(groups, state, parameters_, py::none());
  place(problem, trained);
  check_written(problem, trained);
}

LoopResult Training::run(const RunData& data, const py::list& groups, const py::dict& state, const Request& request,
                         const Interrupt& interrupt) const {
  const Problem problem(model_, data.x, data.target, Given::kModel, flat_, parameters_, data.loss_weight, &index_);
  std::vector<Trained> trained = optimizer_->read(groups, state, parameters_, fresh_);
  place(problem, trained);
  check_written(problem, trained);
  const Order order = read_order(problem, data, request.epochs);
  const auto typed = problem.x.is_double() ? train_typed<double> : train_typed<float>;
  const LoopResult result = typed(problem, data, order, mean_, trained, request, interrupt);
  if (result.updates > 0) leave(trained, state);
  return result;
}

void register_training(py::module_& m) {
  py::class_<StopRule>(m, "StopRule")
      .def(py::init([](double loss_below, Index no_improvement_for, double gradient_norm_below) {
             StopRule rule;
             rule.loss_below = loss_below;
             rule.no_improvement_for = no_improvement_for;
             rule.gradient_norm_below = gradient_norm_below;
             return rule;
           }),
           py::arg("loss_below"), py::arg("no_improvement_for"), py::arg("gradient_norm_below"))
      .def(
          "holds",
          [](StopRule& rule, double loss) { return rule.holds(loss, std::numeric_limits<double>::infinity()); },
          py::arg("loss"));
  py::class_<Training>(m, "Training")
      .def(py::init<const std::string&, bool, std::vector<py::object>, bool, const std::string&, py::tuple,
                    py::function, py::handle>(),
           py::arg("model"), py::arg("flat"), py::arg("parameters"), py::arg("mean"), py::arg("optimizer"),
           py::arg("plain_types"), py::arg("fresh"), py::arg("index"))
      .def("check", &Training::check, py::arg("groups"))
      .def(
          "check_run",
          [](const Training& training, py::handle x, py::handle target, py::handle weight, const py::list& groups,
             const py::dict& state) { training.check_run({x, target, weight, py::none(), 0}, groups, state); },
          py::arg("x"), py::arg("target"), py::arg("weight"), py::arg("groups"), py::arg("state"))
      .def("run", &run_epochs, py::arg("x"), py::arg("target"), py::arg("weight"), py::arg("groups"), py::arg("state"),
           py::arg("losses"), py::arg("epochs"), py::arg("record_every"), py::arg("records"), py::arg("threads"),
           py::arg("order"), py::arg("batch_size"), py::arg("max_grad_norm"), py::arg("stop"), py::arg("overflow"));
}

}  // namespace gdcore
