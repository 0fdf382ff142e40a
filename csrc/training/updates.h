// Many updates as one job: the elements of all tensors are numbered one after the other and cut into chunks.
#pragma once

#include <vector>

#include "training/update_job.h"

namespace gdcore {

/// Whether two jobs touch the same memory and one of them writes it.
bool share_memory(const std::vector<UpdateJob>& jobs);

/// Runs all on at most `threads` threads; one after the other where they share memory that is written.
void run_updates(const std::vector<UpdateJob>& jobs, int threads);

}  // namespace gdcore
