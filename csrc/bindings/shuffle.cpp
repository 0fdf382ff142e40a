#include "training/shuffle.h"

#include "bindings/register.h"
#include "bindings/tensor.h"

namespace gdcore {

namespace {

/// Writes the order into `order`, a tensor of n elements, of which `rows` count, and the generator as it is afterwards
/// into `state`. The GIL is held, so that nobody draws from the generator meanwhile.
void order_by_generator(py::handle state, Index n, Index rows, py::handle order) {
  DLTensor bytes;
  const bool given = view_without_error(state, &bytes) && bytes.device.device_type == kDLCPU && bytes.ndim == 1 &&
                     bytes.dtype.bits == 8 && is_contiguous(bytes);
  if (!given || bytes.shape[0] != static_cast<Index>(sizeof(GeneratorState))) {
    fail_value("state", "what get_state() of a CPU generator gives", "another tensor");
  }
  auto& generator = *static_cast<GeneratorState*>(data_of(bytes));
  if (!generator.consistent()) fail_value("state", "a Mersenne Twister's", "another");
  if (n < 1 || n > kMostShuffled) fail_value("n", "1 to " + std::to_string(kMostShuffled), std::to_string(n));
  const IndexView view(order, "order", true);
  std::int32_t* const out = view.contiguous_int32();
  if (rows < 0 || rows > n || (rows > 0 && (out == nullptr || view.dim() != 1 || view.size(0) != n))) {
    fail_value("order", "a contiguous result of " + std::to_string(n) + " elements", view.shape());
  }
  draw_order(generator, n, rows, out);
}

}  // namespace

void register_shuffle(py::module_& m) {
  m.def("order_by_generator", &order_by_generator, py::arg("state"), py::arg("n"), py::arg("rows"), py::arg("order"));
}

}  // namespace gdcore
