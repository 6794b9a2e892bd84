// The extension module fastnet._core: registers each area's functions and does nothing else.
#include <pybind11/pybind11.h>

#include "bindings/register.hpp"

PYBIND11_MODULE(_core, m) {
    m.doc() = "fastnet's compiled kernels. Private: use the functions of the package `fastnet`.";
    fastnet::bindings::register_runtime(m);
    fastnet::bindings::register_evaluate(m);
    fastnet::bindings::register_functions(m);
    fastnet::bindings::register_network(m);
    fastnet::bindings::register_training(m);
}
