// AVX-512 F and DQ.
#include <immintrin.h>

#include "kernels/kernels.h"
#include "kernels/updates.h"

#define GDCORE_ISA avx512
#include "kernels/instruction_set.inl"

namespace gdcore {
const KernelTable kAvx512Kernels = {avx512::table<float>(), avx512::table<double>(), avx512::triangle};
const Updates kAvx512Updates[kStorages] = {avx512::updates<float>(), avx512::updates<double>(),
                                           avx512::updates<BFloat16>(), avx512::updates<Float16>()};
}  // namespace gdcore
