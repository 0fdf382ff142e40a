#include "training/elementwise.h"

#include <algorithm>

#include "kernels/instruction_sets.h"
#include "training/objective.h"
#include "training/thread_pool.h"

namespace gdcore {

namespace {

constexpr Index kElementsPerChunk = Index{1} << 15;

// Calls body(begin, end) for chunks of [0, size).
template <class Body>
void for_chunks(Index size, int threads, const Body& body) {
  if (size < kSerialElements || threads <= 1) return body(Index{0}, size);
  struct Job {
    const Body* body;
    Index size;
    Index step;
  };
  // At most 2³² chunks, whatever the size.
  Job job = {&body, size, std::max(kElementsPerChunk, size >> 31)};
  const auto run = [](void* context, std::uint32_t chunk, int /*worker*/) {
    const Job& j = *static_cast<Job*>(context);
    const Index begin = j.step * chunk;
    (*j.body)(begin, std::min(begin + j.step, j.size));
  };
  run_chunks(static_cast<std::uint32_t>((size + job.step - 1) / job.step), threads, run, &job, {nullptr, nullptr});
}

}  // namespace

template <class T>
void legendre_p3(const LegendreP3<T>& problem, Index size, int threads) {
  const auto kernel = kernels<T>().legendre_p3;
  for_chunks(size, threads, [&](Index begin, Index end) { kernel(problem, begin, end); });
}

template void legendre_p3(const LegendreP3<float>&, Index, int);
template void legendre_p3(const LegendreP3<double>&, Index, int);

}  // namespace gdcore
