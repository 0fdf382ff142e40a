// linear_mse for rows of at most kMaxColumns and a few outputs: groups of lanes share a row, each lane some columns.
//
// prediction = x · weightᵀ + bias;  sums: Σ w r², Σ w r x (k × d), Σ w r (k);  dx = 2/divisor Σₒ w r weight on request.
// One pass over x for each block of OUTPUTS outputs; those of the same rows run side by side, so that the first reads
// them from memory and the others from the device's cache. (The sums of all outputs are more than a thread has
// registers for, and operands from shared memory, whose bandwidth is a quarter of the arithmetic's, would cost more.)
// The lanes of a row are added as a tree; a lane adds kRun rows in T and the rest in double; then the groups of a warp
// as a tree, and the warps one after the other.
#pragma once

#include "cuda/points.h"

namespace gdcore::cuda {

/// Partial sums of linear_mse: of the loss for each block of outputs, then of each parameter for each block of rows.
GDCORE_KERNEL Index linear_partial(Index sum, Index row_blocks, Index output_blocks) {
  return sum == 0 ? 0 : (output_blocks + sum - 1) * row_blocks;
}

template <class S, int OUTPUTS, int CHUNKS>
struct Linear {
  using T = Arithmetic<S>;
  static constexpr int kBlockThreads = kThreads;
  static constexpr int kBlocks = OUTPUTS * CHUNKS > 1 || sizeof(S) == 2 ? 1 : 2;  ///< at a time
  static constexpr int kWidth = CHUNKS * kVector<S>;                              ///< columns of a lane
  static constexpr int kRows = rows_in_flight(sizeof(S), CHUNKS, OUTPUTS);
  static constexpr int kSideBySide = CHUNKS > 1 ? 1 : 2;  ///< for registers
  static constexpr int kPerLane = OUTPUTS * (kWidth + 1) + 1;
  static constexpr int kShared = kThreads * kPerLane;

  View x, target, loss_weight;  ///< matrices
  Index rows;
  Index outputs;
  LinearPlan plan;
  const S* weight;
  const S* bias;  ///< or null
  T* dx;          ///< or null
  Divisor divisor;
  double* partials;
  const Index* status;

  /// What a lane keeps.
  struct Sums {
    T part[OUTPUTS][kWidth];
    T bias_part[OUTPUTS];
    T loss_part;
    double total[OUTPUTS][kWidth];
    double bias_total[OUTPUTS];
    double loss_total;

    GDCORE_KERNEL void flush() {
      GDCORE_UNROLL
      for (int o = 0; o < OUTPUTS; ++o) {
        GDCORE_UNROLL
        for (int j = 0; j < kWidth; ++j) {
          total[o][j] += static_cast<double>(part[o][j]);
          part[o][j] = T(0);
        }
        bias_total[o] += static_cast<double>(bias_part[o]);
        bias_part[o] = T(0);
      }
      loss_total += static_cast<double>(loss_part);
      loss_part = T(0);
    }
  };

  /// What a thread has in flight of one row; zeros of one that is not there.
  struct Row {
    T values[kWidth];
    T targets[OUTPUTS];
  };

  /// Where the columns of a chunk of this lane begin.
  GDCORE_KERNEL Index column_of(int lane, int chunk) const { return (Index{chunk} * plan.lanes + lane) * kVector<S>; }

  GDCORE_KERNEL void read_row(Index row, int lane, Index first_output, Row& to) const {
    GDCORE_UNROLL
    for (int o = 0; o < OUTPUTS; ++o) {
      const bool there = row < rows && first_output + o < outputs;
      to.targets[o] = there ? cell<S>(target, row, first_output + o) : T(0);
    }
    const S* const data = static_cast<const S*>(x.data) + row * x.row;
    GDCORE_UNROLL
    for (int chunk = 0; chunk < CHUNKS; ++chunk) {
      const Index first = column_of(lane, chunk);
      T* const values = to.values + chunk * kVector<S>;
      if (row < rows && x.aligned && first + kVector<S> <= x.columns) {
        read_vector(data + first, values);
        continue;
      }
      GDCORE_UNROLL
      for (int v = 0; v < kVector<S>; ++v) {
        values[v] = row < rows && first + v < x.columns ? read(data + (first + v) * x.column) : T(0);
      }
    }
  }

  template <class Context>
  GDCORE_KERNEL void operator()(Context& c) const {
    if (is_over(status)) return;
    const int lane = c.thread() % plan.lanes, group = c.thread() / plan.lanes, groups = kThreads / plan.lanes;
    // Neighbours share rows.
    const Index output_block = c.block() % plan.output_blocks, row_block = c.block() / plan.output_blocks;
    const Index first_output = output_block * OUTPUTS;

    T w[OUTPUTS][kWidth], b[OUTPUTS];
    GDCORE_UNROLL
    for (int o = 0; o < OUTPUTS; ++o) {
      const bool there = first_output + o < outputs;
      b[o] = there && bias != nullptr ? read(bias + first_output + o) : T(0);
      GDCORE_UNROLL
      for (int j = 0; j < kWidth; ++j) {
        const Index column = column_of(lane, j / kVector<S>) + j % kVector<S>;
        w[o][j] = there && column < x.columns ? read(weight + (first_output + o) * x.columns + column) : T(0);
      }
    }

    Sums sums = {};
    int run = 0;
    for (Index tile = row_block; tile * plan.rows < rows; tile += plan.row_blocks) {
      Row in_flight[kRows];
      GDCORE_UNROLL
      for (int r = 0; r < kRows; ++r) {
        read_row(tile * plan.rows + r * groups + group, lane, first_output, in_flight[r]);
      }
      GDCORE_UNROLL
      for (int first = 0; first < kRows; first += kSideBySide) {
        T dots[kSideBySide][OUTPUTS];
        multiply(c, in_flight + first, w, dots);
        GDCORE_UNROLL
        for (int r = 0; r < kSideBySide; ++r) {
          const Index row = tile * plan.rows + (first + r) * groups + group;
          use_row(row, lane, first_output, in_flight[first + r], dots[r], w, b, sums);
        }
      }
      run += kRows;
      if (run >= kRun) {
        sums.flush();
        run = 0;
      }
    }
    sums.flush();
    reduce(c, lane, output_block, row_block, first_output, sums);
  }

  /// x · weightᵀ of some rows, whose lanes are added side by side: what one exchange takes hides in the others.
  template <class Context>
  GDCORE_KERNEL void multiply(Context& c, const Row* in_flight, const T (&w)[OUTPUTS][kWidth],
                              T (&dots)[kSideBySide][OUTPUTS]) const {
    GDCORE_UNROLL
    for (int r = 0; r < kSideBySide; ++r) {
      GDCORE_UNROLL
      for (int o = 0; o < OUTPUTS; ++o) {
        dots[r][o] = T(0);
        GDCORE_UNROLL
        for (int j = 0; j < kWidth; ++j) dots[r][o] = fma(in_flight[r].values[j], w[o][j], dots[r][o]);
      }
    }
    for (int mask = plan.lanes / 2; mask > 0; mask /= 2) {
      GDCORE_UNROLL
      for (int r = 0; r < kSideBySide; ++r) {
        GDCORE_UNROLL
        for (int o = 0; o < OUTPUTS; ++o) dots[r][o] = dots[r][o] + c.exchange(dots[r][o], mask);
      }
    }
  }

  GDCORE_KERNEL void use_row(Index row, int lane, Index first_output, const Row& own, const T (&dots)[OUTPUTS],
                             const T (&w)[OUTPUTS][kWidth], const T (&b)[OUTPUTS], Sums& sums) const {
    T residuals[OUTPUTS];
    GDCORE_UNROLL
    for (int o = 0; o < OUTPUTS; ++o) {
      const bool there = row < rows && first_output + o < outputs;
      const T r = there ? dots[o] + b[o] - own.targets[o] : T(0);
      const T weighted = there && loss_weight.data != nullptr ? r * cell<S>(loss_weight, row, first_output + o) : r;
      if (there) {
        sums.loss_part = fma(weighted, r, sums.loss_part);
        sums.bias_part[o] = sums.bias_part[o] + weighted;
        // A row that is not there has zeros for x, but an infinite residual would make them NaN.
        GDCORE_UNROLL
        for (int j = 0; j < kWidth; ++j) sums.part[o][j] = fma(weighted, own.values[j], sums.part[o][j]);
      }
      residuals[o] = weighted;
    }
    if (dx == nullptr || row >= rows) return;
    const T factor = static_cast<T>(2.0 / divisor.get());
    GDCORE_UNROLL
    for (int j = 0; j < kWidth; ++j) {
      const Index column = column_of(lane, j / kVector<S>) + j % kVector<S>;
      T slope = T(0);
      GDCORE_UNROLL
      for (int o = 0; o < OUTPUTS; ++o) slope = fma(residuals[o], w[o][j], slope);
      if (column < x.columns) dx[row * x.columns + column] = slope * factor;
    }
  }

  /// Lanes of different groups and the same columns: as a tree within a warp, then the warps in order.
  template <class Context>
  GDCORE_KERNEL void reduce(Context& c, int lane, Index output_block, Index row_block, Index first_output,
                            const Sums& sums) const {
    double* const mine = c.shared() + c.thread() * kPerLane;
    GDCORE_UNROLL
    for (int o = 0; o < OUTPUTS; ++o) {
      GDCORE_UNROLL
      for (int j = 0; j < kWidth; ++j) mine[o * kWidth + j] = lane_sum(c, sums.total[o][j], plan.lanes, kWarpLanes);
      mine[OUTPUTS * kWidth + o] = lane_sum(c, sums.bias_total[o], plan.lanes, kWarpLanes);
    }
    mine[kPerLane - 1] = lane_sum(c, sums.loss_total, plan.lanes, kWarpLanes);
    c.sync();
    if (c.thread() >= plan.lanes) return;
    const auto total = [&](int slot) {
      double sum = 0;
      for (int warp = 0; warp < kThreads / kWarpLanes; ++warp) {
        sum += c.shared()[(warp * kWarpLanes + lane) * kPerLane + slot];
      }
      return sum;
    };
    if (lane == 0) partials[output_block * plan.row_blocks + row_block] = total(kPerLane - 1);
    for (int o = 0; o < OUTPUTS; ++o) {
      if (first_output + o >= outputs) continue;
      const auto put = [&](Index parameter, int slot) {
        partials[linear_partial(1 + parameter, plan.row_blocks, plan.output_blocks) + row_block] = total(slot);
      };
      for (int j = 0; j < kWidth; ++j) {
        const Index column = column_of(lane, j / kVector<S>) + j % kVector<S>;
        if (column < x.columns) put((first_output + o) * x.columns + column, o * kWidth + j);
      }
      if (lane == 0 && bias != nullptr) put(outputs * x.columns + first_output + o, OUTPUTS * kWidth + o);
    }
  }
};

}  // namespace gdcore::cuda
