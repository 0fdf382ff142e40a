#include "cuda/device.inl"

namespace gdcore::cuda {
template struct Launches<double, Stream>;
}  // namespace gdcore::cuda
