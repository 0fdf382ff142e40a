// Python's own calls where pybind11's would cost too much: a step makes dozens of them.
#pragma once

#include <pybind11/pybind11.h>

namespace gdcore {

namespace py = pybind11;

/// A key of a dict or the name of an attribute, made once.
struct Key {
  explicit Key(const char* name)
      : text(name), object(py::reinterpret_steal<py::str>(PyUnicode_InternFromString(name))) {}
  const char* text;
  py::str object;
};

/// The one of its kind. Never destroyed: at exit the interpreter is gone first.
template <class T>
const T& kept() {
  static const T* const made = new T;
  return *made;
}

/// Borrowed, or null if there is none.
inline PyObject* find(py::handle dict, py::handle key) {
  PyObject* const value = PyDict_GetItemWithError(dict.ptr(), key.ptr());
  if (value == nullptr && PyErr_Occurred() != nullptr) throw py::error_already_set();
  return value;
}

inline bool is_true(py::handle object) {
  const int truth = PyObject_IsTrue(object.ptr());
  if (truth < 0) throw py::error_already_set();
  return truth != 0;
}

inline double to_double(py::handle object) {
  const double value = PyFloat_AsDouble(object.ptr());
  if (value == -1.0 && PyErr_Occurred() != nullptr) throw py::error_already_set();
  return value;
}

inline py::object result_of(PyObject* called) {
  if (called == nullptr) throw py::error_already_set();
  return py::reinterpret_steal<py::object>(called);
}

inline py::object call(py::handle function) { return result_of(PyObject_CallNoArgs(function.ptr())); }

inline py::object call(py::handle function, py::handle argument) {
  return result_of(PyObject_CallOneArg(function.ptr(), argument.ptr()));
}

/// The result of a method without arguments.
inline py::object call(py::handle object, const Key& method) {
  return result_of(PyObject_CallMethodNoArgs(object.ptr(), method.object.ptr()));
}

/// A new reference.
inline py::object get(py::handle object, const Key& attribute) {
  return result_of(PyObject_GetAttr(object.ptr(), attribute.object.ptr()));
}

}  // namespace gdcore
