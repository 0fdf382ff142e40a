// Epochs of full-batch gradient descent: evaluate, record, update.
#pragma once

#include <vector>

#include "training/objective.h"

namespace gdcore {

/// torch.optim.SGD's settings for one parameter: a range of θ.
struct SgdSettings {
  Index offset;
  Index size;
  double lr;
  double momentum;
  double dampening;
  double weight_decay;
  bool nesterov;
  bool maximize;
  bool fresh;  ///< the momentum buffer has no value yet
};

template <class T>
struct Loop {
  Objective<T>* objective;
  const std::vector<SgdSettings>& settings;
  T* theta;     ///< parameters in their own dtype, rounded at every step
  T* momentum;  ///< as long as θ
  Index epochs;
  T* losses;              ///< one for each epoch, taken before its update
  Index record_every;     ///< 0 for never
  T* records;             ///< θ after the update of epochs 0, record_every, 2 record_every, …
  bool stop_at_infinity;  ///< whether a loss that is not finite ends the loop
};

enum class Outcome { kFinished, kInterrupted, kDiverged };

struct LoopResult {
  Index epochs;  ///< how many losses were written and, but for the last of a diverged run, followed by an update
  Outcome outcome;
};

/// Runs until the epochs are done, the loss is not finite, or `interrupt` says so. Between epochs and at the end θ,
/// momentum, losses and records belong together. A diverged run leaves the last θ whose values are all finite.
template <class T>
LoopResult run(const Loop<T>& loop, const Interrupt& interrupt);

/// The rule of a parameter in its own dtype.
template <class T>
SgdRule<T> sgd_rule(const SgdSettings& settings);

}  // namespace gdcore
