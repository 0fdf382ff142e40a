// The arguments of a model's objective, checked and read: shared by the losses and the training loops.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "bindings/tensor.h"
#include "training/objective.h"

namespace gdcore {

enum class Model { kLinear, kPolynomial, kLegendre };

/// How the arguments came, for errors: data (x, y) for a model that is there, or all by name (x, target, weight, …).
enum class Given { kModel, kArguments };

/// "linear", "polynomial" or "legendre".
Model model_named(const std::string& name);

/// Data and parameters of one model, checked against each other.
///   linear:     x (n, d), target (n, k), weight (k, d), bias (k,) or no second parameter
///   polynomial: x (n,), target (n,), coefficients (degree + 1,)
///   legendre:   x (n,), target (n,), a, b, c, d, each of shape () or (1,)
/// A loss's weights have the shape of target; legendre has none.
struct Problem {
  /// `flat`: a linear model's prediction is flattened, and target is (n · k,).
  Problem(Model model, py::handle x, py::handle target, Given given, bool flat,
          const std::vector<py::object>& parameters, py::handle loss_weight = py::none());

  Model model;
  Tensor x;
  Tensor target;
  bool flat;
  std::vector<Tensor> parameters;
  std::optional<Tensor> loss_weight;

  Index rows() const { return x.size(0); }
  Index outputs() const { return model == Model::kLinear ? parameters[0].size(0) : 1; }
  Index parameter_count() const;

  template <class T>
  std::unique_ptr<Objective<T>> objective(bool mean, int threads) const {
    return objective<T>(divisor(mean), threads);
  }
  template <class T>
  std::unique_ptr<Objective<T>> objective(double divisor, int threads) const;
  /// The linear model's with dx = ∂loss/∂x beside it.
  template <class T>
  LinearMse<T> linear() const;
  double divisor(bool mean) const { return mean ? static_cast<double>(rows() * outputs()) : 1.0; }
  /// What divides the mean of weighted losses: the sum of the weights.
  template <class T>
  double weight_sum(int threads) const;

  template <class T>
  Array<T> theta() const;
};

/// Elements of work from which a call lets other Python threads run meanwhile.
inline constexpr Index kElementsToReleaseGil = Index{1} << 14;

/// Releases the GIL where `work` is worth it.
class MaybeReleaseGil {
 public:
  explicit MaybeReleaseGil(Index work) {
    if (work >= kElementsToReleaseGil) release_ = std::make_unique<py::gil_scoped_release>();
  }

 private:
  std::unique_ptr<py::gil_scoped_release> release_;
};

}  // namespace gdcore
