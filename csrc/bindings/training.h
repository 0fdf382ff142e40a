// Training on the user's own tensors.
#pragma once

#include <chrono>
#include <limits>
#include <optional>
#include <string>
#include <vector>

#include "bindings/optimizer_state.h"
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

/// What a run is made on. `loss_weight` and `order` may be None.
struct RunData {
  py::handle x;
  py::handle target;
  py::handle loss_weight;
  py::handle order;  ///< of the rows, in minibatches: a tensor, or (generator's state, rows shuffled, rows taken)
  Index batch_size;  ///< 0 for the full batch: then each step is an epoch, and else one run is one epoch
};

/// How long to run, and what to write about it.
struct Request {
  py::handle losses;  ///< one for each step
  Index epochs;
  Index record_every;
  py::handle records;
  int threads;
  double overflow = std::numeric_limits<double>::quiet_NaN();  ///< as in `Loop`
  double max_grad_norm = -1.0;                                 ///< negative for none
  StopRule* stop = nullptr;
};

/// A model's parameters with an optimizer's way to update them, ready to be run on data.
class Training {
 public:
  /// `fresh(group, parameter)` makes the state that the optimizer's first step would; `index` is an indexed model's.
  Training(const std::string& model, bool flat, std::vector<py::object> parameters, bool mean,
           const std::string& optimizer, py::tuple plain_types, py::function fresh, py::handle index);

  /// Checks everything, then runs. Parameters and the states of the optimizer's `groups` are then those of the last
  /// whole step, their versions moved on, and `state` holds what was made fresh.
  LoopResult run(const RunData& data, const py::list& groups, const py::dict& state, const Request& request,
                 const Interrupt& interrupt) const;
  /// Throws what a run over all rows would because of its arguments.
  void check_run(const RunData& data, const py::list& groups, const py::dict& state) const;
  /// Throws what a run would because of the optimizer's settings.
  void check(const py::list& groups) const { optimizer_->check(groups, parameters_); }

 private:
  Model model_;
  bool flat_;
  std::vector<py::object> parameters_;
  bool mean_;
  std::unique_ptr<OptimizerState> optimizer_;
  py::function fresh_;
  WeightIndex index_;
};

}  // namespace gdcore
