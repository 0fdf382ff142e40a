// Σ x², which a bound of the curvature needs: of few numbers, for which torch's own call takes longer to begin.
#include <algorithm>

#include "bindings/register.h"
#include "bindings/tensor.h"
#include "training/memory.h"

namespace gdcore {

namespace {

constexpr Index kLanes = 8;

template <class T>
double squares(const T* x, Index n) {
  double lanes[kLanes] = {};
  for (Index first = 0; first < n; first += kLanes) {
    for (Index i = first; i < std::min(first + kLanes, n); ++i) {
      const double value = static_cast<double>(x[i]);
      lanes[i - first] += value * value;
    }
  }
  double total = 0.0;
  for (const double lane : lanes) total += lane;
  return total;
}

template <class T>
double squares(const Tensor& tensor) {
  if (tensor.contiguous()) return squares(tensor.data<const T>(), tensor.numel());
  const Array<T> copy = allocate<T>(tensor.numel());
  tensor.read(copy.get());
  return squares(copy.get(), tensor.numel());
}

double sum_of_squares(py::handle x) {
  const Tensor tensor(x, "x");
  return tensor.is_double() ? squares<double>(tensor) : squares<float>(tensor);
}

}  // namespace

void register_squares(py::module_& m) { m.def("sum_of_squares", &sum_of_squares, py::arg("x")); }

}  // namespace gdcore
