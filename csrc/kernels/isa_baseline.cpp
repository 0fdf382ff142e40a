// What every processor of the platform has: SSE2 on x86-64, NEON on aarch64.
#if defined(__aarch64__)
#include <arm_neon.h>
#endif

#include "kernels/kernels.h"

#define GDCORE_ISA baseline
#include "kernels/instruction_set.inl"

namespace gdcore {
const KernelTable kBaselineKernels = {baseline::table<float>(), baseline::table<double>()};
}  // namespace gdcore
