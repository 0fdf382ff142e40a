#include "kernels/instruction_sets.h"

#include <atomic>
#include <stdexcept>

namespace gdcore {

namespace {

struct InstructionSet {
  const char* name;
  const KernelTable* table;
  const Updates* updates;
  bool (*supported)();
};

// The widest last.
constexpr InstructionSet kBuilt[] = {
    {"baseline", &kBaselineKernels, kBaselineUpdates, [] { return true; }},
#if defined(__x86_64__)
    {"avx2", &kAvx2Kernels, kAvx2Updates,
     [] { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c"); }},
    {"avx512", &kAvx512Kernels, kAvx512Updates,
     [] {
       return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("fma");
     }},
#endif
};

const InstructionSet* widest() {
  const InstructionSet* found = kBuilt;
  for (const InstructionSet& set : kBuilt) {
    if (set.supported()) found = &set;
  }
  return found;
}

std::atomic<const InstructionSet*> active = widest();

}  // namespace

std::vector<std::string> built_instruction_sets() {
  std::vector<std::string> names;
  for (const InstructionSet& set : kBuilt) names.emplace_back(set.name);
  return names;
}

std::vector<std::string> available_instruction_sets() {
  std::vector<std::string> names;
  for (const InstructionSet& set : kBuilt) {
    if (set.supported()) names.emplace_back(set.name);
  }
  return names;
}

std::string active_instruction_set() { return active.load(std::memory_order_relaxed)->name; }

void choose_instruction_set(const std::string& name) {
  std::string available;
  for (const InstructionSet& set : kBuilt) {
    if (!set.supported()) continue;
    if (name == set.name) {
      active.store(&set, std::memory_order_relaxed);
      return;
    }
    available += (available.empty() ? "" : ", ") + std::string(set.name);
  }
  throw std::invalid_argument("instruction set: expected one available on this processor (" + available + "), got '" +
                              name + "'");
}

template <>
const Kernels<float>& kernels<float>() {
  return active.load(std::memory_order_relaxed)->table->float32;
}

template <>
const Kernels<double>& kernels<double>() {
  return active.load(std::memory_order_relaxed)->table->float64;
}

TriangleKernel triangle_kernel() { return active.load(std::memory_order_relaxed)->table->triangle; }

const Updates& updates(Storage storage) {
  return active.load(std::memory_order_relaxed)->updates[static_cast<int>(storage)];
}

}  // namespace gdcore
