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

/// The first `count` of COUNT sums of every warp into `shared`, [warp][sum]; the threads then wait for each other. Only
/// the first `lanes` of a warp, a power of two, have any; from a warp on, all.
template <int COUNT, class Context>
GDCORE_KERNEL void warp_sums(Context& c, const double (&sums)[COUNT], int count, double* shared,
                             int lanes = kWarpLanes) {
  constexpr int side_by_side = 4;  // what one exchange takes hides in the others
  const int lane = c.thread() % kWarpLanes, warp = c.thread() / kWarpLanes;
  GDCORE_UNROLL
  for (int first = 0; first < COUNT; first += side_by_side) {
    if (first >= count) continue;
    double totals[side_by_side];
    GDCORE_UNROLL
    for (int s = 0; s < side_by_side; ++s) totals[s] = first + s < COUNT ? sums[first + s] : 0.0;
    GDCORE_UNROLL
    for (int mask = kWarpLanes / 2; mask > 0; mask /= 2) {
      if (mask >= lanes) continue;
      GDCORE_UNROLL
      for (int s = 0; s < side_by_side; ++s) {
        if (first + s < COUNT) totals[s] += c.exchange(totals[s], mask);
      }
    }
    GDCORE_UNROLL
    for (int s = 0; s < side_by_side; ++s) {
      if (first + s < COUNT && lane == 0) shared[warp * COUNT + first + s] = totals[s];
    }
  }
  c.sync();
}

/// Sum `s` of what `warp_sums` has left.
template <int COUNT, class Context>
GDCORE_KERNEL double block_sum(const Context& c, const double* shared, int s) {
  double total = shared[s];
  for (int warp = 1; warp < c.threads() / kWarpLanes; ++warp) total += shared[warp * COUNT + s];
  return total;
}

}  // namespace gdcore::cuda
