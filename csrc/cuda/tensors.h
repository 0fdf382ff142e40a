// PyTorch's tensors on CUDA as the launches take them, and its current stream: from DLPack's exchange table.
#pragma once

#include <pybind11/pybind11.h>

#include <optional>
#include <string>

#include "bindings/layout.h"
#include "cuda/arguments.h"
#include "cuda/queue.h"

namespace gdcore::cuda {

namespace py = pybind11;

inline const DLPackExchangeAPI* exchange = nullptr;

inline void connect(py::handle tensor_class) {
  const py::object capsule = tensor_class.attr("__dlpack_c_exchange_api__");
  exchange = static_cast<const DLPackExchangeAPI*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  if (exchange == nullptr) throw py::error_already_set();
  if (exchange->header.version.major != DLPACK_MAJOR_VERSION || exchange->current_work_stream == nullptr) {
    throw py::import_error("gdcore needs DLPack " + std::to_string(DLPACK_MAJOR_VERSION) + ".x with work streams");
  }
}

inline DLTensor look(py::handle tensor) {
  DLTensor view;
  if (exchange->dltensor_from_py_object_no_sync(tensor.ptr(), &view) != 0) throw py::error_already_set();
  if (view.device.device_type != kDLCUDA) throw py::value_error("expected a tensor on CUDA, got one that is not");
  return view;
}

inline Storage storage_of(const DLTensor& view) {
  if (view.dtype.code == kDLBfloat) return Storage::kBFloat16;
  if (view.dtype.code != kDLFloat) throw py::type_error("expected a tensor of floating-point numbers");
  return view.dtype.bits == 64 ? Storage::kFloat64 : view.dtype.bits == 32 ? Storage::kFloat32 : Storage::kFloat16;
}

using MaybeTensor = std::optional<py::object>;

inline void* data(const MaybeTensor& tensor) { return tensor ? data_of(look(*tensor)) : nullptr; }

/// Where the gradient of tensors of this storage goes, or null.
inline void* gradient_data(const MaybeTensor& tensor, Storage storage) {
  if (!tensor) return nullptr;
  const DLTensor view = look(*tensor);
  if (storage_of(view) != (bytes_of(storage) == 2 ? Storage::kFloat32 : storage)) {
    throw py::type_error("expected a gradient of what it is computed in");
  }
  return data_of(view);
}

/// Elements in order, of any view of at most two dimensions, or of a contiguous one.
inline View elements_view(const MaybeTensor& tensor) {
  if (!tensor) return {};
  const DLTensor t = look(*tensor);
  if (is_contiguous(t)) return flat_view(data_of(t), numel_of(t));
  if (t.ndim == 1) return {data_of(t), 0, t.strides[0], t.shape[0], false, false};
  if (t.ndim == 2) return {data_of(t), t.strides[0], t.strides[1], t.shape[1], false, false};
  throw py::value_error("expected a contiguous tensor where it has more than two dimensions");
}

/// The rows of a matrix.
inline View rows_view(const MaybeTensor& tensor) {
  if (!tensor) return {};
  const DLTensor t = look(*tensor);
  return matrix_view(data_of(t), storage_of(t), t.shape[0], t.shape[1], t.strides[0], t.strides[1]);
}

/// So many int64 without gaps, or as many as there are.
inline const Index* integers(py::handle tensor, Index count) {
  const DLTensor view = look(tensor);
  const bool whole = view.dtype.code == kDLInt && view.dtype.bits == 64 && is_contiguous(view);
  if (!whole || numel_of(view) < count) throw py::value_error("index: expected int64 without gaps");
  return static_cast<const Index*>(data_of(view));
}

inline Stream current_stream(int device) {
  void* stream = nullptr;
  if (exchange->current_work_stream(kDLCUDA, device, &stream) != 0) {
    const py::gil_scoped_acquire acquire;  // updates run without
    throw py::error_already_set();
  }
  return {static_cast<cudaStream_t>(stream)};
}

inline double* scratch_of(py::handle tensor, Index wanted) {
  const DLTensor view = look(tensor);
  if (storage_of(view) != Storage::kFloat64 || numel_of(view) < wanted) {
    throw py::value_error("scratch: expected " + std::to_string(wanted) + " numbers of float64");
  }
  return static_cast<double*>(data_of(view));
}

}  // namespace gdcore::cuda
