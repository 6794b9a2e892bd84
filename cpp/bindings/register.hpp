// The functions that register the areas of the extension module, one for each.
#pragma once

#include <pybind11/pybind11.h>

namespace fastnet::bindings {

void register_runtime(pybind11::module_& m);
void register_evaluate(pybind11::module_& m);
void register_functions(pybind11::module_& m);
void register_network(pybind11::module_& m);
void register_training(pybind11::module_& m);

} // namespace fastnet::bindings
