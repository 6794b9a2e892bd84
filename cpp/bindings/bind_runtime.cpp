// Instruction sets, threads, interrupts, and how the extension was built.
#include <string>

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/register.hpp"
#include "core/dispatch.hpp"
#include "core/threads.hpp"

namespace fastnet::bindings {

namespace py = pybind11;

namespace {

// Runs Python's signal handlers; true if one raised (KeyboardInterrupt): its exception stays set.
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
    kernel_table(); // so that importing the module fails for a wrong FASTNET_ISA

    m.attr("__version__") = FASTNET_VERSION;
    m.attr("compiler") = compiler();
    m.attr("threading") = threading_library();
    m.def("isa", [] { return kernel_table().isa; }, "The instruction set in use.");
    m.def("available_isas", available_isas, "The instruction sets that this processor supports, the best first.");
    m.def("use_isa", use_isa, py::arg("name"), "Use another instruction set from now on (for tests).");
    m.def("get_num_threads", num_threads);
    m.def("set_num_threads", set_num_threads, py::arg("count"));
}

} // namespace fastnet::bindings
