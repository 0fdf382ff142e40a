// Waiting a little while without sleeping.
#pragma once

#include <chrono>

namespace gdcore {

// Waking a sleeper takes tens of microseconds, most of them on a core that a hypervisor has put to rest; so whoever
// waits looks for about as long before it sleeps, and no longer, lest it keep the core from other work.
inline constexpr auto kSpin = std::chrono::microseconds(50);

inline void relax() {
#if defined(__x86_64__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("isb");
#endif
}

/// Whether the condition holds, or does within kSpin.
template <class Condition>
bool spin_until(const Condition& condition) {
  if (condition()) return true;
  const auto give_up = std::chrono::steady_clock::now() + kSpin;
  do {
    for (int i = 0; i < 32; ++i) {
      if (condition()) return true;
      relax();
    }
  } while (std::chrono::steady_clock::now() < give_up);
  return condition();
}

}  // namespace gdcore
