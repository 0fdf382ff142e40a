// A device's stream as a queue of launches.
#pragma once

#include <cuda_runtime_api.h>

#include "cuda/launches.h"

namespace gdcore::cuda {

/// Throws what CUDA says of a call that failed.
void check(cudaError_t error, const char* what);

/// As a launch takes it; throws where there are too many.
unsigned blocks_of_launch(Index blocks);

struct Stream {
  cudaStream_t stream;

  template <class Body>
  void run(const Body& body, Index blocks, int threads);
};

}  // namespace gdcore::cuda
