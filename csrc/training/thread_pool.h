// A small pool of threads that share the chunks of one job.
//
// Workers sleep on a futex between jobs. Chunks are claimed from a counter; the caller takes part, and waits only for
// chunks that a worker has claimed: one that is slow to wake costs nothing. A second caller, while a job is running,
// does its own job alone. After fork the child starts with an empty pool.
#pragma once

#include <cstdint>

namespace gdcore {

/// Says whether to give up: called on the caller's thread, between its chunks.
struct Interrupt {
  bool (*check)(void* context);
  void* context;
  bool operator()() const { return check != nullptr && check(context); }
};

using ChunkFunction = void (*)(void* context, std::uint32_t chunk, int worker);

/// Runs function(context, chunk, worker) for every chunk in [0, chunks) on at most `threads` threads, worker 0 being
/// the caller. Which worker takes which chunk is not determined. Returns false if interrupted: then some chunks have
/// not run.
bool run_chunks(std::uint32_t chunks, int threads, ChunkFunction function, void* context, const Interrupt& interrupt);

/// Workers that `run_chunks` may number, the caller included.
inline constexpr int kMaxThreads = 256;

}  // namespace gdcore
