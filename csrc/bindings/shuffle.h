// The states of torch's generators as arguments.
#pragma once

#include "bindings/tensor.h"
#include "training/shuffle.h"

namespace gdcore {

/// What `get_state()` of a CPU generator gives, in the tensor's own memory.
GeneratorState& generator_state(py::handle tensor);
/// Whether the first `rows` of a shuffle of n can be drawn.
void check_shuffled(Index n, Index rows);

}  // namespace gdcore
