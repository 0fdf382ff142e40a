// Uninitialised arrays aligned for whole groups of lanes.
#pragma once

#include <cstdlib>
#include <memory>
#include <new>

#include "kernels/kernels.h"

namespace gdcore {

struct Free {
  void operator()(void* memory) const { std::free(memory); }
};

template <class T>
using Array = std::unique_ptr<T[], Free>;

template <class T>
Array<T> allocate(Index count) {
  const std::size_t bytes = static_cast<std::size_t>(count) * sizeof(T);
  void* memory = std::aligned_alloc(kLaneBytes, (bytes + kLaneBytes) / kLaneBytes * kLaneBytes);
  if (memory == nullptr) throw std::bad_alloc();
  return Array<T>(static_cast<T*>(memory));
}

}  // namespace gdcore
