// The extension module gdcore._core.
#include <pybind11/stl.h>

#include "bindings/register.h"
#include "bindings/slots.h"
#include "bindings/tensor.h"
#include "kernels/instruction_sets.h"

PYBIND11_MODULE(_core, m) {
  m.doc() = "gdcore's native core: fused least-squares gradients, updates and training loops.";
  m.attr("compiler") = GDCORE_COMPILER;
  m.attr("max_degree") = gdcore::kMaxDegree;
  m.def("connect", &gdcore::connect, pybind11::arg("tensor_class"));
  m.def("connect_device_updates", &gdcore::connect_device_updates, pybind11::arg("updates"));
  m.def("built_instruction_sets", &gdcore::built_instruction_sets);
  m.def("available_instruction_sets", &gdcore::available_instruction_sets);
  m.def("active_instruction_set", &gdcore::active_instruction_set);
  m.def("choose_instruction_set", &gdcore::choose_instruction_set, pybind11::arg("name"));
  gdcore::register_losses(m);
  gdcore::register_optimizers(m);
  gdcore::register_training(m);
  gdcore::register_triangle(m);
  gdcore::register_shuffle(m);
  gdcore::register_squares(m);
  gdcore::register_apart(m);
  gdcore::register_watch(m);
  gdcore::register_step(m);
}
