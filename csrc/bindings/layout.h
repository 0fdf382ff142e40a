// Where the elements of a DLPack tensor lie: asked of views of any dtype. torch has no negative strides.
#pragma once

#include <dlpack/dlpack.h>

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/kernels.h"

namespace gdcore {

Index numel_of(const DLTensor& view);
void* data_of(const DLTensor& view);
std::string shape_text(const Index* shape, int dim);  ///< "(3, 1)"
bool have_same_shape(const DLTensor& a, const DLTensor& b);
/// Row by row without gaps.
bool is_contiguous(const DLTensor& view);
/// Whether no two elements share memory.
bool elements_are_apart(const DLTensor& view);
/// Whether an element of one shares memory with an element of the other.
bool overlap(const DLTensor& a, const DLTensor& b);

/// Calls visit(offset) for every element in row-major order.
template <class Visit>
void for_each_offset(const DLTensor& view, const Visit& visit) {
  std::vector<Index> index(static_cast<std::size_t>(view.ndim), 0);
  Index offset = 0;
  for (Index left = numel_of(view); left > 0; --left) {
    visit(offset);
    for (int axis = view.ndim - 1; axis >= 0; --axis) {
      Index& i = index[static_cast<std::size_t>(axis)];
      offset += view.strides[axis];
      if (++i < view.shape[axis]) break;
      offset -= i * view.strides[axis];
      i = 0;
    }
  }
}

}  // namespace gdcore
