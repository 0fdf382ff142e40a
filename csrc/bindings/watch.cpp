#include "bindings/watch.h"

#include <pybind11/stl.h>

#include "bindings/register.h"

namespace gdcore {

namespace py = pybind11;

void Watch::item(py::dict mapping, py::object key) {
  PyObject* value = PyDict_GetItemWithError(mapping.ptr(), key.ptr());
  if (value == nullptr && PyErr_Occurred() != nullptr) throw py::error_already_set();
  items_.push_back({mapping, key, py::reinterpret_borrow<py::object>(value)});
}
void Watch::attribute(py::object object, py::str name) { attributes_.push_back({object, name, object.attr(name)}); }
void Watch::type(py::object object) { types_.push_back({object, {}, py::type::of(object)}); }
void Watch::size(py::dict mapping) { sizes_.emplace_back(mapping, PyDict_GET_SIZE(mapping.ptr())); }
void Watch::empty(py::dict mapping) { sizes_.emplace_back(mapping, 0); }

bool Watch::unchanged() const {
  for (const Entry& e : types_) {
    if (reinterpret_cast<PyObject*>(Py_TYPE(e.holder.ptr())) != e.expected.ptr()) return false;
  }
  for (const auto& [mapping, size] : sizes_) {
    if (PyDict_GET_SIZE(mapping.ptr()) != size) return false;
  }
  for (const Entry& e : items_) {
    PyObject* value = PyDict_GetItemWithError(e.holder.ptr(), e.key.ptr());
    if (value == nullptr && PyErr_Occurred() != nullptr) throw py::error_already_set();
    if (value != e.expected.ptr()) return false;
  }
  for (const Entry& e : attributes_) {
    PyObject* value = PyObject_GetAttr(e.holder.ptr(), e.key.ptr());
    if (value == nullptr) throw py::error_already_set();
    Py_DECREF(value);  // the expected object is kept alive here, so only its address matters
    if (value != e.expected.ptr()) return false;
  }
  return true;
}

void register_watch(py::module_& m) {
  py::class_<Watch>(m, "Watch")
      .def(py::init<>())
      .def("item", &Watch::item, py::arg("mapping"), py::arg("key"))
      .def("attribute", &Watch::attribute, py::arg("object"), py::arg("name"))
      .def("type", &Watch::type, py::arg("object"))
      .def("size", &Watch::size, py::arg("mapping"))
      .def("empty", &Watch::empty, py::arg("mapping"))
      .def("unchanged", &Watch::unchanged);
}

}  // namespace gdcore
