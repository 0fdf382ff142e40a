// AVX-512 F and DQ.
#include <immintrin.h>

#include "kernels/kernels.h"

#define GDCORE_ISA avx512
#include "kernels/instruction_set.inl"

namespace gdcore {
const KernelTable kAvx512Kernels = {avx512::table<float>(), avx512::table<double>()};
}  // namespace gdcore
