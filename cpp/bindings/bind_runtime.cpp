// Instruction sets, threads, interrupts, and what the extension was built with.
#include <string>

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/register.hpp"
#include "core/dispatch.hpp"
#include "core/threads.hpp"

namespace fastnet::bindings {

namespace py = pybind11;

namespace {

// Runs Python's signal handlers; true where one raised (KeyboardInterrupt), whose exception stays set.
bool signal_raised() {
    const py::gil_scoped_acquire gil;
    return PyErr_CheckSignals() != 0;
}

std::string compiler() {
#if defined(__clang__)
    return "Clang " __clang_version__;
#else
    return "GCC " __VERSION__;
#endif
}

py::list available_isas() {
    py::list names;
    for_each_isa([](void* list, const char* name) { static_cast<py::list*>(list)->append(name); }, &names);
    return names;
}

} // namespace

void register_runtime(py::module_& m) {
    set_interrupt_check(signal_raised);
    py::register_exception_translator([](std::exception_ptr p) {
        try {
            if (p) {
                std::rethrow_exception(p);
            }
        } catch (const Interrupted&) {
            // The signal handler's exception is already set.
        }
    });
    kernel_table(); // a wrong FASTNET_ISA is an error of the import

    m.attr("__version__") = FASTNET_VERSION;
    m.attr("compiler") = compiler();
    m.attr("threading") = threading_library();
    m.def("isa", [] { return kernel_table().isa; }, "The instruction set in use.");
    m.def("available_isas", available_isas, "The instruction sets that this processor can use, the best first.");
    m.def("use_isa", use_isa, py::arg("name"), "Use another instruction set from now on (for tests).");
    m.def("get_num_threads", num_threads);
    m.def("set_num_threads", set_num_threads, py::arg("count"));
}

} // namespace fastnet::bindings
