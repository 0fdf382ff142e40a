#include "training/updates.h"

#include <algorithm>
#include <cstdint>

#include "training/objective.h"
#include "training/thread_pool.h"

namespace gdcore {

namespace {

constexpr Index kElementsPerChunk = Index{1} << 15;

struct Chunks {
  const std::vector<UpdateJob>* jobs;
  std::vector<Index> starts;  ///< the number of each job's first element, and of the end
  Index step;
};

void run_chunk(void* context, std::uint32_t chunk, int /*worker*/) {
  const Chunks& c = *static_cast<const Chunks*>(context);
  const Index begin = c.step * chunk;
  const Index end = std::min(begin + c.step, c.starts.back());
  auto i = static_cast<std::size_t>(std::upper_bound(c.starts.begin(), c.starts.end(), begin) - c.starts.begin() - 1);
  for (; i < c.jobs->size() && c.starts[i] < end; ++i) {
    const UpdateJob& job = (*c.jobs)[i];
    const Index from = std::max(begin - c.starts[i], Index{0});
    job.kernel(job.rule, job.slots, from, std::min(end - c.starts[i], job.size));
  }
}

}  // namespace

bool share_memory(const std::vector<UpdateJob>& jobs) {
  struct Span {
    std::uintptr_t begin;
    std::uintptr_t end;
    bool written;
  };
  std::vector<Span> spans;
  spans.reserve(jobs.size() * (2 + kMaxState));
  for (const UpdateJob& job : jobs) {
    const auto add = [&](const void* memory, bool written) {
      const auto begin = reinterpret_cast<std::uintptr_t>(memory);
      if (memory != nullptr)
        spans.push_back({begin, begin + static_cast<std::uintptr_t>(job.size * bytes_of(job.storage)), written});
    };
    add(job.slots.parameter, true);
    add(job.slots.grad, false);
    for (void* state : job.slots.state) add(state, true);
  }
  std::sort(spans.begin(), spans.end(), [](const Span& a, const Span& b) { return a.begin < b.begin; });
  std::uintptr_t end = 0, written_end = 0;  // of what comes before
  for (const Span& span : spans) {
    if (span.begin < (span.written ? end : written_end)) return true;
    end = std::max(end, span.end);
    if (span.written) written_end = std::max(written_end, span.end);
  }
  return false;
}

void run_updates(const std::vector<UpdateJob>& jobs, int threads) {
  Index total = 0;
  for (const UpdateJob& job : jobs) total += job.size;
  if (total < kSerialElements || threads <= 1 || share_memory(jobs)) {
    for (const UpdateJob& job : jobs) job.kernel(job.rule, job.slots, 0, job.size);
    return;
  }
  // At most 2³² chunks, whatever the size.
  Chunks chunks = {&jobs, {0}, std::max(kElementsPerChunk, total >> 31)};
  chunks.starts.reserve(jobs.size() + 1);
  for (const UpdateJob& job : jobs) chunks.starts.push_back(chunks.starts.back() + job.size);
  const auto count = static_cast<std::uint32_t>((total + chunks.step - 1) / chunks.step);
  run_chunks(count, threads, run_chunk, &chunks, {nullptr, nullptr});
}

}  // namespace gdcore
