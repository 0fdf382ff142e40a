#include "training/indexed.h"

#include <algorithm>
#include <utility>

namespace gdcore {

namespace {

template <class T>
class IndexedObjective final : public Objective<T> {
 public:
  IndexedObjective(std::unique_ptr<Objective<T>> linear, std::vector<Index> index, Index parameters)
      : linear_(std::move(linear)),
        index_(std::move(index)),
        parameters_(parameters),
        weight_(allocate<T>(static_cast<Index>(index_.size()))),
        weight_gradient_(allocate<T>(static_cast<Index>(index_.size()))),
        sums_(allocate<double>(parameters)) {}

  bool evaluate(const T* theta, const Interrupt& interrupt, T* loss, T* gradient) override {
    const std::size_t count = index_.size();
    for (std::size_t i = 0; i < count; ++i) weight_[i] = index_[i] < 0 ? T(0) : theta[index_[i]];
    if (!linear_->evaluate(weight_.get(), interrupt, loss, weight_gradient_.get())) return false;
    std::fill_n(sums_.get(), parameters_, 0.0);
    for (std::size_t i = 0; i < count; ++i) {
      if (index_[i] >= 0) sums_[index_[i]] += static_cast<double>(weight_gradient_[i]);
    }
    for (Index i = 0; i < parameters_; ++i) gradient[i] = static_cast<T>(sums_[i]);
    return true;
  }

  void prepare(Index passes) override { linear_->prepare(passes); }
  void select(Index first, double divisor) override { linear_->select(first, divisor); }
  Index parameters() const override { return parameters_; }
  Index work() const override { return linear_->work() + parameters_ + static_cast<Index>(index_.size()); }

 private:
  std::unique_ptr<Objective<T>> linear_;
  std::vector<Index> index_;
  Index parameters_;
  Array<T> weight_;
  Array<T> weight_gradient_;
  Array<double> sums_;
};

}  // namespace

template <class T>
std::unique_ptr<Objective<T>> indexed_objective(std::unique_ptr<Objective<T>> linear, std::vector<Index> index,
                                                Index parameters) {
  // Every weight in its place: θ is the weights.
  bool in_place = static_cast<Index>(index.size()) == parameters;
  for (std::size_t i = 0; in_place && i < index.size(); ++i) in_place = index[i] == static_cast<Index>(i);
  if (in_place) return linear;
  return std::make_unique<IndexedObjective<T>>(std::move(linear), std::move(index), parameters);
}

template std::unique_ptr<Objective<float>> indexed_objective(std::unique_ptr<Objective<float>>, std::vector<Index>,
                                                             Index);
template std::unique_ptr<Objective<double>> indexed_objective(std::unique_ptr<Objective<double>>, std::vector<Index>,
                                                              Index);

}  // namespace gdcore
