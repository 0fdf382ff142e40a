// Parameter updates over a list of tensors in one call.
#include <pybind11/stl.h>

#include "bindings/problem.h"
#include "bindings/register.h"
#include "training/elementwise.h"
#include "training/loop.h"

namespace gdcore {

namespace {

struct Update {
  Tensor parameter;
  Tensor grad;
  std::optional<Tensor> momentum;
  SgdSettings settings;
};

bool same_strides(const Tensor& a, const Tensor& b) {
  for (int axis = 0; axis < a.dim(); ++axis) {
    if (a.size(axis) > 1 && a.stride(axis) != b.stride(axis)) return false;
  }
  return true;
}

// Whether the elements of all tensors lie in the same order without gaps, so that they can be walked as flat memory.
bool walks_flat(const Update& u) {
  Index reach = 1;
  for (int axis = 0; axis < u.parameter.dim(); ++axis) reach += (u.parameter.size(axis) - 1) * u.parameter.stride(axis);
  return reach == u.parameter.numel() && same_strides(u.parameter, u.grad) &&
         (!u.momentum || same_strides(u.parameter, *u.momentum));
}

template <class T>
void apply(const Update& u, int threads) {
  const SgdRule<T> rule = sgd_rule<T>(u.settings);
  const Index size = u.parameter.numel();
  T* const momentum = u.momentum ? u.momentum->data<T>() : nullptr;
  if (walks_flat(u)) return sgd<T>(rule, size, u.parameter.data<T>(), u.grad.data<const T>(), momentum, threads);

  const Array<T> parameter = allocate<T>(size);
  const Array<T> grad = allocate<T>(size);
  const Array<T> buffer = allocate<T>(size);
  u.parameter.read(parameter.get());
  u.grad.read(grad.get());
  if (momentum != nullptr && !rule.fresh) u.momentum->read(buffer.get());
  sgd<T>(rule, size, parameter.get(), grad.get(), buffer.get(), threads);
  u.parameter.write(parameter.get());
  if (momentum != nullptr) u.momentum->write(buffer.get());
}

void expect_same_shape(const Tensor& tensor, const Tensor& parameter) {
  if (!tensor.same_shape(parameter)) {
    fail_value(tensor.name(), "shape " + parameter.shape() + " as its parameter", tensor.shape());
  }
}

Update checked(py::handle parameter, py::handle grad, py::handle momentum, const SgdSettings& settings) {
  Update u = {Tensor(parameter, "parameter"), Tensor(grad, "grad"), std::nullopt, settings};
  if (settings.momentum != 0) u.momentum.emplace(momentum, "momentum_buffer");
  u.parameter.expect_no_overlap();
  u.grad.expect_dtype_of(u.parameter);
  expect_same_shape(u.grad, u.parameter);
  u.parameter.expect_apart_from(u.grad);
  if (u.momentum) {
    u.momentum->expect_dtype_of(u.parameter);
    expect_same_shape(*u.momentum, u.parameter);
    u.momentum->expect_no_overlap();
    u.momentum->expect_apart_from(u.parameter);
    u.momentum->expect_apart_from(u.grad);
  }
  return u;
}

/// (parameters, grads, momentum buffers, which of those are fresh, lr, momentum, dampening, weight_decay, nesterov,
/// maximize)
using Group = std::tuple<std::vector<py::object>, std::vector<py::object>, std::vector<py::object>, std::vector<bool>,
                         double, double, double, double, bool, bool>;

void sgd_update(const std::vector<Group>& groups, int threads) {
  std::vector<Update> updates;
  Index work = 0;
  for (const auto& [parameters, grads, momenta, fresh, lr, momentum, dampening, weight_decay, nesterov, maximize] :
       groups) {
    for (std::size_t i = 0; i < parameters.size(); ++i) {
      const SgdSettings settings = {0, 0, lr, momentum, dampening, weight_decay, nesterov, maximize, fresh[i]};
      updates.push_back(checked(parameters[i], grads[i], momentum != 0 ? momenta[i] : py::none(), settings));
      work += updates.back().parameter.numel();
    }
  }
  const MaybeReleaseGil release(work);
  for (const Update& u : updates) {
    if (u.parameter.is_double()) {
      apply<double>(u, threads);
    } else {
      apply<float>(u, threads);
    }
  }
}

}  // namespace

void register_optimizers(py::module_& m) { m.def("sgd", &sgd_update, py::arg("groups"), py::arg("threads")); }

}  // namespace gdcore
