#include "cuda/device.inl"

namespace gdcore::cuda {
template struct Launches<float, Stream>;
}  // namespace gdcore::cuda
