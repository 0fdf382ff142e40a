#include "bindings/optimizer_state.h"

#include <algorithm>

#include "bindings/optimizer_settings.h"

namespace gdcore {

namespace {

[[noreturn]] void fail_optimizer(const std::string& expected, const std::string& got) {
  throw py::value_error("optimizer: expected " + expected + ", got " + got);
}

/// What a kernel reads of SGD and RMSprop as it is, and of Adam anew at each step.
template <class Kind>
UpdateSettings update_settings(const Kind& kind, bool fresh) {
  if constexpr (std::is_same_v<Kind, Adam>) {
    return kind.settings;
  } else {
    return kind.rule(0.0, fresh);
  }
}

template <class Kind>
class StateOf final : public OptimizerState {
 public:
  explicit StateOf(py::tuple plain_types) : torch_(std::move(plain_types)) {}

  std::vector<Trained> read(const py::list& groups, const py::dict& state, const std::vector<py::object>& parameters,
                            const py::object& fresh) const override {
    std::vector<Trained> found;
    found.reserve(parameters.size());
    for_each_trained(groups, parameters, [&](const Kind& kind, py::handle group, std::size_t index) {
      Trained& trained = found.emplace_back();
      trained.index = index;
      trained.parameter = parameters[index];
      std::copy_n(kind.used, kMaxState, trained.update.used);
      const bool is_fresh = look_at_state(kind, group, state, fresh, trained);
      trained.update.settings = update_settings(kind, is_fresh);
    });
    if (found.empty()) fail_optimizer("to hold a parameter of model that requires grad", "none");
    return found;
  }

  void check(const py::list& groups, const std::vector<py::object>& parameters) const override {
    bool any = false;
    for_each_trained(groups, parameters, [&](const Kind&, py::handle, std::size_t) { any = true; });
    if (!any) fail_optimizer("to hold a parameter of model that requires grad", "none");
  }

 private:
  template <class Visit>
  void for_each_trained(const py::list& groups, const std::vector<py::object>& parameters, const Visit& visit) const {
    std::size_t next = 0;  // groups mostly hold parameters in the model's order
    for (const py::handle dict : groups) {
      if (!PyDict_Check(dict.ptr())) throw py::type_error("param_groups: expected dicts");
      const Group group(dict, torch_);
      std::optional<Kind> kind;
      const py::object held = py::reinterpret_borrow<py::object>(group.at(names_.params));
      for (const py::handle parameter : held) {
        std::size_t tried = 0;
        while (tried < parameters.size() && !parameters[next].is(parameter)) {
          next = (next + 1) % parameters.size();
          ++tried;
        }
        if (tried == parameters.size() || !is_true(get(parameter, names_.requires_grad))) continue;
        if (!kind) kind.emplace(settings_of(group));
        visit(*kind, dict, next);
      }
    }
  }

  Kind settings_of(const Group& group) const {
    Kind kind(group, keys_);
    if (!kind.supported || kind.capturable || !kind.rate.is_none()) {
      const auto refuse_flag = [&](const Key& key) {
        if (group.flag(key)) fail_optimizer(std::string(key.text) + "=False", "True");
      };
      refuse_flag(keys_.differentiable);
      if constexpr (Kind::kCounts) refuse_flag(keys_.capturable);
      fail_optimizer("settings that are numbers, betas below 1, and no foreach with a rate that is a tensor", "others");
    }
    return kind;
  }

  /// Whether there was no state yet.
  bool look_at_state(const Kind& kind, py::handle group, const py::dict& state, const py::object& fresh,
                     Trained& trained) const {
    trained.update.step = 0.0;
    trained.update.single_step = false;
    if (!Kind::kCounts && !kind.used[0]) return false;
    PyObject* known = find(state, trained.parameter);
    const bool is_fresh = known == nullptr || !PyDict_Check(known) || lacks_all(known);
    if (is_fresh && fresh.is_none()) return is_fresh;
    py::object values = is_fresh ? fresh(group, trained.parameter) : py::reinterpret_borrow<py::object>(known);
    if (is_fresh) trained.fresh = values;
    for (int k = 0; k < kMaxState; ++k) {
      if (!kind.used[k]) continue;
      const py::object value = state_at(values, names_.states[k]);
      trained.state[k].emplace(value, names_.states[k].text);
      trained.alive.push_back(value);
    }
    if (Kind::kCounts) {
      const py::object value = state_at(values, names_.count);
      Memory& counter = trained.counter;
      const bool counts = counter.look(value) && counter.on_cpu() && counter.numel() == 1 && counter.contiguous() &&
                          (counter.storage() == Storage::kFloat32 || counter.storage() == Storage::kFloat64);
      if (!counts) fail_optimizer("state step as one number of float32 or float64 on the CPU", py::str(value));
      trained.update.single_step = counter.storage() == Storage::kFloat32;
      trained.update.step = trained.update.single_step ? static_cast<double>(*static_cast<float*>(counter.data()))
                                                       : *static_cast<double*>(counter.data());
      trained.counted = true;
      trained.alive.push_back(value);
    }
    return is_fresh;
  }

  bool lacks_all(py::handle values) const {
    if (Kind::kCounts) return PyDict_GET_SIZE(values.ptr()) == 0;
    PyObject* const value = find(values, names_.states[0].object);
    return value == nullptr || value == Py_None;
  }

  py::object state_at(py::handle values, const Key& key) const {
    PyObject* const value = find(values, key.object);
    if (value == nullptr) {
      fail_optimizer(std::string("a state ") + key.text + " of every parameter that has state", "none");
    }
    const bool plain = torch_.plain(value);
    if (!plain) fail_optimizer(std::string(key.text) + " as a plain tensor", Py_TYPE(value)->tp_name);
    return py::reinterpret_borrow<py::object>(value);
  }

  struct Names {
    Key params{"params"}, count{"step"}, requires_grad{"requires_grad"};
    Key states[kMaxState] = {Key(Kind::kStates[0]), Key(Kind::kStates[1]), Key(Kind::kStates[2])};
  };

  Torch torch_;
  const typename Kind::Keys& keys_ = kept<typename Kind::Keys>();
  const Names& names_ = kept<Names>();
};

}  // namespace

std::unique_ptr<OptimizerState> optimizer_state(const std::string& name, py::tuple plain_types) {
  if (name == "sgd") return std::make_unique<StateOf<Sgd>>(std::move(plain_types));
  if (name == "rmsprop") return std::make_unique<StateOf<Rmsprop>>(std::move(plain_types));
  if (name == "adam") return std::make_unique<StateOf<Adam>>(std::move(plain_types));
  throw py::value_error("optimizer: expected sgd, rmsprop or adam, got " + name);
}

}  // namespace gdcore
