#include "cuda/queue.h"

#include <stdexcept>
#include <string>

namespace gdcore::cuda {

namespace {

/// Whether nothing of this build will run where PyTorch's own kernels do.
bool is_misfit(cudaError_t error) {
  return error == cudaErrorInsufficientDriver || error == cudaErrorNoKernelImageForDevice ||
         error == cudaErrorUnsupportedPtxVersion || error == cudaErrorInvalidDeviceFunction;
}

}  // namespace

void check(cudaError_t error, const char* what) {
  if (error == cudaSuccess) return;
  const char* const mend = is_misfit(error) ? "; this build of gdcore does not fit the device or its driver: build it "
                                              "on this machine, or with GDCORE_CUDA=OFF, which leaves CUDA to PyTorch"
                                            : "";
  throw std::runtime_error(std::string("CUDA, ") + what + ": " + cudaGetErrorString(error) + " (" +
                           cudaGetErrorName(error) + ")" + mend);
}

unsigned blocks_of_launch(Index blocks) {
  if (blocks > 0x7fffffff) throw std::runtime_error("CUDA: more blocks than a launch takes");
  return static_cast<unsigned>(blocks);
}

}  // namespace gdcore::cuda
