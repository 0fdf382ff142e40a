#include "training/minibatches.h"

#include <algorithm>
#include <utility>

#include "training/chunks.h"

namespace gdcore {

namespace {

/// Rows between the one that is copied and the one that is fetched: about the latency of memory.
constexpr Index kRowsAhead = 16;
constexpr Index kLineBytes = 64;
constexpr Index kRowsPerChunk = 1024;

/// to (rows × columns, contiguous) = the rows of `from` that `order` names. `known` ≥ rows is how many of them may be
/// fetched: those of the next batch, too.
template <class T>
void gather_rows(const Matrix<const T>& from, Index columns, const Index* order, Index rows, Index known, T* to) {
  const Index step = std::max<Index>(kLineBytes / static_cast<Index>(sizeof(T)) / std::max<Index>(from.column, 1), 1);
  for (Index i = 0; i < rows; ++i) {
    if (i + kRowsAhead < known) {
      const T* const ahead = from.data + order[i + kRowsAhead] * from.row;
      for (Index j = 0; j < columns; j += step) __builtin_prefetch(ahead + j * from.column);
    }
    const T* const row = from.data + order[i] * from.row;
    T* const copy = to + i * columns;
    if (from.column == 1) {
      for (Index j = 0; j < columns; ++j) copy[j] = row[j];
    } else {
      for (Index j = 0; j < columns; ++j) copy[j] = row[j * from.column];
    }
  }
}

template <class T>
class MinibatchObjective final : public Objective<T> {
 public:
  explicit MinibatchObjective(Minibatches<T> minibatches) : m_(std::move(minibatches)) {
    const Index size = std::min(m_.size, m_.rows);
    batch_ = m_.data;
    if (m_.order != nullptr) {
      x_ = allocate<T>(size * m_.x_columns);
      target_ = allocate<T>(size * m_.target_columns);
      batch_.x = {x_.get(), m_.x_columns, 1};
      batch_.target = {target_.get(), m_.target_columns, 1};
      if (batch_.loss_weight.data != nullptr) {
        loss_weight_ = allocate<T>(size * m_.target_columns);
        batch_.loss_weight = {loss_weight_.get(), m_.target_columns, 1};
      }
    }
    whole_ = m_.make(batch_, size);
    if (m_.rows % m_.size != 0) last_ = m_.make(batch_, m_.rows % m_.size);
  }

  bool evaluate(const T* theta, const Interrupt& interrupt, T* loss, T* gradient) override {
    const Index rows = std::min(m_.size, m_.rows - next_);
    const Index first = m_.order == nullptr ? next_ : 0;
    if (m_.order != nullptr) gather(m_.order + next_, rows);
    Objective<T>& objective = rows < m_.size && last_ ? *last_ : *whole_;
    objective.select(first, divisor(first, rows));
    next_ += rows;
    return objective.evaluate(theta, interrupt, loss, gradient);
  }

  Index parameters() const override { return whole_->parameters(); }
  Index work() const override { return whole_->work(); }

 private:
  void gather(const Index* order, Index rows) {
    for_chunks(rows, kRowsPerChunk, m_.x_columns, m_.threads, [&](Index begin, Index end) {
      const Index count = end - begin;
      const Index known = m_.rows - next_ - begin;
      gather_rows(m_.data.x, m_.x_columns, order + begin, count, known, x_.get() + begin * m_.x_columns);
      const auto beside = [&](const Matrix<const T>& from, T* to) {
        gather_rows(from, m_.target_columns, order + begin, count, known, to + begin * m_.target_columns);
      };
      beside(m_.data.target, target_.get());
      if (loss_weight_) beside(m_.data.loss_weight, loss_weight_.get());
    });
  }

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
  Array<T> x_, target_, loss_weight_;
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
