// The order of rows that `torch.randperm` draws, from torch's own generator, without its cost.
//
// torch shuffles 64-bit row numbers with one call of its generator and one 64-bit division for each, and so takes
// longer than a pass of training over the rows. The same numbers are drawn here a block at a time.
#pragma once

#include <cstdint>

#include "kernels/kernels.h"

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

/// The most rows whose order torch draws from 32-bit numbers.
inline constexpr Index kMostShuffled = 0xffffffffu / 20 - 1;

/// The first `rows` of a random permutation of 0 … n − 1, as `torch.randperm(n)[:rows]` has them; n ≤ kMostShuffled.
/// The generator moves on as for all n. `order` has room for n where rows > 0; what is behind `rows` is of no use.
void draw_order(GeneratorState& generator, Index n, Index rows, std::int32_t* order);

}  // namespace gdcore
