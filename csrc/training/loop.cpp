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

/// One call of the kernel: a range of θ whose parameters share their settings.
template <class T>
struct Update {
  SgdRule<T> rule;
  Index offset;
  Index size;
};

bool alike(const SgdSettings& a, const SgdSettings& b) {
  return a.lr == b.lr && a.momentum == b.momentum && a.dampening == b.dampening && a.weight_decay == b.weight_decay &&
         a.nesterov == b.nesterov && a.maximize == b.maximize && a.fresh == b.fresh;
}

template <class T>
std::vector<Update<T>> joined_updates(const std::vector<SgdSettings>& settings) {
  std::vector<Update<T>> updates;
  for (std::size_t i = 0; i < settings.size(); ++i) {
    const SgdSettings& s = settings[i];
    if (i > 0 && alike(settings[i - 1], s) && settings[i - 1].offset + settings[i - 1].size == s.offset) {
      updates.back().size += s.size;
    } else {
      updates.push_back({sgd_rule<T>(s), s.offset, s.size});
    }
  }
  return updates;
}

}  // namespace

template <class T>
SgdRule<T> sgd_rule(const SgdSettings& s) {
  return {static_cast<T>(s.lr),
          static_cast<T>(s.momentum),
          static_cast<T>(1.0 - s.dampening),
          static_cast<T>(s.weight_decay),
          s.nesterov,
          s.maximize,
          s.fresh};
}

template <class T>
LoopResult run(const Loop<T>& loop, const Interrupt& interrupt) {
  Objective<T>& objective = *loop.objective;
  const Index p = objective.parameters();
  const auto sgd = kernels<T>().sgd;
  std::vector<Update<T>> updates = joined_updates<T>(loop.settings);
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
    for (Update<T>& u : updates) {
      sgd(u.rule, u.size, loop.theta + u.offset, gradient.get() + u.offset, loop.momentum + u.offset);
      u.rule.fresh = false;
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
