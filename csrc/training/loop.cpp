#include "training/loop.h"

#include <algorithm>
#include <cmath>

#include "kernels/instruction_sets.h"

namespace gdcore {

namespace {

/// Elements between two looks at the clock: some tens of microseconds.
constexpr Index kElementsBetweenPolls = 100'000;
/// What an epoch costs beside its elements.
constexpr Index kEpochElements = 100;

template <class T>
bool all_finite(const T* values, Index count) {
  return std::all_of(values, values + count, [](T value) { return std::isfinite(value); });
}

}  // namespace

template <class T>
SgdRule<T> sgd_rule(const SgdSettings& s) {
  return {static_cast<T>(s.lr),           static_cast<T>(s.momentum), static_cast<T>(1.0 - s.dampening),
          static_cast<T>(s.weight_decay), s.nesterov,                 s.maximize,
          s.fresh};
}

template <class T>
LoopResult run(const Loop<T>& loop, const Interrupt& interrupt) {
  Objective<T>& objective = *loop.objective;
  const Index p = objective.parameters();
  const auto update = kernels<T>().sgd;
  std::vector<SgdRule<T>> rules;
  for (const SgdSettings& settings : loop.settings) rules.push_back(sgd_rule<T>(settings));
  const Array<T> gradient = allocate<T>(p);
  const Array<T> previous = allocate<T>(p);
  std::copy_n(loop.theta, p, previous.get());
  objective.prepare(loop.epochs);

  const Index poll_every = std::max<Index>(kElementsBetweenPolls / (objective.work() + kEpochElements), 1);
  Index until_poll = poll_every;
  Index until_record = 0;
  T* record = loop.records;
  for (Index epoch = 0; epoch < loop.epochs; ++epoch) {
    if (--until_poll == 0) {
      until_poll = poll_every;
      if (interrupt()) return {epoch, Outcome::kInterrupted};
    }
    T loss;
    if (!objective.evaluate(loop.theta, interrupt, &loss, gradient.get())) return {epoch, Outcome::kInterrupted};
    loop.losses[epoch] = loss;
    if (loop.stop_at_infinity && !std::isfinite(loss)) {
      if (!all_finite(loop.theta, p)) std::copy_n(previous.get(), p, loop.theta);
      return {epoch + 1, Outcome::kDiverged};
    }
    std::copy_n(loop.theta, p, previous.get());
    for (std::size_t i = 0; i < rules.size(); ++i) {
      const SgdSettings& s = loop.settings[i];
      update(rules[i], s.size, loop.theta + s.offset, gradient.get() + s.offset, loop.momentum + s.offset);
      rules[i].fresh = false;
    }
    if (loop.record_every > 0 && until_record-- == 0) {
      until_record = loop.record_every - 1;
      std::copy_n(loop.theta, p, record);
      record += p;
    }
  }
  return {loop.epochs, Outcome::kFinished};
}

template LoopResult run(const Loop<float>&, const Interrupt&);
template LoopResult run(const Loop<double>&, const Interrupt&);
template SgdRule<float> sgd_rule(const SgdSettings&);
template SgdRule<double> sgd_rule(const SgdSettings&);

}  // namespace gdcore
