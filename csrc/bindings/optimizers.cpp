// Whole optimizer steps: torch's parameter groups and state, read as they are at every call, and one job for all.
#include <pybind11/stl.h>

#include <cmath>

#include "bindings/problem.h"
#include "bindings/register.h"
#include "bindings/slots.h"

namespace gdcore {

namespace {

/// A key of a dict or the name of an attribute, made once.
struct Key {
  explicit Key(const char* name)
      : text(name), object(py::reinterpret_steal<py::str>(PyUnicode_InternFromString(name))) {}
  const char* text;
  py::str object;
};

/// Borrowed, or null if there is none.
PyObject* find(py::handle dict, py::handle key) {
  PyObject* const value = PyDict_GetItemWithError(dict.ptr(), key.ptr());
  if (value == nullptr && PyErr_Occurred() != nullptr) throw py::error_already_set();
  return value;
}

bool is_true(py::handle object) {
  const int truth = PyObject_IsTrue(object.ptr());
  if (truth < 0) throw py::error_already_set();
  return truth != 0;
}

double to_double(py::handle object) {
  const double value = PyFloat_AsDouble(object.ptr());
  if (value == -1.0 && PyErr_Occurred() != nullptr) throw py::error_already_set();
  return value;
}

/// What every optimizer knows of torch's tensors.
class Torch {
 public:
  explicit Torch(py::tuple plain_types) : plain_types_(std::move(plain_types)) {}

  /// Whether the type is torch's own and no subclass with rules of its own.
  bool plain(py::handle object) const {
    for (const py::handle type : plain_types_) {
      if (reinterpret_cast<PyObject*>(Py_TYPE(object.ptr())) == type.ptr()) return true;
    }
    return false;
  }
  /// Whether the memory holds the values themselves, and not their opposites.
  bool look(py::handle object, Memory& memory) const {
    return plain(object) && memory.look(object) && !is_true(call(object, is_neg_));
  }
  /// Whether the tensor was made in inference mode. Outside of that it must not be written.
  bool inference(py::handle parameter) const {
    if (!is_true(call(parameter, is_inference_))) return false;
    if (is_true(py::module_::import("torch").attr("is_inference_mode_enabled")())) return true;
    throw std::runtime_error(
        "parameter: expected a normal tensor, or a step in inference mode, got an inference tensor outside of it");
  }
  /// A new reference; None where there is none.
  py::object grad(py::handle parameter) const {
    PyObject* const grad = PyObject_GetAttr(parameter.ptr(), grad_.object.ptr());
    if (grad == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(grad);
  }

 private:
  static py::object call(py::handle object, const Key& method) {
    PyObject* const result = PyObject_CallMethodNoArgs(object.ptr(), method.object.ptr());
    if (result == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(result);
  }

  py::tuple plain_types_;
  Key grad_{"grad"}, is_neg_{"is_neg"}, is_inference_{"is_inference"};
};

/// The settings of one group.
class Group {
 public:
  Group(py::handle dict, const Torch& torch) : dict_(py::reinterpret_borrow<py::dict>(dict)), torch_(torch) {}

  py::handle at(const Key& key) const {
    PyObject* const value = find(dict_, key.object);
    if (value == nullptr) throw py::key_error(key.text);
    return value;
  }
  double number(const Key& key) const { return to_double(at(key)); }
  bool flag(const Key& key) const { return is_true(at(key)); }
  bool is_tensor(const Key& key) const { return torch_.plain(at(key)); }
  /// A rate that is a tensor of float32 is one whose arithmetic torch rounds to float32.
  bool is_single(const Key& key) const {
    Memory memory;
    return is_tensor(key) && memory.look(at(key)) && memory.storage() != Storage::kFloat64;
  }

 private:
  py::dict dict_;
  const Torch& torch_;
};

double to_single(double value) { return static_cast<float>(value); }

/// Each optimizer says which states its group's settings use, what torch's own step is left to do (`supported`), and
/// what its kernel needs for one parameter.
struct Sgd {
  using Rule = SgdUpdate;
  static constexpr UpdateKernel Updates::* kKernel = &Updates::sgd;
  static constexpr bool kCounts = false;
  static constexpr const char* kStates[kMaxState] = {"momentum_buffer", "", ""};

  struct Keys {
    Key lr{"lr"}, momentum{"momentum"}, dampening{"dampening"}, weight_decay{"weight_decay"}, nesterov{"nesterov"},
        maximize{"maximize"}, differentiable{"differentiable"};
  };

  Sgd(const Group& g, const Keys& k)
      : supported(!g.flag(k.differentiable)),
        settings{g.number(k.lr),
                 g.number(k.momentum),
                 1.0 - g.number(k.dampening),
                 g.number(k.weight_decay),
                 g.flag(k.nesterov),
                 g.flag(k.maximize),
                 false},
        used{settings.momentum != 0, false, false} {}

  Rule rule(double /*step*/, bool fresh) const {
    Rule rule = settings;
    rule.fresh = fresh;
    return rule;
  }

  bool supported;
  SgdUpdate settings;
  bool used[kMaxState];
};

struct Rmsprop {
  using Rule = RmspropUpdate;
  static constexpr UpdateKernel Updates::* kKernel = &Updates::rmsprop;
  static constexpr bool kCounts = true;
  static constexpr const char* kStates[kMaxState] = {"square_avg", "momentum_buffer", "grad_avg"};

  struct Keys {
    Key lr{"lr"}, alpha{"alpha"}, eps{"eps"}, weight_decay{"weight_decay"}, momentum{"momentum"}, centered{"centered"},
        maximize{"maximize"}, differentiable{"differentiable"}, capturable{"capturable"};
  };

  Rmsprop(const Group& g, const Keys& k)
      : supported(!g.flag(k.differentiable) && !g.flag(k.capturable)),
        settings{g.number(k.lr),           g.number(k.alpha),    g.number(k.eps),
                 g.number(k.weight_decay), g.number(k.momentum), g.flag(k.maximize)},
        used{true, settings.momentum > 0, g.flag(k.centered)} {}

  Rule rule(double /*step*/, bool /*fresh*/) const { return settings; }

  bool supported;
  RmspropUpdate settings;
  bool used[kMaxState];
};

struct Adam {
  using Rule = AdamUpdate;
  static constexpr UpdateKernel Updates::* kKernel = &Updates::adam;
  static constexpr bool kCounts = true;
  static constexpr const char* kStates[kMaxState] = {"exp_avg", "exp_avg_sq", "max_exp_avg_sq"};

  struct Keys {
    Key lr{"lr"}, betas{"betas"}, eps{"eps"}, weight_decay{"weight_decay"}, amsgrad{"amsgrad"}, maximize{"maximize"},
        foreach{"foreach"}, differentiable{"differentiable"}, capturable{"capturable"},
        decoupled{"decoupled_weight_decay"};
  };

  Adam(const Group& g, const Keys& k)
      : lr(g.number(k.lr)),
        single(g.is_single(k.lr)),
        eps(g.number(k.eps)),
        weight_decay(g.number(k.weight_decay)),
        decoupled(g.flag(k.decoupled)),
        maximize(g.flag(k.maximize)),
        used{true, true, g.flag(k.amsgrad)} {
    const auto betas = py::reinterpret_borrow<py::sequence>(g.at(k.betas));
    const py::object first = betas[0], second = betas[1];
    const bool numbers = PyFloat_Check(first.ptr()) && PyFloat_Check(second.ptr());
    // torch refuses foreach with a rate that is a tensor.
    supported =
        numbers && !g.flag(k.differentiable) && !g.flag(k.capturable) && !(g.flag(k.foreach) && g.is_tensor(k.lr));
    if (!numbers) return;
    beta1 = to_double(first);
    beta2 = to_double(second);
  }

  Rule rule(double step, bool /*fresh*/) const {
    const double correction = 1.0 - std::pow(beta1, step);
    const double step_size = single ? to_single(lr / to_single(correction)) : lr / correction;
    double decay = 1.0;
    if (decoupled && weight_decay != 0) {
      decay = single ? to_single(1.0 - to_single(lr * to_single(weight_decay))) : 1.0 - lr * weight_decay;
    }
    const double root_correction = std::sqrt(1.0 - std::pow(beta2, step));
    return {step_size, beta1, beta2, root_correction, eps, decoupled ? 0.0 : weight_decay, decay, maximize};
  }

  double lr;
  bool single;
  double beta1 = 0.0, beta2 = 0.0;
  double eps;
  double weight_decay;
  bool decoupled;
  bool maximize;
  bool supported = false;
  bool used[kMaxState];
};

/// A parameter's `step`, a tensor of one number.
class Counter {
 public:
  bool look(py::handle object) {
    return memory_.look(object) && memory_.numel() == 1 &&
           (memory_.storage() == Storage::kFloat32 || memory_.storage() == Storage::kFloat64);
  }
  double advance() const {
    if (memory_.storage() == Storage::kFloat32) return *static_cast<float*>(memory_.data()) += 1.0f;
    return *static_cast<double*>(memory_.data()) += 1.0;
  }

 private:
  Memory memory_;
};

template <class Kind>
class Optimizer {
 public:
  Optimizer(py::tuple plain_types, py::object before_writing)
      : torch_(std::move(plain_types)), before_writing_(std::move(before_writing)) {}

  /// One step of all parameters that have a gradient. `fresh` has states for those without, or is None.
  /// Returns None, or, with nothing written, the parameters that these kernels do not take and those without state.
  py::object step(const py::list& groups, const py::dict& state, const py::object& fresh, int threads) const {
    Pass pass{{}, {}, {}, {}, {}, {}, {}, {}, py::list(), py::list(), py::list(), 0};
    for (const py::handle dict : groups) {
      if (!PyDict_Check(dict.ptr())) throw py::type_error("param_groups: expected dicts");
      const Group group(dict, torch_);
      pass.groups.emplace_back(group, keys_);
      const py::object parameters = py::reinterpret_borrow<py::object>(group.at(params_));
      for (const py::handle parameter : parameters) add(pass, parameter, state, fresh);
    }
    if (!pass.unsuited.empty() || !pass.stateless.empty()) return py::make_tuple(pass.unsuited, pass.stateless);
    if (pass.views.empty()) return py::none();
    before_writing_(pass.written);
    run(pass, threads);
    return py::none();
  }

 private:
  /// What one call has found.
  struct Pass {
    std::vector<Kind> groups;
    std::vector<SlotViews> views;
    std::vector<std::size_t> group;  ///< of each view
    std::vector<Counter> counters;
    std::vector<bool> fresh;
    std::vector<typename Kind::Rule> rules;
    std::vector<const void*> rule_of;
    std::vector<py::object> alive;  ///< gradients, whose owner another thread may take them from
    py::list written;
    py::list unsuited;
    py::list stateless;
    Index work;
  };

  void add(Pass& pass, py::handle parameter, const py::dict& state, const py::object& fresh) const {
    py::object grad = torch_.grad(parameter);
    if (grad.is_none()) return;
    const Kind& group = pass.groups.back();
    SlotViews views;
    const bool suited = group.supported && torch_.look(parameter, views.parameter) && torch_.look(grad, views.grad) &&
                        views.grad.storage() == views.parameter.storage() && !torch_.inference(parameter);
    if (!suited) return pass.unsuited.append(parameter);

    std::copy_n(group.used, kMaxState, views.used);
    PyObject* values = nullptr;
    bool is_fresh = false;
    Counter counter = {};
    if (Kind::kCounts || group.used[0]) {
      values = find(state, parameter);
      if (values == nullptr || !PyDict_Check(values) || lacks_all(values)) {
        views.used[0] = views.used[1] = views.used[2] = false;
        views.check(Kind::kStates);
        if (fresh.is_none()) return pass.stateless.append(parameter);
        std::copy_n(group.used, kMaxState, views.used);
        values = find(fresh, parameter);
        if (values == nullptr) throw py::key_error("fresh");
        is_fresh = true;
      }
      if (!look_at_states(values, views) || (Kind::kCounts && !look_at_counter(pass, values, counter))) {
        return pass.unsuited.append(parameter);
      }
    }
    views.check(Kind::kStates);
    pass.written.append(parameter);
    for (int i = 0; i < kMaxState; ++i) {
      if (views.used[i]) pass.written.append(py::handle(find(values, states_[i].object)));
    }
    pass.alive.push_back(std::move(grad));
    pass.work += views.parameter.numel();
    pass.views.push_back(views);
    pass.counters.push_back(counter);
    pass.fresh.push_back(is_fresh);
    pass.group.push_back(pass.groups.size() - 1);
  }

  bool lacks_all(py::handle values) const {
    if (Kind::kCounts) return PyDict_GET_SIZE(values.ptr()) == 0;
    PyObject* const value = find(values, states_[0].object);
    return value == nullptr || value == Py_None;
  }

  bool look_at_states(py::handle values, SlotViews& views) const {
    for (int i = 0; i < kMaxState; ++i) {
      if (!views.used[i]) continue;
      PyObject* const value = find(values, states_[i].object);
      if (value == nullptr || !torch_.plain(value) || !views.state[i].look(value)) return false;
      if (views.state[i].storage() != views.parameter.storage()) return false;
    }
    return true;
  }

  bool look_at_counter(Pass& pass, py::handle values, Counter& counter) const {
    PyObject* const value = find(values, count_.object);
    if (value == nullptr || !torch_.plain(value) || !counter.look(value)) return false;
    pass.written.append(py::handle(value));
    return true;
  }

  void run(Pass& pass, int threads) const {
    const std::size_t count = pass.views.size();
    pass.rules.reserve(count);
    pass.rule_of.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
      const double step = Kind::kCounts ? pass.counters[i].advance() : 0.0;
      pass.rules.push_back(pass.groups[pass.group[i]].rule(step, pass.fresh[i]));
      pass.rule_of.push_back(&pass.rules.back());
    }
    const MaybeReleaseGil release(pass.work);
    run_all(pass.views, pass.rule_of, Kind::kKernel, threads);
  }

  Torch torch_;
  py::object before_writing_;
  typename Kind::Keys keys_;
  Key params_{"params"};
  Key count_{"step"};
  Key states_[kMaxState] = {Key(Kind::kStates[0]), Key(Kind::kStates[1]), Key(Kind::kStates[2])};
};

template <class Kind>
void register_optimizer(py::module_& m, const char* name) {
  py::class_<Optimizer<Kind>>(m, name)
      .def(py::init<py::tuple, py::object>(), py::arg("plain_types"), py::arg("before_writing"))
      .def("step", &Optimizer<Kind>::step, py::arg("groups"), py::arg("state"), py::arg("fresh"), py::arg("threads"));
}

}  // namespace

void register_optimizers(py::module_& m) {
  register_optimizer<Sgd>(m, "SgdStep");
  register_optimizer<Rmsprop>(m, "RmspropStep");
  register_optimizer<Adam>(m, "AdamStep");
}

}  // namespace gdcore
