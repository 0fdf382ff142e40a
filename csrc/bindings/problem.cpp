#include "bindings/problem.h"

#include <string>

namespace gdcore {

Model model_named(const std::string& name) {
  if (name == "linear") return Model::kLinear;
  if (name == "polynomial") return Model::kPolynomial;
  if (name == "legendre") return Model::kLegendre;
  throw py::value_error("model: expected linear, polynomial or legendre, got " + name);
}

static std::vector<Tensor> view_parameters(Model model, const std::vector<py::object>& objects) {
  static constexpr const char* kNames[3][4] = {{"weight", "bias"}, {"coefficients"}, {"a", "b", "c", "d"}};
  std::vector<Tensor> views;
  views.reserve(objects.size());
  for (std::size_t i = 0; i < objects.size(); ++i) {
    views.emplace_back(objects[i], kNames[static_cast<int>(model)][i]);
  }
  return views;
}

static void check_linear(const Problem& problem) {
  const Tensor& x = problem.x;
  const Tensor& weight = problem.parameters[0];
  // One row, or one column, where a vector may be either.
  if (x.dim() == 1 && weight.dim() == 2 && weight.size(1) != 1) {
    fail_value("x", "shape (n, d)", x.shape() + (x.size(0) == weight.size(1) ? "; use x.unsqueeze(0)" : ""));
  }
  x.expect_dim(2, "(n, d)");
  weight.expect_dim(2, "(k, d)");
  const Index d = x.size(1);
  const Index k = weight.size(0);
  if (weight.size(1) != d) {
    fail_value("weight",
               "shape (k, " + std::to_string(d) + ") for x of shape " + x.shape() + ", as nn.Linear stores it",
               weight.shape() + (k == d ? "; use weight.t()" : ""));
  }
  if (problem.parameters.size() > 1) problem.parameters[1].expect_shape({k}, "as weight has that many rows");
  if (problem.flat) {
    problem.target.expect_shape({x.size(0) * k}, "as the flattened prediction");
  } else {
    problem.target.expect_shape({x.size(0), k}, "as the prediction");
    if (problem.loss_weight) problem.loss_weight->expect_shape({x.size(0), k}, "as the prediction");
  }
}

Problem::Problem(Model model, py::handle x, py::handle target, Given given, bool flat,
                 const std::vector<py::object>& parameters, py::handle loss_weight)
    : model(model),
      x(x, "x"),
      target(target, given == Given::kModel ? "y" : "target"),
      flat(flat),
      parameters(view_parameters(model, parameters)) {
  if (given == Given::kModel) this->x.expect_dtype_of(this->parameters[0]);
  this->target.expect_dtype_of(this->x);
  for (const Tensor& parameter : this->parameters) parameter.expect_dtype_of(this->x);
  if (!loss_weight.is_none()) {
    // A linear model has a `weight` of its own.
    this->loss_weight.emplace(loss_weight, model == Model::kLinear ? "loss_weight" : "weight");
    this->loss_weight->expect_dtype_of(this->x);
  }
  if (model == Model::kLinear) {
    check_linear(*this);
    return;
  }
  this->x.expect_dim(1, "(n,)");
  this->target.expect_shape({this->x.size(0)}, "as x");
  if (this->loss_weight) this->loss_weight->expect_shape({this->x.size(0)}, "as x");
  if (model == Model::kPolynomial) {
    const Tensor& coefficients = this->parameters[0];
    coefficients.expect_dim(1, "(degree + 1,)");
    if (coefficients.numel() < 1 || coefficients.numel() > kMaxDegree + 1) {
      fail_value("coefficients",
                 "1 to " + std::to_string(kMaxDegree + 1) + " of them (degree 0 to " + std::to_string(kMaxDegree) + ")",
                 std::to_string(coefficients.numel()));
    }
  } else {
    for (const Tensor& scalar : this->parameters) {
      if (scalar.numel() != 1) fail_value(scalar.name(), "a single value", "shape " + scalar.shape());
    }
  }
}

Index Problem::parameter_count() const {
  Index count = 0;
  for (const Tensor& parameter : parameters) count += parameter.numel();
  return count;
}

template <class T>
LinearMse<T> Problem::linear() const {
  const Index k = parameters[0].size(0);
  Matrix<const T> targets = target.matrix<T>();
  if (flat) targets = {targets.data, targets.row * k, targets.row};
  const Matrix<const T> weights = loss_weight ? loss_weight->matrix<T>() : Matrix<const T>{};
  return {x.size(1), k,      parameters.size() > 1, x.matrix<T>(), targets, nullptr, nullptr, nullptr, nullptr,
          T(0),      weights};
}

template <class T>
double Problem::weight_sum(int threads) const {
  return sum<T>({outputs(), loss_weight->matrix<T>()}, loss_weight->numel(), threads);
}

template <class T>
std::unique_ptr<Objective<T>> Problem::objective(double divisor, int threads) const {
  switch (model) {
    case Model::kLinear:
      return linear_objective<T>(linear<T>(), rows(), divisor, threads);
    case Model::kPolynomial:
      return polynomial_objective<T>({parameters[0].numel() - 1, x.matrix<T>(), target.matrix<T>(),
                                      loss_weight ? loss_weight->matrix<T>() : Matrix<const T>{}},
                                     rows(), divisor, threads);
    case Model::kLegendre:
      break;
  }
  return legendre_objective<T>({x.matrix<T>(), target.matrix<T>()}, rows(), divisor, threads);
}

template <class T>
Array<T> Problem::theta() const {
  Array<T> values = allocate<T>(parameter_count());
  T* to = values.get();
  for (const Tensor& parameter : parameters) {
    parameter.read(to);
    to += parameter.numel();
  }
  return values;
}

template LinearMse<float> Problem::linear() const;
template LinearMse<double> Problem::linear() const;
template std::unique_ptr<Objective<float>> Problem::objective(double, int) const;
template std::unique_ptr<Objective<double>> Problem::objective(double, int) const;
template double Problem::weight_sum<float>(int) const;
template double Problem::weight_sum<double>(int) const;
template Array<float> Problem::theta() const;
template Array<double> Problem::theta() const;

}  // namespace gdcore
