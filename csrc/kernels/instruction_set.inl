// The kernels compiled for one instruction set. The including file defines GDCORE_ISA (its namespace) and has included
// the intrinsics; nothing here may come from the standard library's inline code.

namespace gdcore::GDCORE_ISA {

#include "kernels/simd.h"

#include "kernels/few_lanes.h"

#include "kernels/four.h"

#include "kernels/formulas.inl"

#include "kernels/lane_groups.inl"

#include "kernels/linear_mse_narrow.inl"

#include "kernels/linear_mse_wide.inl"

#include "kernels/linear_mse_short.inl"

#include "kernels/linear_mse_many.inl"

#include "kernels/legendre.inl"
#include "kernels/mse.inl"
#include "kernels/polynomial_mse.inl"
#include "kernels/sum.inl"
#include "kernels/triangle.inl"

#include "kernels/half_element.inl"

#include "kernels/half.inl"

#include "kernels/updates.inl"

#include "kernels/linear_mse_descent.inl"

template <class T>
static void linear_mse(const LinearMse<T>& a, const T* theta, Index begin, Index end, double* sums,
                       T* scratch) noexcept {
  if (a.outputs >= kManyOutputs) return linear_mse_many(a, theta, begin, end, sums, scratch);
  if (a.short_rows) return linear_mse_short(a, theta, begin, end, sums);
  if (a.columns >= kWideColumns) return linear_mse_wide(a, theta, begin, end, sums, scratch);
  if (a.outputs == 1 && a.loss_weight.data == nullptr) {
    switch (a.columns) {
      case 1:
        return linear_mse_narrow<T, 1>(a, theta, begin, end, sums);
      case 2:
        return linear_mse_narrow<T, 2>(a, theta, begin, end, sums);
      case 3:
        return linear_mse_narrow<T, 3>(a, theta, begin, end, sums);
      case 4:
        return linear_mse_narrow<T, 4>(a, theta, begin, end, sums);
      default:
        break;
    }
  }
  linear_mse_tiled(a, theta, begin, end, sums);
}

template <class T>
static Index linear_mse_descent(const LinearMse<T>& a, const Descent<T>& descent) noexcept {
  static_assert(kDescentColumns == 8);
  switch (a.columns) {
    case 1:
      return linear_mse_descent<1>(a, descent);
    case 2:
      return linear_mse_descent<2>(a, descent);
    case 3:
      return linear_mse_descent<3>(a, descent);
    case 4:
      return linear_mse_descent<4>(a, descent);
    case 5:
      return linear_mse_descent<5>(a, descent);
    case 6:
      return linear_mse_descent<6>(a, descent);
    case 7:
      return linear_mse_descent<7>(a, descent);
    default:
      return linear_mse_descent<8>(a, descent);
  }
}

template <class T>
static void polynomial_mse(const PolynomialMse<T>& a, const T* theta, Index begin, Index end, double* sums) noexcept {
  if (a.loss_weight.data != nullptr) return polynomial_mse<T, -1, true>(a, theta, begin, end, sums);
  switch (a.degree) {
    case 1:
      return polynomial_mse<T, 1>(a, theta, begin, end, sums);
    case 2:
      return polynomial_mse<T, 2>(a, theta, begin, end, sums);
    case 3:
      return polynomial_mse<T, 3>(a, theta, begin, end, sums);
    default:
      return polynomial_mse<T, -1>(a, theta, begin, end, sums);
  }
}

template <class T>
static void legendre_mse(const LegendreMse<T>& a, const T* theta, Index begin, Index end, double* sums) noexcept {
  if (a.loss_weight.data != nullptr) return legendre_mse<T, true>(a, theta, begin, end, sums);
  legendre_mse<T, false>(a, theta, begin, end, sums);
}

template <class T>
static constexpr Kernels<T> table() {
  return {linear_mse<T>, linear_mse_descent<T>, polynomial_mse<T>, legendre_mse<T>, mse<T>, sum<T>, legendre_p3<T>};
}

}  // namespace gdcore::GDCORE_ISA
