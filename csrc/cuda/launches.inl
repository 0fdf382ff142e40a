// The launches of launches.h, for any Queue: run(body, blocks, threads) puts a kernel behind what was put there before.
//
// Scratch: the divisor of a weighted mean, then the gradient, where a loop needs it whole (and the weights of an
// indexed model), then partial sums.
#include "cuda/finish.h"
#include "cuda/fit.h"
#include "cuda/launches.h"
#include "cuda/update.h"

namespace gdcore::cuda {

template <class T>
using Cubic = Polynomial<T, 3>;
template <class T>
using AnyDegree = Polynomial<T, kMaxDegree>;

template <class S>
inline constexpr Storage kStorage = Storage::kFloat32;
template <>
inline constexpr Storage kStorage<double> = Storage::kFloat64;
template <>
inline constexpr Storage kStorage<BFloat16> = Storage::kBFloat16;
template <>
inline constexpr Storage kStorage<Float16> = Storage::kFloat16;

/// `size` terms, or the sum of their weights: a pass of its own over them, as gradients of inputs are divided by it
/// while they are written, and the linear kernels have no registers left to add up one thing more.
template <class S, class Queue>
Divisor divisor_of(Queue& queue, bool mean, Index size, const View& weight, double* scratch) {
  if (!mean) return {1.0, nullptr};
  if (weight.data == nullptr) return {static_cast<double>(size), nullptr};
  const Index blocks = point_blocks(kStorage<S>, size, 1);
  queue.run(WeightSum<S>{weight, size, scratch + 1}, blocks, kThreads);
  queue.run(AddUp{scratch + 1, blocks, scratch}, 1, kThreads);
  return {0.0, scratch};
}

template <class S, class Queue>
void Launches<S, Queue>::mse(Queue& queue, const MseProblem& p, double* scratch) {
  const Divisor divisor = divisor_of<S>(queue, p.mean, p.size, p.loss_weight, scratch);
  const Index blocks = point_blocks(kStorage<S>, p.size, 1);
  double* const partials = scratch + 1;
  queue.run(Mse<S>{p.input, p.target, p.loss_weight, p.size, divisor, p.gradient, p.losses, partials}, blocks,
            kThreads);
  if (p.loss == nullptr) return;
  Loop loop = {};
  loop.losses = p.loss;
  loop.divisor = divisor;
  queue.run(Finish<S>{partials, blocks, 1, loop}, 1, kThreads);
}

/// How a pass has left its partial sums.
struct Left {
  Index row_blocks;
  Index output_blocks;
};

template <class S, template <class> class ModelOf, class Queue>
Left point_pass(Queue& queue, const Problem& p, double* partials, const Index* status) {
  const Index blocks = point_blocks(kStorage<S>, p.rows, 1 + p.parameters);
  Theta<S> theta = {{}, p.model != Model::kPolynomial};
  for (int i = 0; i < kMaxTensors; ++i) theta.tensors[i] = static_cast<const S*>(p.theta[i]);
  queue.run(Points<S, ModelOf>{p.x, p.target, p.loss_weight, p.rows, static_cast<int>(1 + p.parameters), theta,
                               partials, status},
            blocks, kThreads);
  return {blocks, 1};
}

template <class S, int OUTPUTS, int CHUNKS, class Queue>
Left linear_pass(Queue& queue, const Problem& p, const LinearPlan& plan, const Divisor& divisor, double* partials,
                 const Index* status) {
  queue.run(Linear<S, OUTPUTS, CHUNKS>{p.x, p.target, p.loss_weight, p.rows, p.outputs, plan,
                                       static_cast<const S*>(p.theta[0]),
                                       p.bias ? static_cast<const S*>(p.theta[1]) : nullptr,
                                       static_cast<Arithmetic<S>*>(p.dx), divisor, partials, status},
            plan.row_blocks * plan.output_blocks, kThreads);
  return {plan.row_blocks, plan.output_blocks};
}

/// One pass over the rows.
template <class S, class Queue>
Left pass(Queue& queue, const Problem& p, const Divisor& divisor, double* partials, const Index* status) {
  if (p.model == Model::kLegendre) return point_pass<S, Legendre>(queue, p, partials, status);
  if (p.model == Model::kPolynomial && p.parameters <= 4) return point_pass<S, Cubic>(queue, p, partials, status);
  if (p.model == Model::kPolynomial) return point_pass<S, AnyDegree>(queue, p, partials, status);
  if (p.columns == 1 && p.outputs == 1 && p.dx == nullptr) return point_pass<S, Line>(queue, p, partials, status);
  constexpr Storage storage = kStorage<S>;
  const LinearPlan plan = linear_plan(storage, p.rows, p.columns, p.outputs);
  if (plan.chunks > 1) return linear_pass<S, 1, long_chunks(storage)>(queue, p, plan, divisor, partials, status);
  if (plan.outputs > 1) return linear_pass<S, many_outputs(storage), 1>(queue, p, plan, divisor, partials, status);
  return linear_pass<S, 1, 1>(queue, p, plan, divisor, partials, status);
}

template <class S, class Queue>
void Launches<S, Queue>::loss(Queue& queue, const Problem& p, Loop loop, double* scratch) {
  loop.divisor = divisor_of<S>(queue, p.mean, p.rows * p.outputs, p.loss_weight, scratch);
  double* const partials = scratch + 1;
  const Left left = pass<S>(queue, p, loop.divisor, partials, nullptr);
  queue.run(Finish<S>{partials, left.row_blocks, left.output_blocks, loop}, 1 + p.parameters, kThreads);
}

template <class T, template <class> class ModelOf, class Queue>
void fit_points(Queue& queue, const Problem& p, const Loop& loop) {
  using Body = FitPoints<T, ModelOf>;
  const int busy = fit_point_threads(p.rows, Body::kHeld, Body::kBlockThreads);
  queue.run(Body{Column<T>(p.x), Column<T>(p.target), Column<T>(p.loss_weight), static_cast<int>(p.rows), busy,
                 static_cast<int>(1 + p.parameters), loop},
            1, whole_warps(busy));
}

template <class T, class Queue>
void fit(Queue& queue, const Problem& p, const Loop& loop) {
  if (p.model == Model::kLegendre) return fit_points<T, Legendre>(queue, p, loop);
  if (p.model == Model::kPolynomial && p.parameters <= 4) return fit_points<T, Cubic>(queue, p, loop);
  if (p.model == Model::kPolynomial) return fit_points<T, AnyDegree>(queue, p, loop);
  if (p.columns == 1 && p.outputs == 1) return fit_points<T, Line>(queue, p, loop);
  const FitPlan plan = fit_plan(p.rows, p.columns, p.outputs);
  queue.run(FitLinear<T>{p.x, p.target, p.loss_weight, static_cast<int>(p.rows), static_cast<int>(p.columns),
                         static_cast<int>(p.outputs), p.bias, plan, loop},
            1, plan.threads);
}

/// Epochs of a linear model of weights that are taken from θ.
template <class S, class Queue>
void train_indexed(Queue& queue, const Problem& p, Loop loop, double* scratch) {
  const Index count = p.places.weights;
  Arithmetic<S>* const gradient = reinterpret_cast<Arithmetic<S>*>(scratch);
  S* const weights = reinterpret_cast<S*>(scratch + count);
  double* const partials = scratch + 2 * count;
  Problem linear = p;
  linear.model = Model::kLinear;
  for (const void*& tensor : linear.theta) tensor = nullptr;
  linear.theta[0] = weights;
  linear.parameters = count;
  linear.bias = false;
  Loop sums = loop;
  sums.tensors = 1;
  sums.ranges[0] = {0, count, gradient, {}, {}};
  sums.updates = false;
  queue.run(TakeWeights<S>{p.places, weights, loop}, 1, kThreads);
  const Index end = loop.epoch + loop.epochs;
  for (; loop.epoch < end; ++loop.epoch) {
    sums.epoch = loop.epoch;
    const Left left = pass<S>(queue, linear, loop.divisor, partials, loop.status);
    queue.run(Finish<S>{partials, left.row_blocks, left.output_blocks, sums}, 1 + count, kThreads);
    queue.run(UpdateIndexed<S>{p.places, gradient, weights, loop}, 1, kThreads);
  }
}

template <class S, class Queue>
void Launches<S, Queue>::train(Queue& queue, const Problem& p, Loop loop, double* scratch) {
  loop.divisor = divisor_of<S>(queue, p.mean, p.rows * p.outputs, p.loss_weight, scratch);
  if (p.model == Model::kIndexed) return train_indexed<S>(queue, p, loop, scratch + 1);
  if constexpr (sizeof(S) >= 4) {
    if (fits_one_block(p.rows, p.columns, p.outputs)) return fit<S>(queue, p, loop);
  }
  Arithmetic<S>* const gradient = reinterpret_cast<Arithmetic<S>*>(scratch + 1);
  double* const partials = scratch + 1 + p.parameters;
  const bool by_norm = loop.looks_at_norm();
  for (int i = 0; by_norm && i < loop.tensors; ++i) loop.ranges[i].gradient = gradient + loop.ranges[i].begin;
  const Index end = loop.epoch + loop.epochs;
  for (; loop.epoch < end; ++loop.epoch) {
    const Left left = pass<S>(queue, p, loop.divisor, partials, loop.status);
    loop.updates = !by_norm;
    queue.run(Finish<S>{partials, left.row_blocks, left.output_blocks, loop}, 1 + p.parameters, kThreads);
    if (by_norm) queue.run(UpdateByNorm<S>{gradient, loop}, 1, kThreads);
  }
}

template <class S, class Queue>
void Launches<S, Queue>::scale(Queue& queue, const View& values, Index size, void* data, const void* factor) {
  if constexpr (sizeof(S) >= 4) {
    if (size > 0) queue.run(Scale<S>{values, data, size, factor}, point_blocks(kStorage<S>, size, 1), kThreads);
  }
}

template <class S, class Queue>
void Launches<S, Queue>::legendre_p3(Queue& queue, const LegendreP3Problem& p) {
  queue.run(LegendreP3Points<S>{p.x, p.grad, p.size, p.out}, point_blocks(kStorage<S>, p.size, 1), kThreads);
}

inline bool is_aligned(const Slots& slots) {
  auto bits = reinterpret_cast<std::uintptr_t>(slots.parameter) | reinterpret_cast<std::uintptr_t>(slots.grad);
  for (const void* state : slots.state) bits |= reinterpret_cast<std::uintptr_t>(state);
  return bits % 16 == 0;
}

template <int ENTRIES, int RULES, class S, template <class> class Step, class Rule, class Queue>
void update_in(Queue& queue, const UpdateJob* jobs, Index count) {
  UpdateMany<S, Step, Rule, ENTRIES, RULES> body = {};
  static_assert(sizeof(body) <= kMaxArguments);
  CountSteps counts = {};
  Index blocks = 0;
  int rules = 0;
  const auto launch = [&] {
    if (body.count > 0) queue.run(body, blocks, kThreads);
    if (counts.count > 0) queue.run(counts, 1, kThreads);
    body.count = counts.count = rules = 0;
    blocks = 0;
  };
  for (Index i = 0; i < count; ++i) {
    const UpdateJob& job = jobs[i];
    const Rule& rule = *static_cast<const Rule*>(job.rule);
    if (job.size > 0) {
      // Settings that differ are few; they come in the order of the groups.
      if (rules == 0 || !(body.rules[rules - 1] == rule)) {
        if (rules == RULES) launch();
        body.rules[rules++] = rule;
      }
      auto& entry = body.entries[body.count++];
      static_cast<Entry&>(entry) = {job.slots, job.size, blocks, rules - 1, is_aligned(job.slots)};
      if constexpr (Completed<Rule>::kCounts) entry.count = job.count;
      blocks += ceil_divide(job.size, tile(kStorage<S>));
    }
    if constexpr (Completed<Rule>::kCounts) {
      if (job.count != nullptr) counts.counts[counts.count++] = job.count;
      counts.skip = rule.skip;
    }
    if (body.count == ENTRIES || counts.count == kMaxCountedEntries) launch();
  }
  launch();
}

template <class S, template <class> class Step, class Rule, class Queue>
void update_all(Queue& queue, const UpdateJob* jobs, Index count) {
  const auto rule = [&](Index i) -> const Rule& { return *static_cast<const Rule*>(jobs[i].rule); };
  Index rules = 1;
  for (Index i = 1; i < count; ++i) rules += rule(i) == rule(i - 1) ? 0 : 1;
  if (count <= kFewEntries && rules <= kFewRules) {
    return update_in<kFewEntries, kFewRules, S, Step, Rule>(queue, jobs, count);
  }
  update_in<kMaxEntries, kMaxRules, S, Step, Rule>(queue, jobs, count);
}

template <class S, template <class> class Step, class Settings, class Queue>
void update_on_device(Queue& queue, const UpdateJob* jobs, Index count) {
  update_in<kMaxCountedEntries, kMaxRules, S, Step, OnDevice<Settings>>(queue, jobs, count);
}

template <class S, class Queue>
void Launches<S, Queue>::update(Queue& queue, Kind kind, const UpdateJob* jobs, Index count) {
  const bool on_device = count > 0 && jobs[0].on_device;
  if (kind == Kind::kSgd) {
    return on_device ? update_on_device<S, SgdStep, SgdUpdate>(queue, jobs, count)
                     : update_all<S, SgdStep, SgdUpdate>(queue, jobs, count);
  }
  if (kind == Kind::kRmsprop) {
    return on_device ? update_on_device<S, RmspropStep, RmspropUpdate>(queue, jobs, count)
                     : update_all<S, RmspropStep, RmspropUpdate>(queue, jobs, count);
  }
  on_device ? update_on_device<S, AdamStep, AdamSettings>(queue, jobs, count)
            : update_all<S, AdamStep, AdamUpdate>(queue, jobs, count);
}

}  // namespace gdcore::cuda
