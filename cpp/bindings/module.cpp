// The extension module fastnet._core: registers each area's functions and does nothing else.
#include <exception>

#include <pybind11/pybind11.h>

#include "bindings/register.hpp"
#include "core/memory.hpp"

namespace {

// What does not fit the type that a description of a network needs is a wrong type of argument.
void translate_cast_error(std::exception_ptr thrown) {
    try {
        std::rethrow_exception(thrown);
    } catch (const pybind11::cast_error& error) {
        PyErr_SetString(PyExc_TypeError, error.what());
    }
}

} // namespace

PYBIND11_MODULE(_core, m) {
    m.doc() = "fastnet's compiled kernels. Private: use the functions of the package `fastnet`.";
    pybind11::register_local_exception_translator(translate_cast_error);
    const fastnet::Buffer first(1); // where memory runs out later, the C library ends a process that has no room left
                                    // for the extension's thread-local data
    fastnet::bindings::register_runtime(m);
    fastnet::bindings::register_evaluate(m);
    fastnet::bindings::register_functions(m);
    fastnet::bindings::register_network(m);
    fastnet::bindings::register_training(m);
}
