#include "bindings/tensor.h"

#include <algorithm>

namespace gdcore {

namespace {

PyTypeObject* tensor_type = nullptr;
DLPackDLTensorFromPyObjectNoSync view_of = nullptr;

std::string type_name(py::handle object) { return Py_TYPE(object.ptr())->tp_name; }

std::string attribute(py::handle object, const char* name) { return py::str(object.attr(name)); }

std::string dtype_name(const Tensor& tensor) { return tensor.is_double() ? "torch.float64" : "torch.float32"; }

}  // namespace

void fail_value(const char* name, const std::string& expected, const std::string& got) {
  throw py::value_error(std::string(name) + ": expected " + expected + ", got " + got);
}

static void fail_type(const char* name, const std::string& expected, const std::string& got) {
  throw py::type_error(std::string(name) + ": expected " + expected + ", got " + got);
}

void connect(py::handle tensor_class) {
  const py::object capsule = tensor_class.attr("__dlpack_c_exchange_api__");
  const auto* api = static_cast<const DLPackExchangeAPI*>(PyCapsule_GetPointer(capsule.ptr(), "dlpack_exchange_api"));
  if (api == nullptr) throw py::error_already_set();
  if (api->header.version.major != DLPACK_MAJOR_VERSION || api->dltensor_from_py_object_no_sync == nullptr) {
    throw py::import_error("gdcore needs DLPack " + std::to_string(DLPACK_MAJOR_VERSION) +
                           ".x with tensor views, this torch has " + std::to_string(api->header.version.major) + "." +
                           std::to_string(api->header.version.minor));
  }
  tensor_type = reinterpret_cast<PyTypeObject*>(tensor_class.ptr());
  view_of = api->dltensor_from_py_object_no_sync;
}

bool view_without_error(py::handle object, DLTensor* view) {
  if (view_of(object.ptr(), view) == 0) return true;
  PyErr_Clear();
  return false;
}

Tensor::Tensor(py::handle object, const char* name) : name_(name), view_{} {
  if (!PyType_IsSubtype(Py_TYPE(object.ptr()), tensor_type)) {
    fail_type(name, "a torch.Tensor", type_name(object));
  }
  // Before its memory is asked for, which torch warns of: it has none.
  if (Py_TYPE(object.ptr()) != tensor_type && type_name(object) == "FakeTensor") {
    fail_value(name, "a tensor with memory of its own", "a FakeTensor");
  }
  if (view_of(object.ptr(), &view_) != 0) {
    // Sparse, meta, nested and other tensors without plain storage: say which, and keep torch's reason as the cause.
    py::error_already_set cause;
    const std::string device = attribute(object, "device");
    const std::string wrong = device == "cpu" ? "a dense tensor with storage, got " + attribute(object, "layout")
                                              : "a CPU tensor, got one on " + device;
    py::raise_from(cause, PyExc_ValueError, (std::string(name) + ": expected " + wrong).c_str());
    throw py::error_already_set();
  }
  if (view_.device.device_type != kDLCPU) fail_value(name, "a CPU tensor", "one on " + attribute(object, "device"));
  const bool real = view_.dtype.code == kDLFloat && view_.dtype.lanes == 1;
  if (!real || (view_.dtype.bits != 32 && view_.dtype.bits != 64)) {
    fail_type(name, "dtype torch.float32 or torch.float64", attribute(object, "dtype"));
  }
  if (view_.data == nullptr && numel() > 0) {
    fail_value(name, "a tensor with memory of its own", "a " + type_name(object) + " without");
  }
}

Index Tensor::numel() const { return numel_of(view_); }

bool Tensor::contiguous() const { return is_contiguous(view_); }

bool Tensor::same_shape(const Tensor& other) const { return have_same_shape(view_, other.view_); }

std::string Tensor::shape() const { return shape_text(view_.shape, dim()); }

template <class T>
void Tensor::read(T* to) const {
  const T* from = data<const T>();
  if (contiguous()) {
    std::copy_n(from, numel(), to);
  } else {
    for_each_offset(view_, [&](Index offset) { *to++ = from[offset]; });
  }
}

template <class T>
void Tensor::write(const T* from) const {
  T* to = data<T>();
  if (contiguous()) {
    std::copy_n(from, numel(), to);
  } else {
    for_each_offset(view_, [&](Index offset) { to[offset] = *from++; });
  }
}

void Tensor::expect_dtype_of(const Tensor& other) const {
  if (is_double() != other.is_double()) {
    fail_type(name_, "dtype " + dtype_name(other) + " as " + other.name_, dtype_name(*this));
  }
}

void Tensor::expect_shape(std::initializer_list<Index> shape, const char* what) const {
  const auto wanted_dim = static_cast<int>(shape.size());
  if (wanted_dim == dim() && std::equal(shape.begin(), shape.end(), view_.shape)) return;
  std::string mend;
  if (wanted_dim == dim() + 1 && *(shape.end() - 1) == 1) {
    mend = "; use " + std::string(name_) + ".unsqueeze(-1)";
  } else if (wanted_dim + 1 == dim() && size(dim() - 1) == 1) {
    mend = "; use " + std::string(name_) + ".squeeze(-1)";
  }
  fail_value(name_, "shape " + shape_text(shape.begin(), wanted_dim) + " " + what, this->shape() + mend);
}

void Tensor::expect_dim(int dim, const char* form) const {
  if (this->dim() == dim) return;
  std::string mend;
  if (this->dim() == dim - 1) mend = "; use " + std::string(name_) + ".unsqueeze(-1)";
  if (this->dim() == dim + 1 && size(dim) == 1) mend = "; use " + std::string(name_) + ".squeeze(-1)";
  fail_value(name_, std::string("shape ") + form, shape() + mend);
}

void Tensor::expect_no_overlap() const {
  if (!elements_are_apart(view_)) {
    fail_value(name_, "a tensor whose elements do not overlap, as it is written", "strides that do");
  }
}

void Tensor::expect_apart_from(const Tensor& other) const {
  if (overlap(view_, other.view_)) {
    fail_value(name_, "memory apart from " + std::string(other.name_) + "'s, as it is written", "memory that overlaps");
  }
}

IndexView::IndexView(py::handle object, const char* name) {
  if (!PyType_IsSubtype(Py_TYPE(object.ptr()), tensor_type)) fail_type(name, "a torch.Tensor", type_name(object));
  const bool seen = view_without_error(object, &view_) && view_.device.device_type == kDLCPU &&
                    (view_.data != nullptr || numel_of(view_) == 0);
  if (!seen) fail_value(name, "a dense CPU tensor", "one on " + attribute(object, "device"));
  if (view_.dtype.code != kDLInt || view_.dtype.bits != 64 || view_.dtype.lanes != 1) {
    fail_type(name, "dtype torch.int64", attribute(object, "dtype"));
  }
}

std::vector<Index> IndexView::read() const {
  const Index* const from = static_cast<const Index*>(data_of(view_));
  if (is_contiguous(view_)) return {from, from + numel_of(view_)};
  std::vector<Index> values;
  values.reserve(static_cast<std::size_t>(numel_of(view_)));
  for_each_offset(view_, [&](Index offset) { values.push_back(from[offset]); });
  return values;
}

void IndexView::write(const std::int32_t* from) const {
  Index* const to = static_cast<Index*>(data_of(view_));
  for_each_offset(view_, [&](Index offset) { to[offset] = *from++; });
}

template <class T>
T* output(py::handle object, const char* name, Index numel) {
  const Tensor tensor(object, name);
  if (tensor.is_double() != (sizeof(T) == 8) || tensor.numel() != numel || !tensor.contiguous()) {
    fail_value(name, "a contiguous result of " + std::to_string(numel) + " elements", tensor.shape());
  }
  return tensor.data<T>();
}

template void Tensor::read(float*) const;
template void Tensor::read(double*) const;
template void Tensor::write(const float*) const;
template void Tensor::write(const double*) const;
template float* output(py::handle, const char*, Index);
template double* output(py::handle, const char*, Index);

}  // namespace gdcore
