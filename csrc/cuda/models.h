// Models of one number: prediction and gradient sums of a point, in registers.
//
// Sum 0 is Σ w r², the others Σ w r ∂r/∂θ, one for each parameter, in the order of the parameters' tensors.
#pragma once

#include "cuda/context.h"

namespace gdcore::cuda {

/// x weight + bias; parameters weight, bias (none where `count` is 2).
template <class T>
struct Line {
  static constexpr int kSums = 3;
  T weight, bias;

  template <class Theta>
  GDCORE_KERNEL Line(const Theta& theta, int count) : weight(theta(0)), bias(count > 2 ? theta(1) : T(0)) {}
  GDCORE_KERNEL void add(T (&part)[kSums], T x, T target, T w) const {
    const T r = fma(weight, x, bias) - target, weighted = w * r;
    part[0] = fma(weighted, r, part[0]);
    part[1] = fma(weighted, x, part[1]);
    part[2] = part[2] + weighted;
  }
  GDCORE_KERNEL void finish(double (&)[kSums]) const {}
};

/// Σₘ c[m] xᵐ, of degree at most MAX; `count` is the degree plus two.
template <class T, int MAX>
struct Polynomial {
  static constexpr int kSums = MAX + 2;
  T coefficients[MAX + 1];
  int count;

  /// Whether there is a power m.
  GDCORE_KERNEL bool has(int m) const { return (((1u << (count - 1)) - 1u) >> m & 1u) != 0; }

  template <class Theta>
  GDCORE_KERNEL Polynomial(const Theta& theta, int sums) : count(sums) {
    GDCORE_UNROLL
    for (int m = 0; m <= MAX; ++m) coefficients[m] = m < sums - 1 ? theta(m) : T(0);
  }
  GDCORE_KERNEL void add(T (&part)[kSums], T x, T target, T w) const {
    // From the highest power that there could be: a choice of the coefficient to begin with would make compilers keep
    // them in memory.
    const auto there = [this](int m) { return has(m); };
    const T r = horner(x, coefficients, MAX, there) - target;
    add_polynomial(part, x, r, w * r, MAX, there);
  }
  GDCORE_KERNEL void finish(double (&)[kSums]) const {}
};

/// a + b P₃(c + d x); parameters a, b, c, d.
template <class T>
struct Legendre {
  static constexpr int kSums = 5;
  T a, b, c, d;

  template <class Theta>
  GDCORE_KERNEL Legendre(const Theta& theta, int) : a(theta(0)), b(theta(1)), c(theta(2)), d(theta(3)) {}
  GDCORE_KERNEL void add(T (&part)[kSums], T x, T target, T w) const {
    const T u = fma(d, x, c), square = u * u, p3 = legendre_value(u, square);
    const T r = fma(b, p3, a) - target, weighted = w * r, slope = weighted * legendre_slope(square);
    add_legendre(part, x, p3, r, weighted, slope);
  }
  /// The factor b of the last two, the same for every point.
  GDCORE_KERNEL void finish(double (&sums)[kSums]) const {
    sums[3] *= static_cast<double>(b);
    sums[4] *= static_cast<double>(b);
  }
};

}  // namespace gdcore::cuda
