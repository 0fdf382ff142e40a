// Uninitialised arrays aligned for whole groups of lanes.
#pragma once

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <new>

#include "kernels/kernels.h"

namespace gdcore {

/// Frees memory that `allocate` has moved up to a multiple of kLaneBytes, by the distance written before it.
struct Free {
  void operator()(void* memory) const {
    char* const aligned = static_cast<char*>(memory);
    std::free(aligned - static_cast<unsigned char>(aligned[-1]));
  }
};

template <class T>
using Array = std::unique_ptr<T[], Free>;

/// Plain malloc and a shift: the C library's aligned allocation takes several times as long for a few values.
template <class T>
Array<T> allocate(Index count) {
  static_assert(kLaneBytes < 256);
  char* const memory = static_cast<char*>(std::malloc(static_cast<std::size_t>(count) * sizeof(T) + kLaneBytes));
  if (memory == nullptr) throw std::bad_alloc();
  const auto past = reinterpret_cast<std::uintptr_t>(memory) % kLaneBytes;
  const auto shift = static_cast<unsigned char>(kLaneBytes - past);  // at least 1
  memory[shift - 1] = static_cast<char>(shift);
  return Array<T>(reinterpret_cast<T*>(memory + shift));
}

}  // namespace gdcore
