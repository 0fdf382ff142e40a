// The triangular factor of a narrow matrix, given as columns that stand side by side.
#include "training/triangle.h"

#include <pybind11/pybind11.h>

#include "bindings/problem.h"
#include "bindings/register.h"

namespace gdcore {

namespace {

Columns columns_of(const Tensor& tensor) {
  const Index count = tensor.dim() > 1 ? tensor.size(1) : 1;
  if (tensor.is_double()) return {count, true, {}, tensor.matrix<double>()};
  return {count, false, tensor.matrix<float>(), {}};
}

/// parts: (n, columns) each, or None for a column of ones; weight: (n,) or None; factor: (all columns, all columns),
/// updated in place.
void fold(const py::tuple& parts, py::handle weight, py::handle factor) {
  std::vector<Columns> all;
  all.reserve(parts.size());
  Index rows = -1, columns = 0;
  for (const py::handle part : parts) {
    if (part.is_none()) {
      static constexpr float kOne = 1;
      all.push_back({1, false, {&kOne, 0, 0}, {}});
      ++columns;
      continue;
    }
    const Tensor tensor(part, "columns");
    tensor.expect_dim(2, "(n, columns)");
    if (rows < 0) rows = tensor.size(0);
    tensor.expect_shape({rows, tensor.size(1)}, "as the first columns");
    all.push_back(columns_of(tensor));
    columns += tensor.size(1);
  }
  if (rows < 0) fail_value("columns", "at least one tensor", "none");
  Columns weights = {};
  if (!weight.is_none()) {
    const Tensor tensor(weight, "weight");
    tensor.expect_shape({rows}, "as the columns");
    weights = columns_of(tensor);
  }
  double* const r = output<double>(factor, "factor", columns * columns);
  const MaybeReleaseGil release(rows * columns * columns);
  triangle(all, weights, rows, r);
}

void scale(py::handle values, double factor) {
  const Tensor tensor(values, "values");
  scale_finite(output<double>(values, "values", tensor.numel()), tensor.numel(), factor);
}

}  // namespace

void register_triangle(py::module_& m) {
  m.def("triangle", &fold, py::arg("parts"), py::arg("weight"), py::arg("factor"));
  m.def("scale_finite", &scale, py::arg("values"), py::arg("factor"));
}

}  // namespace gdcore
