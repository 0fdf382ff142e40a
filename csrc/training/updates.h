// Many updates as one job: the elements of all tensors are numbered one after the other and cut into chunks.
#pragma once

#include <vector>

#include "kernels/updates.h"

namespace gdcore {

/// One parameter's update. `rule` is what the kernel wants, and outlives the job.
struct UpdateJob {
  UpdateKernel kernel;
  const void* rule;
  Slots slots;
  Index size;
  Storage storage;
};

/// Whether two jobs touch the same memory and one of them writes it.
bool share_memory(const std::vector<UpdateJob>& jobs);

/// Runs all on at most `threads` threads; one after the other where they share memory that is written.
void run_updates(const std::vector<UpdateJob>& jobs, int threads);

}  // namespace gdcore
