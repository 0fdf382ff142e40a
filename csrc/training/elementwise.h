// Elementwise kernels over as many threads as their length is worth.
#pragma once

#include "kernels/kernels.h"

namespace gdcore {

template <class T>
void legendre_p3(const LegendreP3<T>& problem, Index size, int threads);

}  // namespace gdcore
