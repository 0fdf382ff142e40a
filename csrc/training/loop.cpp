#include "training/loop.h"

#include <algorithm>
#include <cmath>

#include "kernels/instruction_sets.h"
#include "training/updates.h"

namespace gdcore {

namespace {

/// Elements between two looks at the clock: some tens of microseconds.
constexpr Index kElementsBetweenPolls = 100'000;
/// What a step costs beside its elements.
constexpr Index kStepElements = 100;

template <class T>
bool all_finite(const T* values, Index count) {
  return std::all_of(values, values + count, [](T value) { return std::isfinite(value); });
}

template <class T>
constexpr Storage kStorageOf = sizeof(T) == 8 ? Storage::kFloat64 : Storage::kFloat32;

/// One job for each run of parameters that are neighbours in θ and are updated alike. All are of one optimizer.
template <class T>
class Updater {
 public:
  Updater(const Loop<T>& loop, const T* gradient) : threads_(loop.threads), updates_(loop.updates) {
    const Index p = loop.objective->parameters();
    const Updates& kernels = gdcore::updates(kStorageOf<T>);
    for (std::size_t i = 0; i < updates_.size(); ++i) {
      const ParameterUpdate& u = updates_[i];
      if (i > 0 && alike(updates_[i - 1], u)) {
        jobs_.back().size += u.size;
        continue;
      }
      UpdateJob job = {kernels.*kKernels[u.settings.index()],
                       nullptr,
                       {loop.theta + u.offset, gradient + u.offset, {}},
                       u.size,
                       kStorageOf<T>};
      for (int k = 0; k < kMaxState; ++k) job.slots.state[k] = u.used[k] ? loop.state + k * p + u.offset : nullptr;
      jobs_.push_back(job);
      first_.push_back(i);
    }
    Index size = 0;
    for (const UpdateJob& job : jobs_) size += job.size;
    serial_ = size < kSerialElements || threads_ <= 1;
    if (std::holds_alternative<AdamSettings>(updates_[0].settings)) adam_.resize(jobs_.size());
    for (std::size_t j = 0; j < jobs_.size(); ++j) point_at_rule(j);
  }

  /// SGD's rule, if the next update is by that alone, the same for all of θ, with every buffer filled.
  const SgdUpdate* plain_sgd(Index parameters) const {
    const bool alone = jobs_.size() == 1 && jobs_[0].size == parameters && !fresh_;
    return alone ? std::get_if<SgdUpdate>(&updates_[first_[0]].settings) : nullptr;
  }

  void step() {
    if (counted_) count();
    if (serial_) {  // nothing to decide at every step
      for (const UpdateJob& job : jobs_) job.kernel(job.rule, job.slots, 0, job.size);
    } else {
      run_updates(jobs_, threads_);
    }
    if (fresh_) no_longer_fresh();
  }

 private:
  static constexpr UpdateKernel Updates::* kKernels[] = {&Updates::sgd, &Updates::rmsprop, &Updates::adam};

  static bool alike(const ParameterUpdate& a, const ParameterUpdate& b) {
    return a.offset + a.size == b.offset && a.settings == b.settings &&
           std::equal(a.used, a.used + kMaxState, b.used) && a.step == b.step && a.single_step == b.single_step;
  }

  void point_at_rule(std::size_t j) {
    UpdateSettings& settings = updates_[first_[j]].settings;
    if (auto* sgd = std::get_if<SgdUpdate>(&settings)) {
      jobs_[j].rule = sgd;
      fresh_ = fresh_ || sgd->fresh;
    } else if (auto* rmsprop = std::get_if<RmspropUpdate>(&settings)) {
      jobs_[j].rule = rmsprop;
      counted_ = true;
    } else {
      jobs_[j].rule = &adam_[j];
      counted_ = true;
    }
  }

  void count() {
    for (ParameterUpdate& u : updates_) u.step = next_step(u.step, u.single_step);
    for (std::size_t j = 0; j < jobs_.size(); ++j) {
      const ParameterUpdate& u = updates_[first_[j]];
      if (const auto* adam = std::get_if<AdamSettings>(&u.settings)) adam_[j] = adam->rule(u.step);
    }
  }

  void no_longer_fresh() {
    for (ParameterUpdate& u : updates_) {
      if (auto* sgd = std::get_if<SgdUpdate>(&u.settings)) sgd->fresh = false;
    }
    fresh_ = false;
  }

  int threads_;
  std::vector<ParameterUpdate>& updates_;
  std::vector<UpdateJob> jobs_;
  std::vector<std::size_t> first_;  ///< of each job's parameters
  std::vector<AdamUpdate> adam_;    ///< the rule of the step, where it depends on it
  bool serial_;
  bool counted_ = false;
  bool fresh_ = false;
};

template <class T>
double norm(const T* gradient, const std::vector<ParameterUpdate>& updated) {
  double squares = 0.0;
  for (const ParameterUpdate& u : updated) {
    for (Index i = u.offset; i < u.offset + u.size; ++i) {
      squares = std::fma(static_cast<double>(gradient[i]), static_cast<double>(gradient[i]), squares);
    }
  }
  return std::sqrt(squares);
}

template <class T>
void clip(T* gradient, const std::vector<ParameterUpdate>& updated, double gradient_norm, double max_norm) {
  const double coefficient = clip_coefficient(gradient_norm, max_norm);
  if (coefficient >= 1.0) return;
  for (const ParameterUpdate& u : updated) {
    for (Index i = u.offset; i < u.offset + u.size; ++i) gradient[i] *= static_cast<T>(coefficient);
  }
}

template <class T>
LoopResult make_steps(const Loop<T>& loop, const Interrupt& interrupt) {
  Objective<T>& objective = *loop.objective;
  const Index p = objective.parameters();
  const Array<T> gradient = allocate<T>(p);
  const Array<T> previous = allocate<T>(p);
  std::copy_n(loop.theta, p, previous.get());
  Updater<T> updater(loop, gradient.get());
  objective.prepare(loop.steps);
  const bool ends = !std::isnan(loop.overflow);
  const bool looks_at_norm = loop.max_grad_norm >= 0 || loop.stop != nullptr;
  const bool descends = objective.descends() && ends && !looks_at_norm && loop.record_every == 0;

  const Index poll_every = std::max<Index>(kElementsBetweenPolls / (objective.work() + kStepElements), 1);
  Index until_poll = poll_every;
  Index until_record = 0;
  T* record = loop.records;
  for (Index step = 0; step < loop.steps; ++step) {
    if (--until_poll <= 0) {
      until_poll = poll_every;
      if (interrupt()) return {step, step, Outcome::kInterrupted};
    }
    if (const SgdUpdate* const rule = descends ? updater.plain_sgd(p) : nullptr) {
      const Index made =
          objective.descend({0, 0.0, rule, std::min(poll_every, loop.steps - step), loop.overflow, loop.theta,
                             previous.get(), rule->momentum != 0 ? loop.state : nullptr, loop.losses + step});
      if (made > 0) {
        step += made - 1;
        until_poll -= made - 1;
        continue;
      }
    }
    T loss;
    if (!objective.evaluate(loop.theta, interrupt, &loss, gradient.get())) return {step, step, Outcome::kInterrupted};
    loop.losses[step] = loss;
    if (ends && !(static_cast<double>(loss) < loop.overflow)) {
      if (!all_finite(loop.theta, p)) std::copy_n(previous.get(), p, loop.theta);
      return {step + 1, step, Outcome::kDiverged};
    }
    if (looks_at_norm) {
      const double gradient_norm = norm(gradient.get(), loop.updates);
      if (loop.stop != nullptr && loop.stop->holds(static_cast<double>(loss), gradient_norm)) {
        return {step + 1, step, Outcome::kStopped};
      }
      if (loop.max_grad_norm >= 0) clip(gradient.get(), loop.updates, gradient_norm, loop.max_grad_norm);
    }
    std::copy_n(loop.theta, p, previous.get());
    updater.step();
    if (loop.record_every > 0 && until_record-- == 0) {
      until_record = loop.record_every - 1;
      std::copy_n(loop.theta, p, record);
      record += p;
    }
  }
  return {loop.steps, loop.steps, Outcome::kFinished};
}

}  // namespace

bool StopRule::holds(double loss, double gradient_norm) {
  if (loss < best) {
    best = loss;
    since_best = 0;
  } else {
    ++since_best;
  }
  return loss < loss_below || gradient_norm < gradient_norm_below ||
         (no_improvement_for > 0 && since_best >= no_improvement_for);
}

template <class T>
LoopResult run(const Loop<T>& loop, const Interrupt& interrupt) {
  LoopResult result;
  loop.objective->during([&] { result = make_steps(loop, interrupt); });
  return result;
}

template LoopResult run(const Loop<float>&, const Interrupt&);
template LoopResult run(const Loop<double>&, const Interrupt&);

}  // namespace gdcore
