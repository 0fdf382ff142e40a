#include "training/minibatches.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace gdcore {

namespace {

template <class T>
class MinibatchObjective final : public Objective<T> {
 public:
  explicit MinibatchObjective(Minibatches<T> minibatches) : m_(std::move(minibatches)) {
    const Index size = std::min(m_.size, m_.rows);
    batch_ = m_.data;
    if (m_.order != nullptr) {
      const RowOrder order = {m_.order, m_.shuffle, m_.rows, size};
      gathering_.emplace(m_.data, m_.x_columns, m_.target_columns, order, m_.threads);
      batch_ = gathering_->slots();
    }
    whole_ = m_.make(batch_, size);
    if (m_.rows % m_.size != 0) last_ = m_.make(batch_, m_.rows % m_.size);
  }

  bool evaluate(const T* theta, const Interrupt& interrupt, T* loss, T* gradient) override {
    const Index rows = std::min(m_.size, m_.rows - next_);
    const Index first = gathering_ ? gathering_->at(next_) : next_;
    Objective<T>& objective = rows < m_.size && last_ ? *last_ : *whole_;
    objective.select(first, divisor(first, rows));
    next_ += rows;
    return objective.evaluate(theta, interrupt, loss, gradient);
  }

  void during(const std::function<void()>& body) override {
    if (gathering_) {
      gathering_->beside(body);
    } else {
      body();
    }
  }

  Index parameters() const override { return whole_->parameters(); }
  Index work() const override { return whole_->work(); }

 private:
  double divisor(Index first, Index rows) const {
    if (!m_.mean) return 1.0;
    const Index elements = rows * m_.target_columns;
    Matrix<const T> weights = batch_.loss_weight;
    if (weights.data == nullptr) return static_cast<double>(elements);
    weights.data += first * weights.row;
    return sum<T>({m_.target_columns, weights}, elements, m_.threads);
  }

  Minibatches<T> m_;
  RowData<T> batch_;
  std::optional<Gathering<T>> gathering_;
  std::unique_ptr<Objective<T>> whole_, last_;
  Index next_ = 0;
};

}  // namespace

template <class T>
std::unique_ptr<Objective<T>> minibatch_objective(Minibatches<T> minibatches) {
  return std::make_unique<MinibatchObjective<T>>(std::move(minibatches));
}

template std::unique_ptr<Objective<float>> minibatch_objective(Minibatches<float>);
template std::unique_ptr<Objective<double>> minibatch_objective(Minibatches<double>);

}  // namespace gdcore
