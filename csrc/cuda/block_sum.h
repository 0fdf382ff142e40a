// Sums over a block's threads, in one fixed order: lanes of a warp as a tree, then the warps one after the other.
#pragma once

#include "cuda/context.h"
#include "cuda/plan.h"

namespace gdcore::cuda {

/// Adds lanes whose numbers differ in the bits of [from, to), powers of two; all of them come to the same sum.
template <class T, class Context>
GDCORE_KERNEL T lane_sum(Context& c, T value, int from, int to) {
  for (int mask = to / 2; mask >= from; mask /= 2) value = value + c.exchange(value, mask);
  return value;
}

/// The first `count` of COUNT sums of every warp into `shared`, [warp][sum]; the threads then wait for each other.
template <int COUNT, class Context>
GDCORE_KERNEL void warp_sums(Context& c, const double (&sums)[COUNT], int count, double* shared) {
  const int lane = c.thread() % kWarpLanes, warp = c.thread() / kWarpLanes;
  GDCORE_UNROLL
  for (int s = 0; s < COUNT; ++s) {
    if (s >= count) continue;
    const double total = lane_sum(c, sums[s], 1, kWarpLanes);
    if (lane == 0) shared[warp * COUNT + s] = total;
  }
  c.sync();
}

/// Sum `s` of what `warp_sums` has left.
template <int COUNT, class Context>
GDCORE_KERNEL double block_sum(const Context& c, const double* shared, int s) {
  double total = 0;
  for (int warp = 0; warp < c.threads() / kWarpLanes; ++warp) total += shared[warp * COUNT + s];
  return total;
}

}  // namespace gdcore::cuda
