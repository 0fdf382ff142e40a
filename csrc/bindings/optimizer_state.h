// What an optimizer's groups and state say of the parameters that a training loop works on, and back.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "bindings/slots.h"
#include "bindings/tensor.h"
#include "training/rules.h"

namespace gdcore {

/// A parameter that is trained: its place in the model's list, its update, its state's tensors.
struct Trained {
  std::size_t index;
  ParameterUpdate update;  ///< but for its offset
  py::object parameter;
  std::optional<Tensor> state[kMaxState];
  bool counted = false;
  Memory counter;    ///< where updates are counted, if they are
  py::object fresh;  ///< the state that the optimizer has not yet, to be given to it after an update; or none
  std::vector<py::object> alive;
};

/// One optimizer's way to keep settings and state.
class OptimizerState {
 public:
  virtual ~OptimizerState() = default;

  /// The trained ones among `parameters`: held by a group, and requiring grad. `fresh(group, parameter)` makes the
  /// state of one that has none yet; where it is None, that is left out. Throws what names the setting or state that
  /// the kernels do not take.
  virtual std::vector<Trained> read(const py::list& groups, const py::dict& state,
                                    const std::vector<py::object>& parameters, const py::object& fresh) const = 0;
  /// What `read` would throw of the settings.
  virtual void check(const py::list& groups, const std::vector<py::object>& parameters) const = 0;
};

/// Of "sgd", "rmsprop" or "adam"; `plain_types` are those of tensors without rules of their own.
std::unique_ptr<OptimizerState> optimizer_state(const std::string& name, py::tuple plain_types);

}  // namespace gdcore
