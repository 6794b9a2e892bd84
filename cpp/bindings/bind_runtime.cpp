// Instruction sets, threads, interrupts, and how the extension was built.
#include <atomic>
#include <string>

#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "bindings/register.hpp"
#include "core/dispatch.hpp"
#include "core/threads.hpp"

namespace fastnet::bindings {

namespace py = pybind11;

namespace {

// The thread whose kernel is to end, because a signal handler holds its KeyboardInterrupt back until the kernel has
// returned; 0 for none.
std::atomic<unsigned long> thread_to_end{0};

// Runs Python's signal handlers; true if one raised (KeyboardInterrupt), or holds that back: the exception is set.
bool signal_raised() {
    const py::gil_scoped_acquire gil;
    if (PyErr_CheckSignals() != 0) {
        return true;
    }
    const bool ends = thread_to_end.load() == PyThread_get_thread_ident();
    if (ends) {
        PyErr_SetNone(PyExc_KeyboardInterrupt);
    }
    return ends;
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
    m.def(
        "end_kernel", [](unsigned long thread) { thread_to_end.store(thread); }, py::arg("thread"),
        "Let the kernel of that thread, if there is one, end with KeyboardInterrupt; 0 takes it back.");
    m.def("get_num_threads", num_threads);
    m.def("set_num_threads", set_num_threads, py::arg("count"));
}

} // namespace fastnet::bindings
