// Whole optimizer steps: torch's parameter groups and state, read as they are at every call, and one job for all.
#include <set>
#include <string>

#include "bindings/optimizer_settings.h"
#include "bindings/problem.h"
#include "bindings/register.h"
#include "kernels/on_device.h"

namespace gdcore {

namespace {

/// A parameter's `step`, a tensor of one number: on the CPU, or as float32 where its kernels count.
class Counter {
 public:
  bool look(py::handle object) {
    return memory_.look(object) && memory_.numel() == 1 &&
           (memory_.storage() == Storage::kFloat32 || (memory_.on_cpu() && memory_.storage() == Storage::kFloat64));
  }
  /// Where the kernels of `parameter` count, or null.
  float* on_device(const Memory& parameter) const {
    return parameter.on_cpu() || !memory_.same_device(parameter) ? nullptr : static_cast<float*>(memory_.data());
  }
  bool on_cpu() const { return memory_.on_cpu(); }
  /// The first step, of which the factors are largest, where the count is not to be had.
  double next() const {
    if (!on_cpu()) return 1.0;
    if (memory_.storage() == Storage::kFloat32) return next_step(*static_cast<const float*>(memory_.data()), true);
    return next_step(*static_cast<const double*>(memory_.data()), false);
  }
  double advance() {
    if (!on_cpu()) return 0.0;
    memory_.read(&before_);
    if (memory_.storage() == Storage::kFloat32) return *static_cast<float*>(memory_.data()) += 1.0f;
    return *static_cast<double*>(memory_.data()) += 1.0;
  }
  void go_back() const {
    if (on_cpu()) memory_.write(&before_);
  }

 private:
  Memory memory_;
  double before_;  ///< or a float in its first bytes
};

template <class Kind>
class Optimizer {
 public:
  Optimizer(py::tuple plain_types, py::object before_writing)
      : torch_(std::move(plain_types)), before_writing_(std::move(before_writing)) {}

  /// One step of all parameters that have a gradient. `fresh` has states for those without, or is None. `skip`, a
  /// tensor of one number, or None: unless it is 0, nothing is written. Returns None, or, with nothing written, the
  /// parameters that these kernels do not take and those without state.
  py::object step(const py::object& groups, const py::dict& state, const py::object& fresh, int threads,
                  const py::object& skip) const {
    Pass pass;
    pass.may_skip = !skip.is_none();
    if (pass.may_skip &&
        !(pass.skip.look(skip) && pass.skip.numel() == 1 && pass.skip.storage() == Storage::kFloat32)) {
      throw py::type_error("found_inf: expected one number of float32");
    }
    const py::object held = result_of(PySequence_Fast(groups.ptr(), "param_groups: expected a list"));
    for (Py_ssize_t i = 0; i < PySequence_Fast_GET_SIZE(held.ptr()); ++i) {
      const py::handle dict = PySequence_Fast_GET_ITEM(held.ptr(), i);
      if (!PyDict_Check(dict.ptr())) throw py::type_error("param_groups: expected dicts");
      const Group group(dict, torch_);
      pass.groups.emplace_back(group, keys_);
      const py::object parameters = py::reinterpret_borrow<py::object>(group.at(params_));
      for (const py::handle parameter : parameters) add(pass, parameter, state, fresh);
    }
    if (!pass.unsuited.empty() || !pass.stateless.empty()) return py::make_tuple(pass.unsuited, pass.stateless);
    if (pass.views.empty() || (pass.may_skip && pass.skip.on_cpu() && *static_cast<float*>(pass.skip.data()) != 0)) {
      return py::none();
    }
    before_writing_(pass.written);
    run(pass, threads);
    return py::none();
  }

 private:
  using RuleOnDevice = OnDevice<decltype(std::declval<Kind>().completed_on_device(false))>;

  /// What one call has found.
  struct Pass {
    std::vector<Kind> groups;
    std::vector<SlotViews> views;
    std::vector<std::size_t> group;  ///< of each view
    std::vector<Counter> counters;
    std::set<const float*> counts;  ///< on devices
    std::vector<bool> fresh;
    std::vector<typename Kind::Rule> rules;
    std::vector<RuleOnDevice> rules_on_device;
    std::vector<const void*> rule_of;
    std::vector<py::object> alive;  ///< gradients, whose owner another thread may take them from
    py::list written;
    py::list unsuited;
    py::list stateless;
    Index work = 0;
    bool may_skip = false;
    Memory skip;                ///< where that is decided
    int capturing_device = -1;  ///< that was last asked whether it is being captured, and its answer
    bool capturing = false;
  };

  void add(Pass& pass, py::handle parameter, const py::dict& state, const py::object& fresh) const {
    py::object grad = torch_.grad(parameter);
    if (grad.is_none()) return;
    const Kind& group = pass.groups.back();
    SlotViews views;
    const bool suited = group.supported && torch_.look(parameter, views.parameter) && torch_.look(grad, views.grad) &&
                        views.grad.storage() == views.parameter.storage() && !torch_.inference(parameter) &&
                        has_rate(group, views.parameter) && !(group.capturable && views.parameter.on_cpu()) &&
                        (!pass.may_skip || pass.skip.on_cpu() || pass.skip.same_device(views.parameter));
    if (!suited) return pass.unsuited.append(parameter);

    std::copy_n(group.used, kMaxState, views.used);
    PyObject* values = nullptr;
    bool is_fresh = false;
    Counter counter = {};
    if (Kind::kCounts || group.used[0]) {
      values = find(state, parameter);
      if (values == nullptr || !PyDict_Check(values) || lacks_all(values)) {
        views.used[0] = views.used[1] = views.used[2] = false;
        if (!views.together()) return pass.unsuited.append(parameter);
        views.check(Kind::kStates);
        expect_fit(pass, views.parameter, 1.0, true);
        expect_repeatable(pass, views.parameter, true);
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
    if (Kind::kCounts) {
      views.count = counter.on_device(views.parameter);
      // Counted on another device than its own, or where torch would not: torch has something to say of that.
      const bool elsewhere = pass.may_skip && !pass.skip.on_cpu();
      // Two that share one are counted in turn.
      const bool known = counter.on_cpu() || pass.counts.insert(views.count).second;
      if (!known || (counter.on_cpu() ? group.capturable || elsewhere : views.count == nullptr)) {
        return pass.unsuited.append(parameter);
      }
    }
    views.on_device = views.count != nullptr || !group.rate.is_none() || (pass.may_skip && !pass.skip.on_cpu());
    if (!views.together()) return pass.unsuited.append(parameter);
    views.check(Kind::kStates);
    expect_fit(pass, views.parameter, Kind::kCounts ? counter.next() : 0.0, is_fresh);
    expect_repeatable(pass, views.parameter, is_fresh);
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

  static void expect_fit(const Pass& pass, const Memory& parameter, double step, bool fresh) {
    const Kind& group = pass.groups.back();
    if (group.fits || parameter.storage() == Storage::kFloat64) return;
    for (const Factor& factor : group.factors(step, fresh)) {
      if (fits_single(factor.value)) continue;
      const auto text = [](double number) { return py::str(py::float_(number)).template cast<std::string>(); };
      throw std::runtime_error("param_groups[" + std::to_string(pass.groups.size() - 1) + "]['" + factor.setting +
                               "']: expected " + factor.formula + " of at most " + text(kLargestSingle) +
                               ", as its parameters are computed in float32, got " + text(factor.value));
    }
  }

  // A graph would replay the count of the step that it was captured at, and a first step with a first step's states.
  static void expect_repeatable(Pass& pass, const Memory& parameter, bool fresh) {
    const bool counts = Kind::kCounts && !pass.groups.back().capturable;
    if (parameter.on_cpu() || !(counts || fresh)) return;
    if (pass.capturing_device != parameter.device()) {
      pass.capturing_device = parameter.device();
      pass.capturing = device_updates()->capturing(pass.capturing_device);
    }
    if (!pass.capturing) return;
    if (counts) {
      throw std::runtime_error("capturable: expected True, as the step is being captured into a CUDA graph, got False");
    }
    throw std::runtime_error(
        std::string(Kind::kStates[0]) +
        ": expected one, as the step is being captured into a CUDA graph, got none; make a step before");
  }

  /// Whether its rate is a number here, or where the parameter is.
  static bool has_rate(const Kind& group, const Memory& parameter) {
    Memory rate;
    return group.rate.is_none() || (rate.look(group.rate) && rate.same_device(parameter));
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

  static RuleOnDevice rule_on_device(const Pass& pass, const Kind& group, double step, bool fresh) {
    Memory rate;
    const bool elsewhere = !group.rate.is_none() && rate.look(group.rate);
    return {group.completed_on_device(fresh), elsewhere ? rate.data() : nullptr,
            elsewhere && rate.storage() == Storage::kFloat32, std::is_same_v<Kind, Adam> ? step : 0.0,
            pass.may_skip && !pass.skip.on_cpu() ? static_cast<const float*>(pass.skip.data()) : nullptr};
  }

  void run(Pass& pass, int threads) const {
    const std::size_t count = pass.views.size();
    pass.rules.reserve(count);
    pass.rules_on_device.reserve(count);
    pass.rule_of.reserve(count);
    for (std::size_t i = 0; i < count; ++i) {
      const double step = Kind::kCounts ? pass.counters[i].advance() : 0.0;
      const Kind& group = pass.groups[pass.group[i]];
      if (pass.views[i].on_device) {
        pass.rules_on_device.push_back(rule_on_device(pass, group, step, pass.fresh[i]));
        pass.rule_of.push_back(&pass.rules_on_device.back());
      } else {
        pass.rules.push_back(group.rule(step, pass.fresh[i]));
        pass.rule_of.push_back(&pass.rules.back());
      }
    }
    try {
      const MaybeReleaseGil release(pass.work);
      run_all(pass.views, pass.rule_of, Kind::kKernel, threads);
    } catch (...) {
      // A launch that failed, say, is no step, though those before it have updated what they were given: other devices'
      // parameters, or the first of very many.
      for (std::size_t i = Kind::kCounts ? count : 0; i-- > 0;) pass.counters[i].go_back();
      throw;
    }
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
      .def("step", &Optimizer<Kind>::step, py::arg("groups"), py::arg("state"), py::arg("fresh"), py::arg("threads"),
           py::arg("skip"));
}

}  // namespace

void register_optimizers(py::module_& m) {
  register_optimizer<Sgd>(m, "SgdStep");
  register_optimizer<Rmsprop>(m, "RmspropStep");
  register_optimizer<Adam>(m, "AdamStep");
}

}  // namespace gdcore
