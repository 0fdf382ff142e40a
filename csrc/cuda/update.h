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

/// At most ENTRIES tensors, and RULES that differ. `Step` and `Rule` are those of the optimizer: SgdStep and SgdUpdate,
/// for example.
template <class S, template <class> class Step, class Rule, int ENTRIES, int RULES>
struct UpdateMany {
  using T = Arithmetic<S>;
  static constexpr int kBlockThreads = kThreads;
  static constexpr int kBlocks = 1;
  static constexpr int kShared = Completed<Rule>::kShared;

  typename Completed<Rule>::Entry entries[ENTRIES];
  Rule rules[RULES];
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
    const Index first = (c.block() - entry.first_block) * kInFlight * kStride + Index{c.thread()} * kVector<S>;
    // Slots that may be aliased, as far as a compiler knows: all is read before anything is written.
    Values values[kInFlight];
    GDCORE_UNROLL
    for (int u = 0; u < kInFlight; ++u) load(entry, first + u * kStride, values[u]);
    const Step<T> step(Completed<Rule>::get(c, rules[entry.rule], entry));
    GDCORE_UNROLL
    for (int u = 0; u < kInFlight; ++u) advance(step, entry.slots, values[u]);
    GDCORE_UNROLL
    for (int u = 0; u < kInFlight; ++u) store(entry, first + u * kStride, values[u]);
  }

 private:
  static constexpr Index kStride = Index{kThreads} * kVector<S>;

  /// The elements of one vector.
  struct Values {
    T parameter[kVector<S>], grad[kVector<S>], states[kMaxState][kVector<S>];
  };

  GDCORE_KERNEL static bool is_whole(const Entry& entry, Index i) {
    return entry.aligned && i + kVector<S> <= entry.size;
  }

  GDCORE_KERNEL static void load(const Entry& entry, Index i, Values& to) {
    const S* const parameter = static_cast<const S*>(entry.slots.parameter) + i;
    const S* const grad = static_cast<const S*>(entry.slots.grad) + i;
    if (is_whole(entry, i)) {
      read_vector(parameter, to.parameter);
      read_vector(grad, to.grad);
      GDCORE_UNROLL
      for (int k = 0; k < kMaxState; ++k) {
        if (entry.slots.state[k] != nullptr) {
          read_vector(static_cast<const S*>(entry.slots.state[k]) + i, to.states[k]);
        }
      }
      return;
    }
    GDCORE_UNROLL
    for (int v = 0; v < kVector<S>; ++v) {
      if (i + v >= entry.size) continue;
      to.parameter[v] = read(parameter + v);
      to.grad[v] = read(grad + v);
      T state[kMaxState];
      read_states<S>(entry.slots, i + v, state);
      GDCORE_UNROLL
      for (int k = 0; k < kMaxState; ++k) to.states[k][v] = state[k];
    }
  }

  GDCORE_KERNEL static void advance(const Step<T>& step, const Slots& slots, Values& values) {
    GDCORE_UNROLL
    for (int v = 0; v < kVector<S>; ++v) {
      T state[kMaxState] = {values.states[0][v], values.states[1][v], values.states[2][v]};
      values.parameter[v] = step(slots, values.parameter[v], values.grad[v], state);
      GDCORE_UNROLL
      for (int k = 0; k < kMaxState; ++k) values.states[k][v] = state[k];
    }
  }

  GDCORE_KERNEL static void store(const Entry& entry, Index i, const Values& from) {
    S* const parameter = static_cast<S*>(entry.slots.parameter) + i;
    if (is_whole(entry, i)) {
      write_vector(parameter, from.parameter);
      GDCORE_UNROLL
      for (int k = 0; k < kMaxState; ++k) {
        if (entry.slots.state[k] != nullptr) write_vector(static_cast<S*>(entry.slots.state[k]) + i, from.states[k]);
      }
      return;
    }
    GDCORE_UNROLL
    for (int v = 0; v < kVector<S>; ++v) {
      if (i + v >= entry.size) continue;
      write(parameter + v, from.parameter[v]);
      const T state[kMaxState] = {from.states[0][v], from.states[1][v], from.states[2][v]};
      write_states<S>(entry.slots, i + v, state);
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
