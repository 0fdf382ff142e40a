// A least-squares objective over rows: loss(θ) = Σ w r(θ)² / divisor and its gradient 2 Σ w r ∂r/∂θ / divisor.
#pragma once

#include <functional>
#include <memory>

#include "kernels/kernels.h"
#include "training/memory.h"
#include "training/thread_pool.h"

namespace gdcore {

template <class T>
class Objective {
 public:
  Objective() = default;
  virtual ~Objective() = default;
  Objective(const Objective&) = delete;
  Objective& operator=(const Objective&) = delete;

  /// Loss and gradient at θ. Returns false, with nothing that counts written, if interrupted.
  virtual bool evaluate(const T* theta, const Interrupt& interrupt, T* loss, T* gradient) = 0;

  /// Whether `descend` may be called.
  virtual bool descends() const { return false; }
  /// Steps of gradient descent, each the same to the bit as `evaluate` and the update; rows and divisor are filled in
  /// here. Returns how many were made: see `Kernels::linear_mse_descent`.
  virtual Index descend(Descent<T> /*descent*/) { return 0; }

  /// Spends one pass on regrouping the rows if that makes each of `passes` evaluations cheaper.
  virtual void prepare(Index /*passes*/) {}
  /// Evaluates the rows from `first` on from now on, with another divisor. Not after `prepare`.
  virtual void select(Index /*first*/, double /*divisor*/) {}
  /// Calls `body`, which evaluates this again and again, with whatever help there is for that.
  virtual void during(const std::function<void()>& body) { body(); }

  virtual Index parameters() const = 0;
  /// Elements read by one evaluation.
  virtual Index work() const = 0;
};

/// The shapes that decide how an objective is cut.
struct Extent {
  Index rows;
  Index parameters;        ///< how many gradients are summed
  Index elements_per_row;  ///< what a row costs, in elements read
  double divisor;          ///< 1 for a sum, the number of residuals, or the sum of their weights, for a mean
};

/// An objective whose sums a kernel forms, in one pass over the rows.
///
/// Rows are cut into chunks whose size depends on the shapes alone; each chunk's sums are double, and chunks are added
/// in their order. So the result does not depend on how many threads share the chunks.
template <class T>
class RowObjective : public Objective<T> {
 public:
  RowObjective(const Extent& extent, int threads);

  /// Without rows the loss is 0 / divisor and the gradient zero.
  bool evaluate(const T* theta, const Interrupt& interrupt, T* loss, T* gradient) final;
  void select(Index first, double divisor) final;

  Index parameters() const final { return extent_.parameters; }
  Index work() const final { return extent_.rows * extent_.elements_per_row; }

 protected:
  /// Adds the sums of rows [begin, end) to `sums`: Σ w r² first, then one for each parameter.
  virtual void accumulate(const T* theta, Index begin, Index end, int worker, double* sums) = 0;
  /// Once before the chunks of an evaluation, and once after, with the sums of all rows.
  virtual void begin(const T* /*theta*/) {}
  virtual void end(const T* /*theta*/, double* /*sums*/) {}

  Extent extent_;
  int threads_;  ///< how many workers may call `accumulate` at once

 private:
  Index first_ = 0;
  Index rows_per_chunk_;
  Index rows_per_piece_;
  Index chunks_;
  Array<double> sums_;  ///< of all rows, then of each chunk
};

/// Elements below which a job stays on the calling thread: waking another costs as much as they do.
inline constexpr Index kSerialElements = Index{1} << 17;

template <class T>
std::unique_ptr<Objective<T>> linear_objective(const LinearMse<T>& problem, Index rows, double divisor, int threads);
template <class T>
std::unique_ptr<Objective<T>> polynomial_objective(const PolynomialMse<T>& problem, Index rows, double divisor,
                                                   int threads);
template <class T>
std::unique_ptr<Objective<T>> legendre_objective(const LegendreMse<T>& problem, Index rows, double divisor,
                                                 int threads);
template <class T>
std::unique_ptr<Objective<T>> mse_objective(const Mse<T>& problem, Index elements, double divisor, int threads);

/// Σ of a matrix's elements, in double, cut into chunks as an objective is.
template <class T>
double sum(const MatrixSum<T>& problem, Index elements, int threads);

}  // namespace gdcore
