// The losses: one evaluation of an objective.
#include <pybind11/stl.h>

#include <algorithm>
#include <optional>

#include "bindings/problem.h"
#include "bindings/python.h"
#include "bindings/register.h"
#include "training/elementwise.h"

namespace gdcore {

namespace {

constexpr Interrupt kNever = {nullptr, nullptr};

/// What is asked of a loss's inputs before they are taken as they lie in memory.
class PlainInputs {
 public:
  PlainInputs()
      : tensor_(py::module_::import("torch").attr("Tensor")),
        parameter_(py::module_::import("torch").attr("nn").attr("Parameter")) {}

  /// A tensor of no other class whose values are those in its memory: no negation that torch has put off.
  bool holds_its_values(py::handle object) const {
    const auto* const type = reinterpret_cast<PyObject*>(Py_TYPE(object.ptr()));
    return (type == tensor_.ptr() || type == parameter_.ptr()) && !is_true(call(object, is_neg_));
  }
  bool requires_grad(py::handle object) const { return is_true(get(object, requires_grad_)); }

 private:
  py::object tensor_, parameter_;
  Key is_neg_{"is_neg"}, requires_grad_{"requires_grad"};
};

const PlainInputs& plain_inputs() {
  // Never destroyed: at exit the interpreter is gone first.
  static const PlainInputs* const found = new PlainInputs;
  return *found;
}

/// Whether all inputs hold their values, the first in a dtype of the kernels; and whether those whose bit is set in
/// `constants` need no gradient. None will do where the bit is set in `optional`. What else can be wrong, a loss itself
/// finds.
bool plain(const py::tuple& inputs, unsigned constants, unsigned optional) {
  const PlainInputs& plain = plain_inputs();
  unsigned bit = 1;
  for (const py::handle input : inputs) {
    if (!input.is_none() || (optional & bit) == 0) {
      if (!plain.holds_its_values(input)) return false;
      if ((constants & bit) != 0 && plain.requires_grad(input)) return false;
    }
    bit <<= 1;
  }
  DLTensor first;
  return view_without_error(inputs[0], &first) && first.device.device_type == kDLCPU && first.dtype.code == kDLFloat &&
         first.dtype.bits >= 32;
}

/// Whether a gradient from above is a single 1, as at the end of a graph.
bool is_one(py::handle grad) {
  DLTensor view;
  if (!plain_inputs().holds_its_values(grad) || !view_without_error(grad, &view)) return false;
  if (view.ndim != 0 || view.device.device_type != kDLCPU || view.dtype.code != kDLFloat) return false;
  if (view.dtype.bits == 32) return *static_cast<const float*>(data_of(view)) == 1.0f;
  return view.dtype.bits == 64 && *static_cast<const double*>(data_of(view)) == 1.0;
}

// A view of one or two dimensions for the mse kernel; more dimensions only where they are contiguous.
template <class T>
Matrix<const T> elements(const Tensor& tensor, Index columns) {
  if (tensor.contiguous()) return {tensor.data<const T>(), columns, 1};
  if (tensor.dim() == 1) return {tensor.data<const T>(), 0, tensor.stride(0)};
  if (tensor.dim() == 2) return {tensor.data<const T>(), tensor.stride(0), tensor.stride(1)};
  fail_value(tensor.name(), "a contiguous tensor where it has more than two dimensions", "shape " + tensor.shape());
}

void expect_shape_of(const Tensor& tensor, const Tensor& input) {
  if (input.same_shape(tensor)) return;
  const std::string name = tensor.name();
  std::string mend;
  if (tensor.dim() + 1 == input.dim() && input.size(input.dim() - 1) == 1) mend = "; use " + name + ".unsqueeze(-1)";
  if (input.dim() + 1 == tensor.dim() && tensor.size(tensor.dim() - 1) == 1) mend = "; use " + name + ".squeeze(-1)";
  fail_value(tensor.name(), "shape " + input.shape() + " as input", tensor.shape() + mend);
}

template <class T>
void mse_typed(const Tensor& input, const Tensor& target, const std::optional<Tensor>& weight,
               const std::string& reduction, py::handle loss, py::handle gradient, int threads) {
  const Index size = input.numel();
  const Index columns = input.dim() == 2 ? input.size(1) : size;
  const bool none = reduction == "none";
  const bool mean = reduction == "mean";
  T total;
  T* losses = output<T>(loss, "loss", none ? size : 1);
  Mse<T> problem = {columns,
                    elements<T>(input, columns),
                    elements<T>(target, columns),
                    gradient.is_none() ? nullptr : output<T>(gradient, "gradient", size),
                    T(0),
                    none ? losses : nullptr,
                    weight ? elements<T>(*weight, columns) : Matrix<const T>{}};
  {
    const MaybeReleaseGil release(size);
    double divisor = mean ? static_cast<double>(size) : 1.0;
    if (mean && weight) divisor = sum<T>({columns, problem.loss_weight}, size, threads);
    problem.gradient_factor = static_cast<T>(2.0 / divisor);
    mse_objective<T>(problem, size, divisor, threads)->evaluate(nullptr, kNever, &total, nullptr);
  }
  if (!none) *losses = total;
}

void mse(py::handle input_object, py::handle target_object, py::handle weight_object, const std::string& reduction,
         py::handle loss, py::handle gradient, int threads) {
  const Tensor input(input_object, "input");
  const Tensor target(target_object, "target");
  target.expect_dtype_of(input);
  expect_shape_of(target, input);
  std::optional<Tensor> weight;
  if (!weight_object.is_none()) {
    weight.emplace(weight_object, "weight");
    weight->expect_dtype_of(input);
    expect_shape_of(*weight, input);
  }
  if (input.is_double()) {
    mse_typed<double>(input, target, weight, reduction, loss, gradient, threads);
  } else {
    mse_typed<float>(input, target, weight, reduction, loss, gradient, threads);
  }
}

/// What makes a loss's results: calling torch from here takes half of what it takes in Python.
class Results {
 public:
  Results()
      : torch_(py::module_::import("torch")),
        empty_like_(torch_.attr("empty_like")),
        scalars_{
            torch_.attr("empty")(py::tuple(), py::arg("dtype") = torch_.attr("float32"), py::arg("device") = "cpu"),
            torch_.attr("empty")(py::tuple(), py::arg("dtype") = torch_.attr("float64"), py::arg("device") = "cpu")} {}

  py::object scalar(bool is_double) const { return like(scalars_[is_double ? 1 : 0]); }
  /// Contiguous.
  py::object like(py::handle object, const Tensor& tensor) const {
    if (tensor.contiguous()) return like(object);
    return empty_like_(object, py::arg("memory_format") = torch_.attr("contiguous_format"));
  }

 private:
  py::object like(py::handle object) const {
    PyObject* const arguments[] = {object.ptr()};
    PyObject* const made = PyObject_Vectorcall(empty_like_.ptr(), arguments, 1, nullptr);
    if (made == nullptr) throw py::error_already_set();
    return py::reinterpret_steal<py::object>(made);
  }

  py::object torch_, empty_like_, scalars_[2];
};

const Results& results() {
  // Never destroyed: at exit the interpreter is gone first.
  static const Results* const found = new Results;
  return *found;
}

template <class T>
void loss_typed(const Problem& problem, bool mean, py::handle loss, const std::vector<py::object>& gradients,
                py::handle dx, int threads) {
  double divisor;
  {
    const MaybeReleaseGil release(problem.loss_weight ? problem.loss_weight->numel() : 0);
    divisor = problem.divisor<T>(mean, threads);
  }
  std::unique_ptr<Objective<T>> objective;
  if (dx.is_none()) {
    objective = problem.objective<T>(divisor, threads);
  } else {
    LinearMse<T> linear = problem.linear<T>();
    linear.dx = output<T>(dx, "dx", problem.x.numel());
    linear.dx_factor = static_cast<T>(2.0 / divisor);
    objective = linear_objective<T>(linear, problem.rows(), divisor, threads);
  }
  T* const result = output<T>(loss, "loss", 1);
  const Array<T> theta = problem.theta<T>();
  const Array<T> gradient = allocate<T>(problem.parameter_count());
  {
    const MaybeReleaseGil release(objective->work());
    objective->evaluate(theta.get(), kNever, result, gradient.get());
  }
  const T* from = gradient.get();
  for (std::size_t i = 0; i < gradients.size(); ++i) {
    const Index size = problem.parameters[i].numel();
    std::copy_n(from, size, output<T>(gradients[i], "gradient", size));
    from += size;
  }
}

/// Returns new tensors: the loss, its gradient in each parameter, and in x, or None where that is not wanted.
py::tuple model_loss(const std::string& model, py::handle x, py::handle target,
                     const std::vector<py::object>& parameters, py::handle loss_weight, bool mean, bool with_dx,
                     int threads) {
  const Problem problem(model_named(model), x, target, Given::kArguments, false, parameters, loss_weight);
  const Results& make = results();
  py::object loss = make.scalar(problem.x.is_double());
  std::vector<py::object> gradients;
  gradients.reserve(parameters.size());
  for (std::size_t i = 0; i < parameters.size(); ++i) {
    gradients.push_back(make.like(parameters[i], problem.parameters[i]));
  }
  py::object dx = with_dx ? make.like(x, problem.x) : py::none();
  const auto typed = problem.x.is_double() ? loss_typed<double> : loss_typed<float>;
  typed(problem, mean, loss, gradients, dx, threads);
  py::tuple found(gradients.size() + 2);
  found[0] = std::move(loss);
  for (std::size_t i = 0; i < gradients.size(); ++i) found[i + 1] = std::move(gradients[i]);
  found[found.size() - 1] = std::move(dx);
  return found;
}

template <class T>
void legendre_typed(const Tensor& x, py::handle grad, py::handle out, int threads) {
  const Index size = x.numel();
  const T* upstream = grad.is_none() ? nullptr : output<T>(grad, "grad", size);
  const LegendreP3<T> problem = {x.data<const T>(), upstream, output<T>(out, "out", size)};
  const MaybeReleaseGil release(size);
  legendre_p3<T>(problem, size, threads);
}

void legendre(py::handle x_object, py::handle grad, py::handle out, int threads) {
  const Tensor x(x_object, "x");
  if (!x.contiguous()) fail_value("x", "a contiguous tensor", "strides that are not");
  if (x.is_double()) {
    legendre_typed<double>(x, grad, out, threads);
  } else {
    legendre_typed<float>(x, grad, out, threads);
  }
}

}  // namespace

void register_losses(py::module_& m) {
  m.def("plain", &plain, py::arg("inputs"), py::arg("constants") = 0, py::arg("optional") = 0);
  m.def("is_one", &is_one, py::arg("grad"));
  m.def("mse", &mse, py::arg("input"), py::arg("target"), py::arg("weight"), py::arg("reduction"), py::arg("loss"),
        py::arg("gradient"), py::arg("threads"));
  m.def("model_loss", &model_loss, py::arg("model"), py::arg("x"), py::arg("target"), py::arg("parameters"),
        py::arg("loss_weight"), py::arg("mean"), py::arg("with_dx"), py::arg("threads"));
  m.def("legendre_p3", &legendre, py::arg("x"), py::arg("grad"), py::arg("out"), py::arg("threads"));
}

}  // namespace gdcore
