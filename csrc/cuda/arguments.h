// Numbers and pointers as callers have them, to what the launches take.
#pragma once

#include <cstdint>

#include "cuda/launches.h"

namespace gdcore::cuda {

inline bool is_at_sixteen(const void* data, Index row_bytes) {
  return reinterpret_cast<std::uintptr_t>(data) % 16 == 0 && row_bytes % 16 == 0;
}

/// `size` elements without gaps.
inline View flat_view(const void* data, Index size) {
  return {data, size, 1, size < 1 ? 1 : size, true, is_at_sixteen(data, 0)};
}

/// A matrix with strides, of which `linear_mse` reads whole rows.
inline View matrix_view(const void* data, Storage storage, Index rows, Index columns, Index row, Index column) {
  const bool contiguous = (column == 1 || columns <= 1) && (row == columns || rows <= 1);
  const bool whole = (column == 1 || columns <= 1) && is_at_sixteen(data, rows > 1 ? row * bytes_of(storage) : 0);
  return {data, row, column, columns < 1 ? 1 : columns, contiguous, whole};
}

/// The numbers of one parameter's settings, in the order of the structs of kernels/updates.h: flags are 0 or 1, and
/// SGD's `fresh` and the others' count of steps come last.
inline constexpr int kNumbers = 9;

inline Settings settings_of(Kind kind, const double* n) {
  Settings settings = {};
  settings.kind = kind;
  if (kind == Kind::kSgd) {
    settings.sgd = {n[0], n[1], 1.0 - n[2], n[3], n[4] != 0, n[5] != 0, n[8] != 0};
  } else if (kind == Kind::kRmsprop) {
    settings.rmsprop = {n[0], n[1], n[2], n[3], n[4], n[5] != 0};
  } else if (kind == Kind::kAdam) {
    settings.adam = {n[0], n[1] != 0, n[2], n[3], n[4], n[5], n[6] != 0, n[7] != 0};
    settings.steps = n[8];
  }
  return settings;
}

/// The ranges of θ that tensors of these sizes are.
inline void lay_out(Loop& loop, int tensors, const Index* sizes) {
  loop.tensors = tensors;
  for (int i = 0; i < tensors; ++i) {
    loop.ranges[i].begin = loop.parameters;
    loop.ranges[i].size = sizes[i];
    loop.parameters += sizes[i];
  }
}

}  // namespace gdcore::cuda
