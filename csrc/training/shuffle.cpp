#include "training/shuffle.h"

#include <algorithm>
#include <utility>

namespace gdcore {

namespace {

constexpr Index kWords = GeneratorState::kWords;
constexpr Index kMiddle = 397;

/// MT19937. Source: M. Matsumoto and T. Nishimura, "Mersenne Twister", ACM TOMACS 8 (1998).
class Twister {
 public:
  explicit Twister(const GeneratorState& state)
      : next_(static_cast<Index>(state.next)), left_(static_cast<Index>(state.left) - 1) {
    for (Index i = 0; i < kWords; ++i) words_[i] = static_cast<std::uint32_t>(state.words[i]);
  }

  void write(GeneratorState& state) const {
    state.next = static_cast<std::uint64_t>(next_);
    state.left = static_cast<std::int32_t>(left_ + 1);
    for (Index i = 0; i < kWords; ++i) state.words[i] = words_[i];
  }

  /// The next words, at most `count` of them: how many there are, and where.
  Index take(Index count, const std::uint32_t** words) {
    if (left_ == 0) twist();
    const Index taken = std::min(count, left_);
    *words = words_ + next_;
    next_ += taken;
    left_ -= taken;
    return taken;
  }

 private:
  static std::uint32_t mixed(std::uint32_t u, std::uint32_t v) {
    return (((u & 0x80000000u) | (v & 0x7fffffffu)) >> 1) ^ ((0u - (v & 1u)) & 0x9908b0dfu);
  }

  void twist() {
    constexpr Index rest = kWords - kMiddle;
    for (Index i = 0; i < rest; ++i) words_[i] = words_[i + kMiddle] ^ mixed(words_[i], words_[i + 1]);
    for (Index i = rest; i < kWords - 1; ++i) words_[i] = words_[i - rest] ^ mixed(words_[i], words_[i + 1]);
    words_[kWords - 1] = words_[kMiddle - 1] ^ mixed(words_[kWords - 1], words_[0]);
    next_ = 0;
    left_ = kWords;
  }

  std::uint32_t words_[kWords];
  Index next_;
  Index left_;
};

std::uint32_t tempered(std::uint32_t word) {
  word ^= word >> 11;
  word ^= (word << 7) & 0x9d2c5680u;
  word ^= (word << 15) & 0xefc60000u;
  return word ^ word >> 18;
}

}  // namespace

bool GeneratorState::consistent() const {
  return left >= 1 && left <= kWords && next + static_cast<std::uint64_t>(left - 1) <= static_cast<std::uint64_t>(kWords);
}

void draw_order(GeneratorState& generator, Index n, Index rows, std::int32_t* order) {
  Twister twister(generator);
  if (rows > 0) {
    for (Index i = 0; i < n; ++i) order[i] = static_cast<std::int32_t>(i);
  }
  // Row i changes places with one of those from i on, and then stays: the last has no choice, and draws nothing.
  const std::uint32_t* words;
  std::uint32_t distance[kWords];
  for (Index i = 0; i + 1 < n;) {
    const Index count = twister.take(n - 1 - i, &words);
    const Index wanted = std::clamp<Index>(rows - i, 0, count);
    for (Index j = 0; j < wanted; ++j) distance[j] = tempered(words[j]);
    for (Index j = 0; j < wanted; ++j) distance[j] %= static_cast<std::uint32_t>(n - i - j);
    for (Index j = 0; j < wanted; ++j) std::swap(order[i + j], order[i + j + distance[j]]);
    i += count;
  }
  twister.write(generator);
}

}  // namespace gdcore
