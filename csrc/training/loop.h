// Steps of gradient descent: evaluate, record, stop or update.
#pragma once

#include <limits>
#include <vector>

#include "training/objective.h"
#include "training/rules.h"

namespace gdcore {

/// When to stop before the epochs are done, and what has been seen so far. What is not asked for never holds.
struct StopRule {
  double loss_below = -std::numeric_limits<double>::infinity();
  Index no_improvement_for = 0;  ///< steps without a loss below the best; 0 for never
  double gradient_norm_below = -std::numeric_limits<double>::infinity();

  double best = std::numeric_limits<double>::infinity();
  Index since_best = 0;

  /// Takes in one more loss, and the norm of its gradient.
  bool holds(double loss, double gradient_norm);
};

template <class T>
struct Loop {
  Objective<T>* objective;
  std::vector<ParameterUpdate>& updates;  ///< `step` and `fresh` move on with the steps
  T* theta;                               ///< parameters in their own dtype, rounded at every step
  T* state;                               ///< kMaxState arrays as long as θ
  Index steps;
  T* losses;             ///< one for each step, taken before its update
  Index record_every;    ///< 0 for never
  T* records;            ///< θ after the update of steps 0, record_every, 2 record_every, …
  double overflow;       ///< the least loss that counts as infinite and ends the loop; not a number for none
  int threads;           ///< for updates that are worth more than one
  double max_grad_norm;  ///< of all that is updated; negative for no clipping
  StopRule* stop;        ///< or null
};

enum class Outcome { kFinished, kInterrupted, kDiverged, kStopped };

struct LoopResult {
  Index losses;   ///< how many were written
  Index updates;  ///< how many were made: one less in a run that diverged or was stopped
  Outcome outcome;
};

/// Runs until the steps are done, the loss is not finite, the rule holds, or `interrupt` says so. Between steps and at
/// the end θ, state, losses and records belong together. A diverged run leaves the last θ whose values are all finite.
template <class T>
LoopResult run(const Loop<T>& loop, const Interrupt& interrupt);

}  // namespace gdcore
