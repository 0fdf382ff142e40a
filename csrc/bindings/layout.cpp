#include "bindings/layout.h"

#include <algorithm>
#include <utility>

namespace gdcore {

Index numel_of(const DLTensor& view) {
  Index count = 1;
  for (int axis = 0; axis < view.ndim; ++axis) count *= view.shape[axis];
  return count;
}

void* data_of(const DLTensor& view) { return static_cast<char*>(view.data) + view.byte_offset; }

std::string shape_text(const Index* shape, int dim) {
  std::string text = "(";
  for (int i = 0; i < dim; ++i) text += (i > 0 ? ", " : "") + std::to_string(shape[i]);
  return text + (dim == 1 ? ",)" : ")");
}

bool have_same_shape(const DLTensor& a, const DLTensor& b) {
  return a.ndim == b.ndim && std::equal(a.shape, a.shape + a.ndim, b.shape);
}

bool is_contiguous(const DLTensor& view) {
  Index expected = 1;
  for (int axis = view.ndim - 1; axis >= 0; --axis) {
    if (view.shape[axis] != 1 && view.strides[axis] != expected) return numel_of(view) == 0;
    expected *= view.shape[axis];
  }
  return true;
}

bool elements_are_apart(const DLTensor& view) {
  if (is_contiguous(view)) return true;
  // Dimensions in the order of their strides: each must step past all that the smaller ones reach.
  std::vector<std::pair<Index, Index>> axes;  // stride, size
  for (int axis = 0; axis < view.ndim; ++axis) {
    if (view.shape[axis] > 1) axes.emplace_back(view.strides[axis], view.shape[axis]);
  }
  std::sort(axes.begin(), axes.end());
  Index reach = 1;
  for (const auto& [stride, size] : axes) {
    if (stride < reach) return false;
    reach = stride * (size - 1) + reach;
  }
  return true;
}

static std::pair<std::uintptr_t, std::uintptr_t> span(const DLTensor& view) {
  const auto begin = reinterpret_cast<std::uintptr_t>(data_of(view));
  if (numel_of(view) == 0) return {begin, begin};
  Index last = 0;
  for (int axis = 0; axis < view.ndim; ++axis) last += (view.shape[axis] - 1) * view.strides[axis];
  return {begin, begin + static_cast<std::uintptr_t>((last + 1) * (view.dtype.bits / 8))};
}

bool overlap(const DLTensor& a, const DLTensor& b) {
  const auto [begin, end] = span(a);
  const auto [other_begin, other_end] = span(b);
  return begin < other_end && other_begin < end;
}

}  // namespace gdcore
