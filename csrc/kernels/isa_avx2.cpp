// AVX2 with FMA and F16C.
#include <immintrin.h>

#include "kernels/kernels.h"
#include "kernels/updates.h"

#define GDCORE_ISA avx2
#include "kernels/instruction_set.inl"

namespace gdcore {
const KernelTable kAvx2Kernels = {avx2::table<float>(), avx2::table<double>(), avx2::triangle};
const Updates kAvx2Updates[kStorages] = {avx2::updates<float>(), avx2::updates<double>(), avx2::updates<BFloat16>(),
                                         avx2::updates<Float16>()};
}  // namespace gdcore
