// How work is cut: pure functions of shapes and dtypes, never of the device or of where memory lies.
#pragma once

#include "kernels/updates.h"

namespace gdcore::cuda {

inline constexpr int kWarpLanes = 32;
inline constexpr int kThreads = 256;
/// Vectors of each tensor that a thread has in flight.
inline constexpr int kInFlight = 2;
/// Enough blocks to keep any device busy, few enough that their sums are quickly added.
inline constexpr Index kMaxBlocks = 2048;
inline constexpr Index kMaxPartialSums = Index{1} << 21;
/// The widest row that the kernel for a few outputs takes, and the most outputs.
inline constexpr Index kMaxColumns = 512;
inline constexpr Index kMaxOutputs = 16;
/// What one block goes through again and again within a launch.
inline constexpr Index kMaxFitElements = Index{1} << 15;
inline constexpr Index kMaxFitResiduals = 2048;
inline constexpr Index kMaxFitParameters = 1024;
inline constexpr int kMaxFitThreads = 512;
/// Points of a model of one number that a thread keeps in registers there, for numbers of so many bytes.
constexpr int fit_held(Index bytes) noexcept { return static_cast<int>(32 / bytes); }
/// Tensors of one launch of updates: the most that its 32 764 bytes of arguments hold, and fewer where there are fewer,
/// as every launch copies what its kernel could take.
inline constexpr int kMaxArguments = 32764;
inline constexpr int kFewEntries = 128;
inline constexpr int kMaxEntries = 447;
inline constexpr int kMaxCountedEntries = 376;
/// Different settings of one launch.
inline constexpr int kFewRules = 8;
inline constexpr int kMaxRules = 64;

constexpr Index ceil_divide(Index value, Index by) noexcept { return (value + by - 1) / by; }
constexpr Index at_most(Index value, Index limit) noexcept { return value < limit ? value : limit; }

/// The largest power of two that is at most `value`, within [1, limit]; `limit` is one.
constexpr int power_below(Index value, int limit) noexcept {
  int power = 1;
  while (power < limit && 2 * power <= value) power *= 2;
  return power;
}
/// The smallest power of two that is at least `value`, within [1, limit].
constexpr int power_above(Index value, int limit) noexcept {
  int power = 1;
  while (power < limit && power < value) power *= 2;
  return power;
}

/// Elements that a block reads at a time.
constexpr Index tile(Storage storage) noexcept { return kThreads * kInFlight * (16 / bytes_of(storage)); }

/// Blocks that share `tiles`, where each leaves `sums` partial sums.
constexpr Index blocks_for(Index tiles, Index sums) noexcept {
  const Index most = at_most(kMaxBlocks, kMaxPartialSums / sums);
  return at_most(tiles < 1 ? 1 : tiles, most < 1 ? 1 : most);
}

/// Blocks of an elementwise pass.
constexpr Index point_blocks(Storage storage, Index size, Index sums) noexcept {
  return blocks_for(ceil_divide(size, tile(storage)), sums);
}

/// linear_mse: groups of lanes share a row, each lane some columns of it.
struct LinearPlan {
  int chunks;        ///< vectors of a row that one lane takes
  int outputs;       ///< of one block; more outputs are further blocks
  int lanes;         ///< of a group, a power of two
  int rows;          ///< of a tile
  Index row_blocks;  ///< blocks over the rows, for each block of outputs
  Index output_blocks;
};

/// Outputs at a time, vectors of a lane: what fits in registers.
constexpr int many_outputs(Storage storage) noexcept { return bytes_of(storage) == 2 ? 2 : 4; }
constexpr int long_chunks(Storage storage) noexcept { return static_cast<int>(bytes_of(storage)); }
/// Rows that a thread reads before it uses the first.
constexpr int rows_in_flight(Index bytes, int chunks, int outputs) noexcept {
  return chunks > 1 ? 2 : outputs > 1 || bytes != 4 ? 4 : 8;
}

constexpr LinearPlan linear_plan(Storage storage, Index rows, Index columns, Index outputs) noexcept {
  const Index vector = 16 / bytes_of(storage);
  const Index vectors = ceil_divide(columns, vector);
  LinearPlan plan = {};
  plan.chunks = vectors > 32 ? long_chunks(storage) : 1;
  plan.outputs = plan.chunks == 1 && outputs > 1 ? many_outputs(storage) : 1;
  plan.lanes = power_above(ceil_divide(vectors, plan.chunks), 32);
  plan.rows = kThreads / plan.lanes * rows_in_flight(bytes_of(storage), plan.chunks, plan.outputs);
  plan.output_blocks = ceil_divide(outputs, plan.outputs);
  plan.row_blocks = blocks_for(ceil_divide(rows, plan.rows), outputs * (columns + 1) + plan.output_blocks);
  return plan;
}

/// Whether linear_mse has kernels for it; else it is a matter of matrix products.
constexpr bool linear_fits(Index columns, Index outputs) noexcept {
  return columns <= kMaxColumns && outputs <= kMaxOutputs;
}
/// Whether the gradient with respect to x can be written in the same pass.
constexpr bool linear_writes_dx(Storage storage, Index columns, Index outputs) noexcept {
  return linear_plan(storage, 1, columns, outputs).output_blocks == 1;
}

/// Epochs of a linear model within one launch: one block, its threads shared out over rows and over columns.
struct FitPlan {
  int threads;
  int row_lanes;     ///< lanes that share a residual
  int column_lanes;  ///< lanes that share a gradient
};

constexpr bool fits_one_block(Index rows, Index columns, Index outputs) noexcept {
  return rows * (columns + outputs) <= kMaxFitElements &&
         ((columns == 1 && outputs == 1) ||
          (rows * outputs <= kMaxFitResiduals && (columns + 1) * outputs <= kMaxFitParameters));
}

constexpr int whole_warps(int threads) noexcept { return threads < kWarpLanes ? kWarpLanes : threads; }

/// Threads that share the points of a model of one number, a power of two.
constexpr int fit_point_threads(Index points, int held, int limit) noexcept {
  return power_above(ceil_divide(points, held), limit);
}

constexpr FitPlan fit_plan(Index rows, Index columns, Index outputs) noexcept {
  FitPlan plan = {};
  plan.threads = whole_warps(power_above(rows * columns * outputs, kMaxFitThreads));
  plan.row_lanes = power_below(at_most(plan.threads / (rows * outputs < 1 ? 1 : rows * outputs), columns), kWarpLanes);
  plan.column_lanes = power_below(at_most(plan.threads / ((columns + 1) * outputs), rows), kWarpLanes);
  return plan;
}

}  // namespace gdcore::cuda
