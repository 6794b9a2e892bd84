// Functions of compiled code that Python passes as pointers.
#include <cstdint>
#include <string>

#include "bindings/arrays.hpp"
#include "bindings/register.hpp"
#include "core/evaluate.hpp"

namespace fastnet::bindings {

namespace {

py::array_t<double> evaluate(std::uintptr_t function, std::uintptr_t data, py::handle x_object,
                             py::handle entries_object, py::handle values_object) {
    require(function != 0, "the function is a null pointer");
    const py::array x = as_array(x_object, "x", 1), entries = as_array(entries_object, "entries", 2),
                    values = as_array(values_object, "values", 2);
    require(values.shape(0) == entries.shape(0) && values.shape(1) == entries.shape(1),
            [&] { return "entries have shape " + shape_of(entries) + ", but values " + shape_of(values); });
    const double* from = data_of<double>(x, "x");
    const Points points{entries.shape(0), entries.shape(1), data_of<std::int64_t>(entries, "entries"),
                        data_of<double>(values, "values")};
    const Index n = x.shape(0);
    for (Index i = 0; i < points.count * points.moved; ++i) {
        require(points.entries[i] >= 0 && points.entries[i] < n, [&] {
            return "entry " + std::to_string(points.entries[i]) + " is not one of " + std::to_string(n) + " elements";
        });
    }
    py::array_t<double> result(points.count);
    double* to = data_of(result);
    const auto f = reinterpret_cast<NativeFunction>(function);
    const bool unchanged = [&] {
        const KernelCall call;
        return fastnet::evaluate(f, reinterpret_cast<void*>(data), from, n, points, to);
    }();
    require(unchanged, "f changes its argument, which is const: let it compute with a copy");
    return result;
}

} // namespace

void register_evaluate(py::module_& m) {
    m.def("evaluate", evaluate, py::arg("function"), py::arg("data"), py::arg("x"), py::arg("entries"),
          py::arg("values"));
}

} // namespace fastnet::bindings
