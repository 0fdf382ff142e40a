#include "cuda/device.inl"

namespace gdcore::cuda {
template struct Launches<BFloat16, Stream>;
}  // namespace gdcore::cuda
