// A device's stream as a queue of launches.
#pragma once

#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

#include "cuda/launches.h"

namespace gdcore::cuda {

/// Throws what CUDA says of a call that failed.
inline void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  throw std::runtime_error(std::string("CUDA, ") + what + ": " + cudaGetErrorString(error) + " (" +
                           cudaGetErrorName(error) + ")");
}

struct Stream {
  cudaStream_t stream;

  template <class Body>
  void run(const Body& body, Index blocks, int threads);
};

}  // namespace gdcore::cuda
