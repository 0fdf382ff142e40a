// torch tensors as checked views: everything that can be wrong with an argument is found here, before any work.
//
// Tensors arrive through DLPack's C exchange table, which torch.Tensor carries: no copy, no ownership, no libtorch.
// A view is good while its Python object is: for the length of a call.
#pragma once

#include <dlpack/dlpack.h>
#include <pybind11/pybind11.h>

#include <initializer_list>
#include <string>
#include <vector>

#include "bindings/layout.h"
#include "kernels/kernels.h"

namespace gdcore {

namespace py = pybind11;

/// Takes the exchange table from torch's tensor class. Throws ImportError if it has none that can be used.
void connect(py::handle tensor_class);

/// Whether `object`, a tensor, has memory to look at, and the view. Sets no Python error.
bool view_without_error(py::handle object, DLTensor* view);

class Tensor {
 public:
  /// A CPU tensor of float32 or float64 with storage. `name` is the argument's, for errors.
  Tensor(py::handle object, const char* name);

  const char* name() const { return name_; }
  bool is_double() const { return view_.dtype.bits == 64; }
  int dim() const { return view_.ndim; }
  Index size(int axis) const { return view_.shape[axis]; }
  Index stride(int axis) const { return view_.strides[axis]; }
  Index numel() const;
  bool contiguous() const;
  bool same_shape(const Tensor& other) const;
  std::string shape() const;  ///< "(3, 1)"

  template <class T>
  T* data() const {
    return static_cast<T*>(data_of(view_));
  }

  /// Rows and columns of a tensor of one or two dimensions; a vector is one column.
  template <class T>
  Matrix<const T> matrix() const {
    return {data<const T>(), stride(0), dim() > 1 ? stride(1) : 1};
  }

  /// Copies between the tensor's elements, in order, and contiguous memory.
  template <class T>
  void read(T* to) const;
  template <class T>
  void write(const T* from) const;

  void expect_dtype_of(const Tensor& other) const;
  /// `what` says whose shape that is; a mend is added where one dimension of size 1 is missing or too many.
  void expect_shape(std::initializer_list<Index> shape, const char* what) const;
  void expect_dim(int dim, const char* form) const;
  /// No two elements may share memory: the tensor is written.
  void expect_no_overlap() const;
  /// Nor may it share memory with a tensor that is read or written beside it.
  void expect_apart_from(const Tensor& other) const;

 private:
  const char* name_;
  DLTensor view_;
};

/// A CPU tensor of int64.
class IndexView {
 public:
  IndexView(py::handle object, const char* name);

  int dim() const { return view_.ndim; }
  Index size(int axis) const { return view_.shape[axis]; }
  std::string shape() const { return shape_text(view_.shape, view_.ndim); }
  /// Its values, row by row.
  std::vector<Index> read() const;
  /// Writes as many values.
  void write(const std::int32_t* from) const;

 private:
  DLTensor view_;
};

/// A contiguous result of `numel` elements that gdcore's own Python code has allocated.
template <class T>
T* output(py::handle object, const char* name, Index numel);

[[noreturn]] void fail_value(const char* name, const std::string& expected, const std::string& got);

}  // namespace gdcore
