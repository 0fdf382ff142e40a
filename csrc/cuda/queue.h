// A device's stream as a queue of launches.
#pragma once

#include <cuda_runtime_api.h>

#include <stdexcept>
#include <string>

#include "cuda/launches.h"

namespace gdcore::cuda {

/// Whether nothing of this build will run where PyTorch's own kernels do.
inline bool is_misfit(cudaError_t error) {
  return error == cudaErrorInsufficientDriver || error == cudaErrorNoKernelImageForDevice ||
         error == cudaErrorUnsupportedPtxVersion || error == cudaErrorInvalidDeviceFunction;
}

/// Throws what CUDA says of a call that failed.
inline void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  const char* const mend = is_misfit(error) ? "; this build of gdcore does not fit the device or its driver: build it "
                                              "on this machine, or with GDCORE_CUDA=OFF, which leaves CUDA to PyTorch"
                                            : "";
  throw std::runtime_error(std::string("CUDA, ") + what + ": " + cudaGetErrorString(error) + " (" +
                           cudaGetErrorName(error) + ")" + mend);
}

struct Stream {
  cudaStream_t stream;

  template <class Body>
  void run(const Body& body, Index blocks, int threads);
};

}  // namespace gdcore::cuda
