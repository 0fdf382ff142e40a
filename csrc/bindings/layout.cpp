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

// Where the elements begin, in bytes and in the order of memory. It is asked for rarely: of views with gaps in which
// others may lie.
static std::vector<std::uintptr_t> addresses(const DLTensor& view) {
  std::vector<std::uintptr_t> found;
  found.reserve(static_cast<std::size_t>(numel_of(view)));
  const auto begin = reinterpret_cast<std::uintptr_t>(data_of(view));
  for_each_offset(view, [&](Index offset) {
    found.push_back(begin + static_cast<std::uintptr_t>(offset * (view.dtype.bits / 8)));
  });
  std::sort(found.begin(), found.end());
  return found;
}

bool elements_are_apart(const DLTensor& view) {
  if (is_contiguous(view)) return true;
  // Dimensions in the order of their strides: mostly, each steps past all that the smaller ones reach.
  std::vector<std::pair<Index, Index>> axes;  // stride, size
  for (int axis = 0; axis < view.ndim; ++axis) {
    if (view.shape[axis] > 1) axes.emplace_back(view.strides[axis], view.shape[axis]);
  }
  std::sort(axes.begin(), axes.end());
  Index reach = 1;
  bool nested = true;
  for (const auto& [stride, size] : axes) {
    nested = nested && stride >= reach;
    reach += stride * (size - 1);
  }
  if (nested) return true;
  if (reach < numel_of(view)) return false;  // expanded, perhaps to more elements than there is memory for
  const auto found = addresses(view);
  return std::adjacent_find(found.begin(), found.end()) == found.end();
}

static std::pair<std::uintptr_t, std::uintptr_t> span(const DLTensor& view) {
  const auto begin = reinterpret_cast<std::uintptr_t>(data_of(view));
  Index last = 0;
  for (int axis = 0; axis < view.ndim; ++axis) last += (view.shape[axis] - 1) * view.strides[axis];
  return {begin, begin + static_cast<std::uintptr_t>((last + 1) * (view.dtype.bits / 8))};
}

bool overlap(const DLTensor& a, const DLTensor& b) {
  if (numel_of(a) == 0 || numel_of(b) == 0) return false;
  const auto [begin, end] = span(a);
  const auto [other_begin, other_end] = span(b);
  if (begin >= other_end || other_begin >= end) return false;
  if (is_contiguous(a) && is_contiguous(b)) return true;
  const auto left = addresses(a), right = addresses(b);
  const std::uintptr_t left_size = a.dtype.bits / 8, right_size = b.dtype.bits / 8;
  for (auto i = left.begin(), j = right.begin(); i != left.end() && j != right.end();) {
    if (*i + left_size <= *j) {
      ++i;
    } else if (*j + right_size <= *i) {
      ++j;
    } else {
      return true;
    }
  }
  return false;
}

}  // namespace gdcore
