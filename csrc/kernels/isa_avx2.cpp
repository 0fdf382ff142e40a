// AVX2 with FMA.
#include <immintrin.h>

#include "kernels/kernels.h"

#define GDCORE_ISA avx2
#include "kernels/instruction_set.inl"

namespace gdcore {
const KernelTable kAvx2Kernels = {avx2::table<float>(), avx2::table<double>()};
}  // namespace gdcore
