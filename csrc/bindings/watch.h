// What a plan was made from, and whether it is still so: identities in the user's own objects, compared without
// running any Python code but attribute getters.
#pragma once

#include <pybind11/pybind11.h>

#include <cstdint>
#include <utility>
#include <vector>

namespace gdcore {

class Watch {
 public:
  void item(pybind11::dict mapping, pybind11::object key);
  void attribute(pybind11::object object, pybind11::str name);
  void type(pybind11::object object);
  void size(pybind11::dict mapping);
  void empty(pybind11::dict mapping);
  void elements(pybind11::list list);

  bool unchanged() const;

 private:
  /// One thing that was read. `expected` is what it was; null where a key was absent.
  struct Entry {
    pybind11::object holder;
    pybind11::object key;
    pybind11::object expected;
  };

  /// A dict of which items were read. It is looked at again only if it was written since.
  struct Items {
    pybind11::dict mapping;
    std::vector<std::pair<pybind11::object, pybind11::object>> expected;
    mutable std::uint64_t version;

    bool unchanged() const;
  };

  std::vector<Entry> types_;
  std::vector<std::pair<pybind11::dict, Py_ssize_t>> sizes_;
  std::vector<Items> items_;
  std::vector<Entry> lists_;
  std::vector<Entry> attributes_;
};

}  // namespace gdcore
