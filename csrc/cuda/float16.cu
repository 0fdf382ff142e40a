#include "cuda/device.inl"

namespace gdcore::cuda {
template struct Launches<Float16, Stream>;
}  // namespace gdcore::cuda
