// Updates of many tensors in one launch: each block takes one tile of one of them.
//
// One pass: parameter, gradient and states are read once, kInFlight vectors of each before the first is used, and
// parameter and states written once. The tensors must not share memory with one another.
#pragma once

#include "cuda/rules.h"
#include "kernels/on_device.h"

namespace gdcore::cuda {

/// One tensor: as many elements of one dtype in each slot.
struct Entry {
  Slots slots;
  Index size;
  Index first_block;
  int rule;
  bool aligned;  ///< all slots at multiples of sixteen bytes
};

/// One whose steps are counted on the device.
struct CountedEntry : Entry {
  float* count;  ///< or null
};

/// A rule as the steps take it, the same for all threads of a block.
template <class Rule>
struct Completed {
  using Entry = cuda::Entry;
  static constexpr bool kCounts = false;
  static constexpr int kShared = 1;

  GDCORE_KERNEL static bool skips(const Rule&) { return false; }
  template <class Context>
  GDCORE_KERNEL static const Rule& get(Context&, const Rule& rule, const Entry&) {
    return rule;
  }
};

template <class Settings>
struct Completed<OnDevice<Settings>> {
  using Entry = CountedEntry;
  static constexpr bool kCounts = true;
  using Rule = decltype(complete(OnDevice<Settings>(), nullptr));
  static constexpr int kShared = (sizeof(Rule) + sizeof(double) - 1) / sizeof(double);

  GDCORE_KERNEL static bool skips(const OnDevice<Settings>& rule) { return rule.skip != nullptr && *rule.skip != 0; }
  /// By one thread: Adam's takes two powers in double.
  template <class Context>
  GDCORE_KERNEL static const Rule& get(Context& c, const OnDevice<Settings>& rule, const Entry& entry) {
    Rule* const completed = reinterpret_cast<Rule*>(c.shared());
    if (c.thread() == 0) *completed = complete(rule, entry.count);
    c.sync();
    return *completed;
  }
};

/// At most ENTRIES tensors. `Step` and `Rule` are those of the optimizer: SgdStep and SgdUpdate, for example.
template <class S, template <class> class Step, class Rule, int ENTRIES>
struct UpdateMany {
  using T = Arithmetic<S>;
  static constexpr int kBlockThreads = kThreads;
  static constexpr int kBlocks = 1;
  static constexpr int kShared = Completed<Rule>::kShared;

  typename Completed<Rule>::Entry entries[ENTRIES];
  Rule rules[kMaxRules];
  int count;

  template <class Context>
  GDCORE_KERNEL void operator()(Context& c) const {
    int low = 0, high = count;
    while (high - low > 1) {
      const int middle = (low + high) / 2;
      if (entries[middle].first_block <= c.block()) {
        low = middle;
      } else {
        high = middle;
      }
    }
    const auto& entry = entries[low];
    if (Completed<Rule>::skips(rules[entry.rule])) return;
    const Step<T> step(Completed<Rule>::get(c, rules[entry.rule], entry));
    constexpr Index stride = Index{kThreads} * kVector<S>;
    const Index first = (c.block() - entry.first_block) * kInFlight * stride + Index{c.thread()} * kVector<S>;
    if (entry.aligned && first + (kInFlight - 1) * stride + kVector<S> <= entry.size) {
      vectors(step, entry.slots, first);
      return;
    }
    for (int u = 0; u < kInFlight; ++u) {
      for (int v = 0; v < kVector<S>; ++v) {
        const Index i = first + u * stride + v;
        if (i < entry.size) one(step, entry.slots, i);
      }
    }
  }

  GDCORE_KERNEL static void one(const Step<T>& step, const Slots& slots, Index i) {
    T state[kMaxState];
    read_states<S>(slots, i, state);
    S* const parameter = static_cast<S*>(slots.parameter) + i;
    write(parameter, step(slots, read(parameter), read(static_cast<const S*>(slots.grad) + i), state));
    write_states<S>(slots, i, state);
  }

  GDCORE_KERNEL static void vectors(const Step<T>& step, const Slots& slots, Index first) {
    constexpr int vector = kVector<S>;
    constexpr Index stride = Index{kThreads} * vector;
    T p[kInFlight][vector], g[kInFlight][vector], states[kInFlight][kMaxState][vector];
    GDCORE_UNROLL
    for (int u = 0; u < kInFlight; ++u) {
      const Index i = first + u * stride;
      read_vector(static_cast<const S*>(slots.parameter) + i, p[u]);
      read_vector(static_cast<const S*>(slots.grad) + i, g[u]);
      GDCORE_UNROLL
      for (int k = 0; k < kMaxState; ++k) {
        if (slots.state[k] != nullptr) read_vector(static_cast<const S*>(slots.state[k]) + i, states[u][k]);
      }
    }
    GDCORE_UNROLL
    for (int u = 0; u < kInFlight; ++u) {
      const Index i = first + u * stride;
      GDCORE_UNROLL
      for (int v = 0; v < vector; ++v) {
        T state[kMaxState] = {states[u][0][v], states[u][1][v], states[u][2][v]};
        p[u][v] = step(slots, p[u][v], g[u][v], state);
        GDCORE_UNROLL
        for (int k = 0; k < kMaxState; ++k) states[u][k][v] = state[k];
      }
      write_vector(static_cast<S*>(slots.parameter) + i, p[u]);
      GDCORE_UNROLL
      for (int k = 0; k < kMaxState; ++k) {
        if (slots.state[k] != nullptr) write_vector(static_cast<S*>(slots.state[k]) + i, states[u][k]);
      }
    }
  }
};

/// One step more of each, if there was one.
struct CountSteps {
  static constexpr int kBlockThreads = kThreads;
  static constexpr int kBlocks = 1;
  static constexpr int kShared = 1;

  float* counts[kMaxCountedEntries];
  int count;
  const float* skip;

  template <class Context>
  GDCORE_KERNEL void operator()(Context& c) const {
    if (skip != nullptr && *skip != 0) return;
    for (int i = c.thread(); i < count; i += kThreads) *counts[i] += 1.0f;
  }
};

}  // namespace gdcore::cuda
