// The kernels' contract: what each computes, on which memory, in which order.
//
// Kernels are arithmetic on raw pointers: no Python, no allocation, no threads, no exceptions. The caller owns all
// memory and checks every shape. Strides count elements and may be zero or negative where memory is only read.
//
// Order of summation, the same in every instruction set, so that results are equal to the bit:
//   * a row's terms go to lane (index mod lanes), lanes = 64 bytes / sizeof(T): 16 floats, 8 doubles;
//   * lanes are summed in T over short runs (kRun), then added to double lanes;
//   * the double lanes of a chunk are combined as a tree: i with i + half;
//   * where lanes run over columns (kWideColumns, short_rows), the dot product of a row is totalled in T, all d of it,
//     as a matrix product does; bias and target are then added in double, and their sum is rounded to T, the residual.
// Every multiply-add is one fused multiply-add.
#pragma once

#include <cstdint>

namespace gdcore {

using Index = std::int64_t;

/// Bytes in one group of lanes, whatever the register width.
inline constexpr int kLaneBytes = 64;
/// Groups of lanes (or rows, where lanes run over columns) summed in T before they are added to a double.
inline constexpr int kRun = 32;
/// From this many columns on, lanes run over the columns of a row; below, over rows.
inline constexpr Index kWideColumns = 16;
/// From this many columns on, they run over columns also where `short_rows` says so.
inline constexpr Index kShortColumns = 5;
/// Up to this many columns and rows, with one output, whole steps of descent are one kernel's.
inline constexpr Index kDescentColumns = 8;
inline constexpr Index kDescentRows = 64;
/// Up to this many columns, one group of rows stays in registers.
inline constexpr Index kDescentColumnsInRegisters = 4;
/// From this many outputs on, predictions come from a matrix product over blocks of rows.
inline constexpr Index kManyOutputs = 8;
/// Rows whose products are summed in T before they are added to a gradient, where lanes run over columns.
inline constexpr Index kWideRun = 16;
/// Rows are handled in groups of this many; a chunk of rows begins at a multiple of it.
inline constexpr Index kRowGroup = 64;
inline constexpr int kMaxDegree = 16;

template <class T>
inline constexpr int kLanes = kLaneBytes / static_cast<int>(sizeof(T));

/// Element (i, j) is data[i * row + j * column].
template <class T>
struct Matrix {
  T* data;
  Index row;
  Index column;
};

// A loss's weights w (one for each residual, `loss_weight`, null where there are none) turn r² into w r², and r into w
// r in every other sum and in whatever is written. w · r is rounded once, and used for all of them.

/// prediction = x · weightᵀ + bias;  sums: Σ r², Σ r x (k × d), Σ r (k), with r = prediction − target.
/// Source: the normal form of `torch.nn.functional.linear` followed by `mse_loss`.
template <class T>
struct LinearMse {
  Index columns;  ///< d
  Index outputs;  ///< k
  bool bias;
  Matrix<const T> x;       ///< n × d
  Matrix<const T> target;  ///< n × k
  /// x and target regrouped by `pack` (lanes of rows, zero beyond the last), or null.
  const T* packed_x;
  const T* packed_target;
  const T* weight_t;                 ///< d × (k rounded up to lanes), zero-padded: read where k ≥ kManyOutputs
  T* dx;                             ///< n × d, contiguous, or null
  T dx_factor;                       ///< dx = dx_factor · Σₒ r weight
  Matrix<const T> loss_weight = {};  ///< n × k, or null
  /// The rows before this one may be fetched ahead of their turn, also by a call that is not to evaluate them.
  Index rows_to_fetch = 0;
  /// Lanes run over kShortColumns columns or more also where these are fewer than kWideColumns: for one output, no
  /// weights, and rows too many to be packed.
  bool short_rows = false;
};

struct SgdUpdate;

/// Steps of gradient descent, the loss a sum over `rows` divided by `divisor`, by one rule for all of θ.
template <class T>
struct Descent {
  Index rows;
  double divisor;
  const SgdUpdate* rule;
  Index steps;
  double overflow;  ///< the loss that ends it
  T* theta;
  T* previous;  ///< θ before the last update
  T* momentum;  ///< a buffer as long as θ, or null
  T* losses;
};

/// prediction = Σₘ c[m] xᵐ;  sums: Σ r², Σ r xᵐ (degree + 1).
template <class T>
struct PolynomialMse {
  Index degree;  ///< 0 to kMaxDegree
  Matrix<const T> x;
  Matrix<const T> target;
  Matrix<const T> loss_weight = {};  ///< or null
};

/// prediction = a + b P₃(c + d x), P₃(u) = (5u³ − 3u)/2, P₃′(u) = 3(5u² − 1)/2;
/// sums: Σ r², Σ r, Σ r P₃, Σ r P₃′, Σ r P₃′ x (the factor b of the last two is the caller's).
template <class T>
struct LegendreMse {
  Matrix<const T> x;
  Matrix<const T> target;
  Matrix<const T> loss_weight = {};  ///< or null
};

/// r = input − target over a rows × columns view; sums: Σ r². Elements are numbered row by row.
template <class T>
struct Mse {
  Index columns;
  Matrix<const T> input;
  Matrix<const T> target;
  T* gradient;  ///< contiguous, gradient_factor · r, or null
  T gradient_factor;
  T* losses;                         ///< contiguous, r², or null
  Matrix<const T> loss_weight = {};  ///< or null
};

/// sums: Σ of a rows × columns view. Elements are numbered row by row.
template <class T>
struct MatrixSum {
  Index columns;
  Matrix<const T> values;
};

/// out = P₃(x), or out = grad · P₃′(x) where grad is given. All contiguous; out may be grad.
template <class T>
struct LegendreP3 {
  const T* x;
  const T* grad;
  T* out;
};

/// The kernels of one instruction set for one dtype. [begin, end) counts rows, or elements where there are none.
/// `sums` is added to, never set. `scratch` holds what the `*_scratch` functions below say.
template <class T>
struct Kernels {
  void (*linear_mse)(const LinearMse<T>&, const T* theta, Index begin, Index end, double* sums, T* scratch) noexcept;
  /// Returns how many steps it made: less than asked for where the loss of the next is not below `overflow`. At most
  /// kDescentRows rows and kDescentColumns columns, one output, no weights of the loss, no dx.
  Index (*linear_mse_descent)(const LinearMse<T>&, const Descent<T>&) noexcept;
  void (*polynomial_mse)(const PolynomialMse<T>&, const T* theta, Index begin, Index end, double* sums) noexcept;
  void (*legendre_mse)(const LegendreMse<T>&, const T* theta, Index begin, Index end, double* sums) noexcept;
  void (*mse)(const Mse<T>&, Index begin, Index end, double* sums) noexcept;
  void (*sum)(const MatrixSum<T>&, Index begin, Index end, double* sums) noexcept;
  void (*legendre_p3)(const LegendreP3<T>&, Index begin, Index end) noexcept;
};

/// Rows of a block where lanes run over columns, in whole groups of four: at most what half of a first-level cache
/// holds, and no more than a group. From a run of them on it divides the group, so that sums do not depend on it.
template <class T>
constexpr Index wide_block(Index columns) noexcept {
  const Index fit = Index{16384} / (columns * static_cast<Index>(sizeof(T))) / 4 * 4;
  if (fit < kWideRun) return fit < 4 ? 4 : fit;
  Index block = kRowGroup;
  while (block > fit) block /= 2;
  return block;
}

/// Elements of scratch that one call of `linear_mse` needs, its alignment kLaneBytes.
template <class T>
constexpr Index linear_mse_scratch(Index columns, Index outputs) noexcept {
  const Index lanes = kLanes<T>;
  const Index wide = (columns + lanes - 1) / lanes * lanes;
  const Index many = (outputs + lanes - 1) / lanes * lanes;
  if (outputs >= kManyOutputs)
    return outputs * wide + kWideRun * (wide + many);  // gradients, rows of x and of residuals
  return columns < kWideColumns ? 0 : (outputs + wide_block<T>(columns)) * wide;  // gradients, a block of rows of x
}

/// Rows of a block that is folded into a triangular factor.
inline constexpr Index kTriangleRows = 128;

/// Makes r (columns × columns, row by row, nothing read below its diagonal) the factor of itself over a block. The
/// block is column by column, each kTriangleRows long, and is written over.
using TriangleKernel = void (*)(Index columns, double* block, double* r) noexcept;

/// The kernels of one instruction set.
struct KernelTable {
  Kernels<float> float32;
  Kernels<double> float64;
  TriangleKernel triangle;
};

extern const KernelTable kBaselineKernels;
#if defined(__x86_64__)
extern const KernelTable kAvx2Kernels;
extern const KernelTable kAvx512Kernels;
#endif

}  // namespace gdcore
