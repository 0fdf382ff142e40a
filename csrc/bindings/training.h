// Full-batch training on the user's own tensors.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "bindings/problem.h"
#include "training/loop.h"

namespace gdcore {

/// Lets Python handle signals every few milliseconds, and keeps what a handler raised.
class SignalPoll {
 public:
  Interrupt interrupt() {
    return {[](void* self) { return static_cast<SignalPoll*>(self)->check(); }, this};
  }
  py::object raised() const { return raised_ ? raised_->value() : py::none(); }
  void raise() const {
    if (raised_) throw *raised_;
  }

 private:
  bool check() {
    if (raised_) return true;
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

/// How long to run, and what to write about it.
struct Request {
  py::handle losses;
  Index epochs;
  Index record_every;
  py::handle records;
  bool stop_at_infinity;
  int threads;
};

/// What a run writes, and where each parameter lies in θ.
struct Written {
  std::vector<Index> offsets;                  ///< of every parameter of the problem
  std::vector<std::size_t> parameters;         ///< indices of those that are written
  std::vector<SgdSettings> settings;           ///< and how
  std::vector<std::optional<Tensor>> momenta;  ///< and their momentum buffers
};

/// A model's parameters with the settings of their updates, ready to be run on data.
class Training {
 public:
  /// (parameter's index, lr, momentum, dampening, weight_decay, nesterov, maximize, fresh)
  using Setting = std::tuple<std::size_t, double, double, double, double, bool, bool, bool>;

  Training(const std::string& model, bool flat, std::vector<py::object> parameters, std::vector<py::object> momenta,
           std::vector<Setting> settings, bool mean)
      : model_(model_named(model)),
        flat_(flat),
        parameters_(std::move(parameters)),
        momenta_(std::move(momenta)),
        settings_(std::move(settings)),
        mean_(mean) {}

  /// Checks everything, then runs; parameters and momentum buffers are those of the last whole epoch.
  LoopResult run(py::handle x, py::handle target, const Request& request, const Interrupt& interrupt) const;

 private:
  Written written(const Problem& problem) const;

  Model model_;
  bool flat_;
  std::vector<py::object> parameters_;
  std::vector<py::object> momenta_;
  std::vector<Setting> settings_;
  bool mean_;
};

}  // namespace gdcore
