// What every processor of the platform has: SSE2 on x86-64, NEON on aarch64.
#if defined(__aarch64__)
#include <arm_neon.h>
#elif defined(__x86_64__)
#include <emmintrin.h>
#endif

#include "kernels/kernels.h"
#include "kernels/updates.h"

#define GDCORE_ISA baseline
#include "kernels/instruction_set.inl"

namespace gdcore {
const KernelTable kBaselineKernels = {baseline::table<float>(), baseline::table<double>(), baseline::triangle};
const Updates kBaselineUpdates[kStorages] = {baseline::updates<float>(), baseline::updates<double>(),
                                             baseline::updates<BFloat16>(), baseline::updates<Float16>()};
}  // namespace gdcore
