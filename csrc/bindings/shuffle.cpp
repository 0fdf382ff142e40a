#include "bindings/shuffle.h"

#include "bindings/register.h"

namespace gdcore {

GeneratorState& generator_state(py::handle tensor) {
  DLTensor bytes;
  const bool seen = view_without_error(tensor, &bytes) && bytes.device.device_type == kDLCPU && bytes.ndim == 1 &&
                    bytes.dtype.bits == 8 && bytes.shape[0] == static_cast<Index>(sizeof(GeneratorState)) &&
                    is_contiguous(bytes);
  auto* const state = seen ? static_cast<GeneratorState*>(data_of(bytes)) : nullptr;
  if (state == nullptr || !state->consistent()) {
    fail_value("state", "what get_state() of a CPU generator gives", "something else");
  }
  return *state;
}

void check_shuffled(Index n, Index rows) {
  if (n < 1 || n > kMostShuffled) fail_value("n", "1 to " + std::to_string(kMostShuffled), std::to_string(n));
  if (rows < 0 || rows > n) fail_value("rows", "0 to " + std::to_string(n), std::to_string(rows));
}

/// Moves the state on as a shuffle of n rows does; writes the rows to `order`, or to nowhere.
static void shuffle(py::handle state, Index n, py::handle order) {
  GeneratorState& generator = generator_state(state);
  check_shuffled(n, n);
  if (!order.is_none()) {
    const IndexView view(order, "order");
    if (view.dim() != 1 || view.size(0) != n) fail_value("order", "shape (n,)", view.shape());
    Shuffle rows(generator, n);
    rows.draw_until(n);
    view.write(rows.rows());
  }
  skip_shuffle(generator, n);
}

void register_shuffle(py::module_& m) {
  m.def("shuffle", &shuffle, py::arg("state"), py::arg("n"), py::arg("order") = py::none());
}

}  // namespace gdcore
