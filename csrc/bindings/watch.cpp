#include "bindings/watch.h"

#include <pybind11/stl.h>

#include <algorithm>

#include "bindings/python.h"
#include "bindings/register.h"

namespace gdcore {

namespace {

/// Another number after every write to a dict, unless it put what was there: none has the number of another. 0 from
/// CPython 3.12 on, which does without.
std::uint64_t version_of(const py::dict& mapping) {
#if PY_VERSION_HEX < 0x030C0000
  return reinterpret_cast<const PyDictObject*>(mapping.ptr())->ma_version_tag;
#else
  static_cast<void>(mapping);
  return 0;
#endif
}

}  // namespace

void Watch::item(py::dict mapping, py::object key) {
  const auto known =
      std::find_if(items_.begin(), items_.end(), [&](const Items& items) { return items.mapping.is(mapping); });
  Items& items = known == items_.end() ? items_.emplace_back(Items{mapping, {}, 0}) : *known;
  items.expected.emplace_back(key, py::reinterpret_borrow<py::object>(find(mapping, key)));
}
void Watch::attribute(py::object object, py::str name) { attributes_.push_back({object, name, object.attr(name)}); }
void Watch::type(py::object object) { types_.push_back({object, {}, py::type::of(object)}); }
void Watch::size(py::dict mapping) { sizes_.emplace_back(mapping, PyDict_GET_SIZE(mapping.ptr())); }
void Watch::empty(py::dict mapping) { sizes_.emplace_back(mapping, 0); }
void Watch::elements(py::list list) { lists_.push_back({list, {}, py::tuple(list)}); }

bool Watch::Items::unchanged() const {
  const std::uint64_t now = version_of(mapping);
  if (now != 0 && now == version) return true;
  for (const auto& [key, value] : expected) {
    if (find(mapping, key) != value.ptr()) return false;
  }
  version = now;
  return true;
}

bool Watch::unchanged() const {
  for (const Entry& e : types_) {
    if (reinterpret_cast<PyObject*>(Py_TYPE(e.holder.ptr())) != e.expected.ptr()) return false;
  }
  for (const auto& [mapping, size] : sizes_) {
    if (PyDict_GET_SIZE(mapping.ptr()) != size) return false;
  }
  for (const Items& items : items_) {
    if (!items.unchanged()) return false;
  }
  for (const Entry& e : lists_) {
    const Py_ssize_t size = PyTuple_GET_SIZE(e.expected.ptr());
    if (PyList_GET_SIZE(e.holder.ptr()) != size) return false;
    for (Py_ssize_t i = 0; i < size; ++i) {
      if (PyList_GET_ITEM(e.holder.ptr(), i) != PyTuple_GET_ITEM(e.expected.ptr(), i)) return false;
    }
  }
  for (const Entry& e : attributes_) {
    PyObject* value = PyObject_GetAttr(e.holder.ptr(), e.key.ptr());
    if (value == nullptr) {  // deleted; any other error is met again where it is read afresh
      PyErr_Clear();
      return false;
    }
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
      .def("elements", &Watch::elements, py::arg("list"))
      .def("unchanged", &Watch::unchanged);
}

}  // namespace gdcore
