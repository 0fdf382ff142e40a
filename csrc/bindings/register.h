// One function for each subject that the module offers.
#pragma once

#include <pybind11/pybind11.h>

namespace gdcore {

void register_losses(pybind11::module_& m);
void register_optimizers(pybind11::module_& m);
void register_shuffle(pybind11::module_& m);
void register_squares(pybind11::module_& m);
void register_apart(pybind11::module_& m);
void register_step(pybind11::module_& m);
void register_training(pybind11::module_& m);
void register_triangle(pybind11::module_& m);
void register_watch(pybind11::module_& m);

}  // namespace gdcore
