#include "training/shuffle.h"

#include <algorithm>
#include <utility>

namespace gdcore {

namespace {

constexpr Index kWords = GeneratorState::kWords;
constexpr Index kMiddle = 397;

std::uint32_t mixed(std::uint32_t u, std::uint32_t v) {
  return (((u & 0x80000000u) | (v & 0x7fffffffu)) >> 1) ^ ((0u - (v & 1u)) & 0x9908b0dfu);
}

std::uint32_t tempered(std::uint32_t word) {
  word ^= word >> 11;
  word ^= (word << 7) & 0x9d2c5680u;
  word ^= (word << 15) & 0xefc60000u;
  return word ^ word >> 18;
}

/// n modulo m. A quotient of two such numbers that is no whole number is further from one than double rounds: what is
/// cut off is exactly the fraction. Unlike division of integers, that is done in several lanes at once.
std::uint32_t remainder(std::uint32_t n, std::int32_t m) {
  const auto quotient = static_cast<std::uint32_t>(static_cast<double>(n) / static_cast<double>(m));
  return n - quotient * static_cast<std::uint32_t>(m);
}

}  // namespace

bool GeneratorState::consistent() const {
  return left >= 1 && left <= kWords && next + static_cast<std::uint64_t>(left - 1) <= kWords;
}

MersenneTwister::MersenneTwister(const GeneratorState& state)
    : next_(static_cast<Index>(state.next)), left_(static_cast<Index>(state.left) - 1) {
  for (Index i = 0; i < kWords; ++i) words_[i] = static_cast<std::uint32_t>(state.words[i]);
}

void MersenneTwister::write(GeneratorState& state) const {
  state.next = static_cast<std::uint64_t>(next_);
  state.left = static_cast<std::int32_t>(left_ + 1);
  for (Index i = 0; i < kWords; ++i) state.words[i] = words_[i];
}

Index MersenneTwister::take(Index count, const std::uint32_t** words) {
  if (left_ == 0) twist();
  const Index taken = std::min(count, left_);
  *words = words_ + next_;
  next_ += taken;
  left_ -= taken;
  return taken;
}

void MersenneTwister::twist() {
  constexpr Index rest = kWords - kMiddle;
  for (Index i = 0; i < rest; ++i) words_[i] = words_[i + kMiddle] ^ mixed(words_[i], words_[i + 1]);
  for (Index i = rest; i < kWords - 1; ++i) words_[i] = words_[i - rest] ^ mixed(words_[i], words_[i + 1]);
  words_[kWords - 1] = words_[kMiddle - 1] ^ mixed(words_[kWords - 1], words_[0]);
  next_ = 0;
  left_ = kWords;
}

Shuffle::Shuffle(const GeneratorState& state, Index n) : twister_(state), n_(n), rows_(allocate<std::int32_t>(n)) {
  for (Index i = 0; i < n; ++i) rows_[i] = static_cast<std::int32_t>(i);
}

void Shuffle::draw_until(Index rows) {
  // A row changes places with one of those from it on, and then stays. The last has no choice, and draws nothing.
  const Index end = std::min(rows, n_ - 1);
  std::int32_t* const all = rows_.get();
  const std::uint32_t* words;
  std::uint32_t distance[kWords];
  while (drawn_ < end) {
    const Index count = twister_.take(end - drawn_, &words);
    for (Index j = 0; j < count; ++j) distance[j] = tempered(words[j]);
    const auto left = static_cast<std::int32_t>(n_ - drawn_);
    for (std::int32_t j = 0; j < count; ++j) distance[j] = remainder(distance[j], left - j);
    std::int32_t* const first = all + drawn_;
    for (Index j = 0; j < count; ++j) std::swap(first[j], first[j + distance[j]]);
    drawn_ += count;
  }
  drawn_ = std::max(drawn_, std::min(rows, n_));
}

void skip_shuffle(GeneratorState& state, Index n) {
  MersenneTwister twister(state);
  const std::uint32_t* words;
  for (Index left = n - 1; left > 0;) left -= twister.take(left, &words);
  twister.write(state);
}

}  // namespace gdcore
