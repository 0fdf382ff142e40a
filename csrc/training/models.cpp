// The objectives of the models that have a kernel of their own.
#include "kernels/instruction_sets.h"
#include "training/objective.h"

namespace gdcore {

namespace {

/// The most memory that regrouped rows may take.
constexpr Index kMaxPackedBytes = Index{1} << 24;
constexpr Index kPassesWorthPacking = 4;
/// Rows up to which it shows in a pass that the last of them are copied into a whole group.
constexpr Index kRowsWorthFilling = 4096;

/// Copies a matrix into runs of kLanes rows, column by column, zeros beyond the last row: what `packed_x` describes.
template <class T>
Array<T> pack(const Matrix<const T>& matrix, Index rows, Index columns) {
  const Index lanes = kLanes<T>;
  Array<T> packed = allocate<T>((rows + lanes - 1) / lanes * lanes * columns);
  T* to = packed.get();
  for (Index row = 0; row < rows; row += lanes) {
    for (Index j = 0; j < columns; ++j) {
      for (Index i = row; i < row + lanes; ++i)
        *to++ = i < rows ? matrix.data[i * matrix.row + j * matrix.column] : T(0);
    }
  }
  return packed;
}

template <class T>
class LinearObjective final : public RowObjective<T> {
 public:
  LinearObjective(const LinearMse<T>& problem, Index rows, double divisor, int threads)
      : RowObjective<T>({rows, problem.outputs * (problem.columns + (problem.bias ? 1 : 0)),
                         problem.columns * problem.outputs + problem.outputs, divisor},
                        threads),
        problem_(problem),
        scratch_size_(linear_mse_scratch<T>(problem.columns, problem.outputs)),
        scratch_(allocate<T>(scratch_size_ * this->threads_)) {
    problem_.short_rows = problem.columns >= kShortColumns && problem.columns < kWideColumns && problem.outputs == 1 &&
                          problem.loss_weight.data == nullptr && !may_be_packed();
    if (problem.outputs >= kManyOutputs) weight_t_ = allocate<T>(problem.columns * padded_outputs());
    problem_.weight_t = weight_t_.get();
  }

  bool descends() const override {
    return this->extent_.rows <= kDescentRows && this->extent_.rows > 0 && problem_.columns <= kDescentColumns &&
           problem_.columns > 0 && problem_.outputs == 1 && problem_.loss_weight.data == nullptr;
  }

  Index descend(Descent<T> descent) override {
    descent.rows = this->extent_.rows;
    descent.divisor = this->extent_.divisor;
    return kernels<T>().linear_mse_descent(problem_, descent);
  }

  void prepare(Index passes) override {
    const bool lanes_over_rows = problem_.columns < kWideColumns && problem_.outputs < kManyOutputs;
    if (!lanes_over_rows || passes < kPassesWorthPacking || !may_be_packed()) return;
    // A single contiguous column is already what packing would make of it, but for a last group that lacks rows.
    const bool ragged = this->extent_.rows % kLanes<T> != 0 && this->extent_.rows < kRowsWorthFilling;
    if (ragged || problem_.columns != 1 || problem_.x.row != 1) {
      x_ = pack(problem_.x, this->extent_.rows, problem_.columns);
      problem_.packed_x = x_.get();
    }
    if (ragged || problem_.outputs != 1 || problem_.target.row != 1) {
      target_ = pack(problem_.target, this->extent_.rows, problem_.outputs);
      problem_.packed_target = target_.get();
    }
  }

 protected:
  void begin(const T* theta) override {
    if (!weight_t_) return;
    const Index padded = padded_outputs();
    for (Index j = 0; j < problem_.columns; ++j) {
      for (Index o = 0; o < padded; ++o) {
        weight_t_[j * padded + o] = o < problem_.outputs ? theta[o * problem_.columns + j] : T(0);
      }
    }
  }

  void accumulate(const T* theta, Index begin, Index end, int worker, double* sums) override {
    kernels<T>().linear_mse(problem_, theta, begin, end, sums, scratch_.get() + scratch_size_ * worker);
  }

 private:
  bool may_be_packed() const {
    const Index row = (problem_.columns + problem_.outputs) * static_cast<Index>(sizeof(T));
    return this->extent_.rows * row <= kMaxPackedBytes;
  }
  Index padded_outputs() const { return (problem_.outputs + kLanes<T> - 1) / kLanes<T> * kLanes<T>; }

  LinearMse<T> problem_;
  Index scratch_size_;
  Array<T> scratch_;
  Array<T> weight_t_;
  Array<T> x_;
  Array<T> target_;
};

template <class T>
class PolynomialObjective final : public RowObjective<T> {
 public:
  PolynomialObjective(const PolynomialMse<T>& problem, Index rows, double divisor, int threads)
      : RowObjective<T>({rows, problem.degree + 1, problem.degree + 1, divisor}, threads), problem_(problem) {}

 protected:
  void accumulate(const T* theta, Index begin, Index end, int /*worker*/, double* sums) override {
    kernels<T>().polynomial_mse(problem_, theta, begin, end, sums);
  }

 private:
  PolynomialMse<T> problem_;
};

template <class T>
class LegendreObjective final : public RowObjective<T> {
 public:
  LegendreObjective(const LegendreMse<T>& problem, Index rows, double divisor, int threads)
      : RowObjective<T>({rows, 4, 4, divisor}, threads), problem_(problem) {}

 protected:
  void accumulate(const T* theta, Index begin, Index end, int /*worker*/, double* sums) override {
    kernels<T>().legendre_mse(problem_, theta, begin, end, sums);
  }

  // ∂/∂c and ∂/∂d carry the factor b, the same for every row.
  void end(const T* theta, double* sums) override {
    sums[3] *= static_cast<double>(theta[1]);
    sums[4] *= static_cast<double>(theta[1]);
  }

 private:
  LegendreMse<T> problem_;
};

// A sum that is left in double: not a loss, which is rounded to T.
template <class T>
class SumObjective final : public RowObjective<T> {
 public:
  SumObjective(const MatrixSum<T>& problem, Index elements, int threads)
      : RowObjective<T>({elements, 0, 1, 1.0}, threads), problem_(problem) {}

  double total = 0.0;

 protected:
  void accumulate(const T* /*theta*/, Index begin, Index end, int /*worker*/, double* sums) override {
    kernels<T>().sum(problem_, begin, end, sums);
  }
  void end(const T* /*theta*/, double* sums) override { total = sums[0]; }

 private:
  MatrixSum<T> problem_;
};

// No parameters: the kernel writes the gradient with respect to the prediction as it goes.
template <class T>
class MseObjective final : public RowObjective<T> {
 public:
  MseObjective(const Mse<T>& problem, Index elements, double divisor, int threads)
      : RowObjective<T>({elements, 0, 2, divisor}, threads), problem_(problem) {}

 protected:
  void accumulate(const T* /*theta*/, Index begin, Index end, int /*worker*/, double* sums) override {
    kernels<T>().mse(problem_, begin, end, sums);
  }

 private:
  Mse<T> problem_;
};

}  // namespace

template <class T>
std::unique_ptr<Objective<T>> linear_objective(const LinearMse<T>& problem, Index rows, double divisor, int threads) {
  return std::make_unique<LinearObjective<T>>(problem, rows, divisor, threads);
}
template <class T>
std::unique_ptr<Objective<T>> polynomial_objective(const PolynomialMse<T>& problem, Index rows, double divisor,
                                                   int threads) {
  return std::make_unique<PolynomialObjective<T>>(problem, rows, divisor, threads);
}
template <class T>
std::unique_ptr<Objective<T>> legendre_objective(const LegendreMse<T>& problem, Index rows, double divisor,
                                                 int threads) {
  return std::make_unique<LegendreObjective<T>>(problem, rows, divisor, threads);
}
template <class T>
std::unique_ptr<Objective<T>> mse_objective(const Mse<T>& problem, Index elements, double divisor, int threads) {
  return std::make_unique<MseObjective<T>>(problem, elements, divisor, threads);
}
template <class T>
double sum(const MatrixSum<T>& problem, Index elements, int threads) {
  SumObjective<T> objective(problem, elements, threads);
  T rounded;
  objective.evaluate(nullptr, {nullptr, nullptr}, &rounded, nullptr);
  return objective.total;
}

template std::unique_ptr<Objective<float>> linear_objective(const LinearMse<float>&, Index, double, int);
template std::unique_ptr<Objective<double>> linear_objective(const LinearMse<double>&, Index, double, int);
template std::unique_ptr<Objective<float>> polynomial_objective(const PolynomialMse<float>&, Index, double, int);
template std::unique_ptr<Objective<double>> polynomial_objective(const PolynomialMse<double>&, Index, double, int);
template std::unique_ptr<Objective<float>> legendre_objective(const LegendreMse<float>&, Index, double, int);
template std::unique_ptr<Objective<double>> legendre_objective(const LegendreMse<double>&, Index, double, int);
template double sum(const MatrixSum<float>&, Index, int);
template double sum(const MatrixSum<double>&, Index, int);
template std::unique_ptr<Objective<float>> mse_objective(const Mse<float>&, Index, double, int);
template std::unique_ptr<Objective<double>> mse_objective(const Mse<double>&, Index, double, int);

}  // namespace gdcore
