// Memory that is written beside other memory, on any device.
#include <pybind11/pybind11.h>

#include <string>
#include <vector>

#include "bindings/register.h"
#include "bindings/slots.h"

namespace gdcore {

namespace {

struct Named {
  std::string name;
  Memory memory;
};

/// Of (name, tensor), those that have memory to look at.
std::vector<Named> named(const py::list& pairs) {
  std::vector<Named> found;
  found.reserve(pairs.size());
  for (const py::handle item : pairs) {
    const auto pair = py::reinterpret_borrow<py::tuple>(item);
    Named one = {py::str(pair[0]), {}};
    if (one.memory.look(pair[1])) found.push_back(std::move(one));
  }
  return found;
}

/// Everything in `written` lies apart from everything else.
void expect_all_apart(const py::list& written, const py::list& read) {
  std::vector<Named> others = named(read);
  for (Named& one : named(written)) {
    const char* const name = one.name.c_str();
    if (!one.memory.apart()) {
      fail_value(name, "a tensor whose elements do not overlap, as it is written", "strides that do");
    }
    for (const Named& other : others) {
      if (!one.memory.overlaps(other.memory)) continue;
      fail_value(name, "memory apart from " + other.name + "'s, as it is written", "memory that overlaps");
    }
    others.push_back(std::move(one));
  }
}

}  // namespace

void register_apart(py::module_& m) { m.def("expect_apart", &expect_all_apart, py::arg("written"), py::arg("read")); }

}  // namespace gdcore
