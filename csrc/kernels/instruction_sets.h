// The instruction sets in the build, and the one in use.
#pragma once

#include <string>
#include <vector>

#include "kernels/kernels.h"
#include "kernels/updates.h"

namespace gdcore {

/// Every instruction set that was compiled, the widest last.
std::vector<std::string> built_instruction_sets();

/// Those of them that this processor executes.
std::vector<std::string> available_instruction_sets();

/// The one in use: the widest available until another is chosen.
std::string active_instruction_set();

/// Chooses by name. Throws std::invalid_argument, which lists what there is, if it is not available.
void choose_instruction_set(const std::string& name);

/// The kernels of the instruction set in use.
template <class T>
const Kernels<T>& kernels();

/// Folds a block of rows into a triangular factor.
TriangleKernel triangle_kernel();

/// Its updates for parameters of one dtype.
const Updates& updates(Storage storage);

}  // namespace gdcore
