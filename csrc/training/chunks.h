// Elements of one job in chunks of a fixed size, over as many threads as they are worth.
#pragma once

#include <algorithm>

#include "training/objective.h"
#include "training/thread_pool.h"

namespace gdcore {

/// Calls body(begin, end) for chunks of at least `step` of [0, size), of which each costs `elements`.
template <class Body>
void for_chunks(Index size, Index step, Index elements, int threads, const Body& body) {
  if (size * elements < kSerialElements || threads <= 1) return body(Index{0}, size);
  struct Job {
    const Body* body;
    Index size;
    Index step;
  };
  // At most 2³² chunks, whatever the size.
  Job job = {&body, size, std::max(step, size >> 31)};
  const auto run = [](void* context, std::uint32_t chunk, int /*worker*/) {
    const Job& j = *static_cast<Job*>(context);
    const Index begin = j.step * chunk;
    (*j.body)(begin, std::min(begin + j.step, j.size));
  };
  run_chunks(static_cast<std::uint32_t>((size + job.step - 1) / job.step), threads, run, &job, {nullptr, nullptr});
}

}  // namespace gdcore
