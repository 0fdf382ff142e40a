// The order of rows that `torch.randperm` draws, from torch's own generator, without its cost.
//
// torch shuffles 64-bit row numbers with one call of its generator and one 64-bit division for each, and so takes
// longer than a pass of training over the rows. The same numbers are drawn here a block at a time.
#pragma once

#include <cstdint>

#include "training/memory.h"

namespace gdcore {

/// What `torch.Generator.get_state()` of a CPU generator holds: the Mersenne Twister, each word in eight bytes, then
/// numbers of the normal distribution that were drawn ahead.
struct GeneratorState {
  static constexpr int kWords = 624;
  std::uint64_t seed;
  std::int32_t left;  ///< words not used yet, and one
  std::int32_t seeded;
  std::uint64_t next;  ///< the first of them
  std::uint64_t words[kWords];
  unsigned char normal[40];

  /// Whether it can be one.
  bool consistent() const;
};

/// MT19937. Source: M. Matsumoto and T. Nishimura, "Mersenne Twister", ACM TOMACS 8 (1998).
class MersenneTwister {
 public:
  explicit MersenneTwister(const GeneratorState& state);
  void write(GeneratorState& state) const;

  /// The next words, at most `count` of them and not tempered yet: how many there are, and where.
  Index take(Index count, const std::uint32_t** words);

 private:
  void twist();

  std::uint32_t words_[GeneratorState::kWords];
  Index next_;
  Index left_;
};

/// The most rows whose order torch draws from 32-bit numbers.
inline constexpr Index kMostShuffled = 0xffffffffu / 20 - 1;

/// A random permutation of 0 … n − 1, n ≤ kMostShuffled, as `torch.randperm` makes it: from the front, so that its
/// first rows can be used while others are still being drawn.
class Shuffle {
 public:
  Shuffle(const GeneratorState& state, Index n);
  Shuffle(const Shuffle&) = delete;
  Shuffle& operator=(const Shuffle&) = delete;

  const std::int32_t* rows() const { return rows_.get(); }
  /// How many of them are final.
  Index drawn() const { return drawn_; }
  void draw_until(Index rows);

 private:
  MersenneTwister twister_;
  Index n_;
  Index drawn_ = 0;
  Array<std::int32_t> rows_;
};

/// Moves the generator on as a permutation of n does.
void skip_shuffle(GeneratorState& state, Index n);

}  // namespace gdcore
