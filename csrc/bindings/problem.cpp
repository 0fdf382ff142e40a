#include "bindings/problem.h"

#include <string>

#include "training/indexed.h"

namespace gdcore {

Model model_named(const std::string& name) {
  if (name == "linear") return Model::kLinear;
  if (name == "polynomial") return Model::kPolynomial;
  if (name == "legendre") return Model::kLegendre;
  if (name == "indexed") return Model::kIndexed;
  throw py::value_error("model: expected linear, polynomial, legendre or indexed, got " + name);
}

WeightIndex weight_index(py::handle tensor, Index end) {
  const IndexView view(tensor, "index");
  if (view.dim() != 2) fail_value("index", "shape (k, q)", view.shape());
  WeightIndex index = {view.size(0), view.size(1), view.read()};
  for (const Index place : index.places) {
    if (place < -1 || place >= end) {
      fail_value("index", "places from -1 to " + std::to_string(end - 1), std::to_string(place));
    }
  }
  return index;
}

static std::vector<Tensor> view_parameters(Model model, const std::vector<py::object>& objects) {
  static constexpr const char* kNames[3][4] = {{"weight", "bias"}, {"coefficients"}, {"a", "b", "c", "d"}};
  std::vector<Tensor> views;
  views.reserve(objects.size());
  for (std::size_t i = 0; i < objects.size(); ++i) {
    views.emplace_back(objects[i], model == Model::kIndexed ? "parameter" : kNames[static_cast<int>(model)][i]);
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
    if (problem.loss_weight) problem.loss_weight->expect_shape({x.size(0) * k}, "as the flattened prediction");
  } else {
    problem.target.expect_shape({x.size(0), k}, "as the prediction");
    if (problem.loss_weight) problem.loss_weight->expect_shape({x.size(0), k}, "as the prediction");
  }
}

static void check_indexed(const Problem& problem) {
  if (problem.index == nullptr) fail_value("index", "one for an indexed model", "none");
  const Index columns = problem.index->columns;
  const Index outputs = problem.index->outputs;
  problem.x.expect_dim(2, "(n, q)");
  if (problem.x.size(1) != columns) {
    fail_value("x", "shape (n, " + std::to_string(columns) + ") as index has that many columns", problem.x.shape());
  }
  problem.target.expect_shape({problem.rows(), outputs}, "as the prediction");
  if (problem.loss_weight) problem.loss_weight->expect_shape({problem.rows(), outputs}, "as the prediction");
}

Problem::Problem(Model model, py::handle x, py::handle target, Given given, bool flat,
                 const std::vector<py::object>& parameters, py::handle loss_weight, const WeightIndex* index)
    : model(model),
      x(x, "x"),
      target(target, given == Given::kModel ? "y" : "target"),
      flat(flat),
      parameters(view_parameters(model, parameters)),
      index(index) {
  if (given == Given::kModel) this->x.expect_dtype_of(this->parameters[0]);
  this->target.expect_dtype_of(this->x);
  for (const Tensor& parameter : this->parameters) parameter.expect_dtype_of(this->x);
  if (!loss_weight.is_none()) {
    // A linear model has a `weight` of its own.
    this->loss_weight.emplace(loss_weight,
                              model == Model::kLinear && given == Given::kArguments ? "loss_weight" : "weight");
    this->loss_weight->expect_dtype_of(this->x);
  }
  if (model == Model::kLinear) {
    check_linear(*this);
    return;
  }
  if (model == Model::kIndexed) {
    check_indexed(*this);
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

Index Problem::outputs() const {
  if (model == Model::kLinear) return parameters[0].size(0);
  return model == Model::kIndexed ? index->outputs : 1;
}

template <class T>
RowData<T> Problem::data() const {
  const auto by_row = [this](const Tensor& tensor) {
    const Matrix<const T> matrix = tensor.matrix<T>();
    const Index k = outputs();
    return flat ? Matrix<const T>{matrix.data, matrix.row * k, matrix.row} : matrix;
  };
  return {x.matrix<T>(), by_row(target), loss_weight ? by_row(*loss_weight) : Matrix<const T>{}, rows()};
}

template <class T>
static LinearMse<T> linear_mse_of(const RowData<T>& data, Index columns, Index outputs, bool bias) {
  return {columns, outputs, bias,    data.x, data.target,      nullptr,
          nullptr, nullptr, nullptr, T(0),   data.loss_weight, data.rows_to_fetch};
}

template <class T>
LinearMse<T> Problem::linear() const {
  return linear_mse_of(data<T>(), columns(), outputs(), parameters.size() > 1);
}

template <class T>
double Problem::divisor(bool mean, int threads) const {
  if (!mean) return 1.0;
  if (!loss_weight) return static_cast<double>(rows() * outputs());
  return sum<T>({outputs(), data<T>().loss_weight}, loss_weight->numel(), threads);
}

template <class T>
std::unique_ptr<Objective<T>> Problem::objective(const RowData<T>& data, Index rows, double divisor,
                                                 int threads) const {
  switch (model) {
    case Model::kLinear:
      return linear_objective<T>(linear_mse_of(data, columns(), outputs(), parameters.size() > 1), rows, divisor,
                                 threads);
    case Model::kPolynomial:
      return polynomial_objective<T>({parameters[0].numel() - 1, data.x, data.target, data.loss_weight}, rows, divisor,
                                     threads);
    case Model::kIndexed:
      return indexed_objective<T>(
          linear_objective<T>(linear_mse_of(data, columns(), outputs(), false), rows, divisor, threads), index->places,
          parameter_count());
    case Model::kLegendre:
      break;
  }
  return legendre_objective<T>({data.x, data.target, data.loss_weight}, rows, divisor, threads);
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
template RowData<float> Problem::data() const;
template RowData<double> Problem::data() const;
template std::unique_ptr<Objective<float>> Problem::objective(const RowData<float>&, Index, double, int) const;
template std::unique_ptr<Objective<double>> Problem::objective(const RowData<double>&, Index, double, int) const;
template double Problem::divisor<float>(bool, int) const;
template double Problem::divisor<double>(bool, int) const;
template Array<float> Problem::theta() const;
template Array<double> Problem::theta() const;

}  // namespace gdcore
