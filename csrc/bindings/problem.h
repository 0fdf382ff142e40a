// The arguments of a model's objective, checked and read: shared by the losses and the training loops.
#pragma once

#include <memory>
#include <optional>
#include <vector>

#include "bindings/tensor.h"
#include "training/minibatches.h"
#include "training/objective.h"

namespace gdcore {

enum class Model { kLinear, kPolynomial, kLegendre, kIndexed };

/// How the arguments came, for errors: data (x, y) for a model that is there, or all by name (x, target, weight, …).
enum class Given { kModel, kArguments };

/// "linear", "polynomial", "legendre" or "indexed".
Model model_named(const std::string& name);

/// Where an indexed model's weights stand in θ, its parameters end to end: -1 where there is none.
struct WeightIndex {
  Index outputs = 0;
  Index columns = 0;
  std::vector<Index> places;  ///< outputs × columns
};

/// A tensor (k, q) of int64 whose values are below `end`.
WeightIndex weight_index(py::handle tensor, Index end);

/// Data and parameters of one model, checked against each other.
///   linear:     x (n, d), target (n, k), weight (k, d), bias (k,) or no second parameter
///   polynomial: x (n,), target (n,), coefficients (degree + 1,)
///   legendre:   x (n,), target (n,), a, b, c, d, each of shape () or (1,)
///   indexed:    x (n, q), target (n, k), parameters of any shapes, and an index of weights (k, q)
/// A loss's weights have the shape of target.
struct Problem {
  /// `flat`: a linear model's prediction is flattened, and target is (n · k,).
  Problem(Model model, py::handle x, py::handle target, Given given, bool flat,
          const std::vector<py::object>& parameters, py::handle loss_weight = py::none(),
          const WeightIndex* index = nullptr);

  Model model;
  Tensor x;
  Tensor target;
  bool flat;
  std::vector<Tensor> parameters;
  std::optional<Tensor> loss_weight;
  const WeightIndex* index;

  Index rows() const { return x.size(0); }
  Index columns() const { return x.dim() == 2 ? x.size(1) : 1; }
  Index outputs() const;
  Index parameter_count() const;

  template <class T>
  RowData<T> data() const;
  template <class T>
  std::unique_ptr<Objective<T>> objective(double divisor, int threads) const {
    return objective<T>(data<T>(), rows(), divisor, threads);
  }
  /// Over other rows, with data of the same columns.
  template <class T>
  std::unique_ptr<Objective<T>> objective(const RowData<T>& data, Index rows, double divisor, int threads) const;
  /// The linear model's with dx = ∂loss/∂x beside it.
  template <class T>
  LinearMse<T> linear() const;
  /// 1 for a sum; for a mean the number of residuals, or the sum of their weights.
  template <class T>
  double divisor(bool mean, int threads) const;

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
