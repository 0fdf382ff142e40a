// Kernels on a device: a body's threads are CUDA's.
#include "cuda/launches.inl"
#include "cuda/queue.h"

namespace gdcore::cuda {

struct DeviceContext {
  double* memory;

  __device__ int thread() const { return static_cast<int>(threadIdx.x); }
  __device__ int threads() const { return static_cast<int>(blockDim.x); }
  __device__ Index block() const { return blockIdx.x; }
  __device__ Index blocks() const { return gridDim.x; }
  __device__ double* shared() const { return memory; }
  __device__ void sync() { __syncthreads(); }
  template <class T>
  __device__ T exchange(T value, int mask) {
    return __shfl_xor_sync(0xffffffffu, value, mask);
  }
};

template <class Body>
__global__ void __launch_bounds__(Body::kBlockThreads, Body::kBlocks) kernel(const __grid_constant__ Body body) {
  __shared__ double memory[Body::kShared];
  DeviceContext context = {memory};
  body(context);
}

template <class Body>
void Stream::run(const Body& body, Index blocks, int threads) {
  kernel<Body><<<blocks_of_launch(blocks), static_cast<unsigned>(threads), 0, stream>>>(body);
  check(cudaGetLastError(), "launch");
}

}  // namespace gdcore::cuda
