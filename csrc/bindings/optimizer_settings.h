// What a parameter group of torch says about the updates of its parameters, read as it is at every step.
#pragma once

#include <array>
#include <cmath>
#include <limits>
#include <stdexcept>

#include "bindings/python.h"
#include "bindings/slots.h"
#include "training/rules.h"

namespace gdcore {

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
  /// None where there is none.
  py::object grad(py::handle parameter) const { return get(parameter, grad_); }

 private:
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
  /// 0 for a number that only torch can make sense of.
  double number(const Key& key) const {
    const py::handle value = at(key);
    if (PyFloat_Check(value.ptr()) || PyLong_Check(value.ptr())) return to_double(value);
    Memory memory;
    const bool known = is_number(value, memory) && memory.on_cpu();
    odd_ = odd_ || !known;
    return known ? to_double(value) : 0.0;
  }
  /// A rate, which is 0 where it is `elsewhere`.
  double rate(const Key& key) const { return elsewhere(key).is_none() ? number(key) : 0.0; }
  /// Whether a number was asked for that is neither Python's nor a rate in a tensor of float32 or float64: how torch
  /// computes with it, or refuses it, is torch's to say.
  bool odd() const { return odd_; }
  bool flag(const Key& key) const { return is_true(at(key)); }
  bool is_tensor(const Key& key) const { return torch_.plain(at(key)); }
  /// The number of float32 or float64 on another device that this is, which cannot be had without waiting for it; or
  /// None.
  py::object elsewhere(const Key& key) const {
    Memory memory;
    const bool found = is_number(at(key), memory) && !memory.on_cpu();
    return found ? py::reinterpret_borrow<py::object>(at(key)) : py::none();
  }
  /// A rate that is a tensor of float32 is one whose arithmetic torch rounds to float32.
  bool is_single(const Key& key) const {
    Memory memory;
    return is_tensor(key) && memory.look(at(key)) && memory.storage() != Storage::kFloat64;
  }

 private:
  bool is_number(py::handle value, Memory& memory) const {
    return torch_.look(value, memory) && memory.numel() == 1 &&
           (memory.storage() == Storage::kFloat32 || memory.storage() == Storage::kFloat64);
  }

  py::dict dict_;
  const Torch& torch_;
  mutable bool odd_ = false;
};

/// What an update multiplies by, and the setting that it comes from.
struct Factor {
  const char* setting;
  const char* formula;
  double value;
};

inline constexpr double kLargestSingle = std::numeric_limits<float>::max();

/// Whether arithmetic in float32 takes the number, as torch has it: not what would only there become infinite.
inline bool fits_single(double value) { return !(std::abs(value) > kLargestSingle) || std::isinf(value); }

/// Each optimizer says which states its group's settings use, what torch's own step is left to do (`supported`), a rate
/// that is elsewhere, whether steps are counted on the device (`capturable`), what its kernel needs for one parameter,
/// the factors that torch lets enter float32 only if they fit, and, at less cost, whether they do at every step
/// (`fits`).
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
      : settings{g.rate(k.lr),
                 g.number(k.momentum),
                 1.0 - g.number(k.dampening),
                 g.number(k.weight_decay),
                 g.flag(k.nesterov),
                 g.flag(k.maximize),
                 false},
        rate(g.elsewhere(k.lr)),
        supported(!g.odd() && !g.flag(k.differentiable)),
        fits(fits_single(settings.lr) && fits_single(settings.weight_decay) && fits_single(settings.momentum) &&
             fits_single(settings.one_minus_dampening)),
        used{settings.momentum != 0, false, false} {}

  Rule rule(double /*step*/, bool fresh) const {
    Rule rule = settings;
    rule.fresh = fresh;
    return rule;
  }
  SgdUpdate completed_on_device(bool fresh) const { return rule(0.0, fresh); }

  std::array<Factor, 4> factors(double /*step*/, bool fresh) const {
    return {{{"lr", "lr", settings.lr},
             {"weight_decay", "weight_decay", settings.weight_decay},
             {"momentum", "momentum", settings.nesterov ? settings.momentum : 0.0},
             {"dampening", "1 - dampening", used[0] && !fresh ? settings.one_minus_dampening : 0.0}}};
  }

  SgdUpdate settings;
  py::object rate;
  static constexpr bool capturable = false;
  bool supported;
  bool fits;
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
      : settings{g.rate(k.lr),         g.number(k.alpha), g.number(k.eps), g.number(k.weight_decay),
                 g.number(k.momentum), g.flag(k.maximize)},
        rate(g.elsewhere(k.lr)),
        capturable(g.flag(k.capturable)),
        supported(!g.odd() && !g.flag(k.differentiable)),
        fits(fits_single(settings.lr) && fits_single(settings.weight_decay) && fits_single(1.0 - settings.alpha)),
        used{true, settings.momentum > 0, g.flag(k.centered)} {}

  Rule rule(double /*step*/, bool /*fresh*/) const { return settings; }
  RmspropUpdate completed_on_device(bool /*fresh*/) const { return settings; }

  std::array<Factor, 3> factors(double /*step*/, bool /*fresh*/) const {
    return {{{"lr", "lr", settings.lr},
             {"weight_decay", "weight_decay", settings.weight_decay},
             {"alpha", "1 - alpha", 1.0 - settings.alpha}}};
  }

  RmspropUpdate settings;
  py::object rate;
  bool capturable;
  bool supported;
  bool fits;
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
      : settings{g.rate(k.lr),        g.is_single(k.lr), 0.0, 0.0, g.number(k.eps), g.number(k.weight_decay),
                 g.flag(k.decoupled), g.flag(k.maximize)},
        rate(g.elsewhere(k.lr)),
        capturable(g.flag(k.capturable)),
        used{true, true, g.flag(k.amsgrad)} {
    const auto betas = py::reinterpret_borrow<py::sequence>(g.at(k.betas));
    const bool two = PySequence_Check(betas.ptr()) != 0 && PySequence_Size(betas.ptr()) == 2;
    const py::object first = two ? py::object(betas[0]) : py::none(), second = two ? py::object(betas[1]) : py::none();
    const bool numbers = PyFloat_Check(first.ptr()) && PyFloat_Check(second.ptr()) && is_share(to_double(first)) &&
                         is_share(to_double(second));
    // torch refuses foreach with a rate that is a tensor.
    supported =
        numbers && !g.odd() && !g.flag(k.differentiable) && !(g.flag(k.foreach) && g.is_tensor(k.lr) && !capturable);
    if (!numbers) return;
    settings.beta1 = to_double(first);
    settings.beta2 = to_double(second);
    fits = std::abs(settings.lr) <= kLargestSingle * (1.0 - settings.beta1) && fits_single(settings.weight_decay);
  }

  Rule rule(double step, bool /*fresh*/) const { return settings.rule(step); }
  AdamSettings completed_on_device(bool /*fresh*/) const { return settings; }

  std::array<Factor, 2> factors(double step, bool /*fresh*/) const {
    const AdamUpdate rule = settings.rule(step);
    return {
        {{"lr", "lr / (1 - betas[0] ** step)", rule.step_size}, {"weight_decay", "weight_decay", rule.weight_decay}}};
  }

  static bool is_share(double beta) { return beta >= 0.0 && beta < 1.0; }

  AdamSettings settings;
  py::object rate;
  bool capturable;
  bool supported = false;
  bool fits = false;
  bool used[kMaxState];
};

}  // namespace gdcore
