#include "training/elementwise.h"

#include "kernels/instruction_sets.h"
#include "training/chunks.h"

namespace gdcore {

namespace {

constexpr Index kPointsPerChunk = Index{1} << 15;

}  // namespace

template <class T>
void legendre_p3(const LegendreP3<T>& problem, Index size, int threads) {
  const auto kernel = kernels<T>().legendre_p3;
  for_chunks(size, kPointsPerChunk, 1, threads, [&](Index begin, Index end) { kernel(problem, begin, end); });
}

template void legendre_p3(const LegendreP3<float>&, Index, int);
template void legendre_p3(const LegendreP3<double>&, Index, int);

}  // namespace gdcore
