// Networks: forward pass, loss, backprop and finite differences of a `NetworkSpec`.
#include <algorithm>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "bindings/network_view.hpp"
#include "bindings/register.hpp"
#include "core/dispatch.hpp"

namespace fastnet::bindings {

namespace {

py::array forward(py::handle spec, py::handle x_object) {
    return with_network_type(spec, [&](auto zero) -> py::array {
        using T = decltype(zero);
        const NetworkView<T> net(spec);
        const py::array x = as_rows(net, x_object);
        const T* from = data_of<T>(x, "x");
        const Index rows = x.shape(0);
        py::array_t<T> y = empty<T>(rows, net.classes());
        T* to = data_of(y);
        const KernelCall call;
        kernels<T>().forward(net.network, from, rows, to);
        return y;
    });
}

double loss(py::handle spec, py::handle x, py::handle t) {
    return with_network_type(spec, [&](auto zero) {
        using T = decltype(zero);
        const NetworkView<T> net(spec);
        const BatchView<T> data(net, x, t);
        const KernelCall call;
        return kernels<T>().loss(net.network, data.batch);
    });
}

// Returns uninitialised arrays of the parameters' shapes, in the order W1, b1, W2, b2, …, and each layer's pointers.
template <class T> std::pair<py::list, std::vector<LayerGradient<T>>> empty_gradient(const NetworkView<T>& net) {
    py::list arrays;
    std::vector<LayerGradient<T>> places;
    for (const Layer<T>& l : net.layers()) {
        py::array_t<T> weight = empty<T>(l.inputs, l.outputs);
        places.push_back({data_of(weight), nullptr});
        arrays.append(weight);
        if (l.bias) {
            py::array_t<T> bias(l.outputs);
            places.back().bias = data_of(bias);
            arrays.append(bias);
        }
    }
    return {arrays, places};
}

// Returns (loss, arrays); arrays is the gradient, in the order of empty_gradient.
py::tuple loss_and_gradient(py::handle spec, py::handle x, py::handle t) {
    return with_network_type(spec, [&](auto zero) {
        using T = decltype(zero);
        const NetworkView<T> net(spec);
        const BatchView<T> data(net, x, t);
        const auto [arrays, places] = empty_gradient(net);
        const LayerGradient<T>* to = places.data();
        double loss = 0;
        {
            const KernelCall call;
            loss = kernels<T>().loss_and_gradient(net.network, data.batch, to);
        }
        return py::make_tuple(loss, arrays);
    });
}

py::array loop(py::handle spec, py::handle x, py::handle t, double h, py::handle entries_object) {
    return with_network_type(spec, [&](auto zero) -> py::array {
        using T = decltype(zero);
        const NetworkView<T> net(spec);
        const BatchView<T> data(net, x, t);
        const py::array entries = as_array(entries_object, "entries", 1);
        const std::vector<std::int64_t> numbers = numbers_of(entries, net.parameters());
        const Index count = entries.shape(0);
        py::array_t<T> differences(count);
        T* to = data_of(differences);
        const KernelCall call;
        kernels<T>().loop(net.network, data.batch, h, numbers.data(), count, to);
        return differences;
    });
}

enum class Differences { incremental, nodal, second };

// Returns the gradient by exact differences, or the diagonal of the Hessian by second ones, as (arrays, diagnostics).
// The diagnostics are the numbers of `Diagnostics` and for each layer a bool array (outputs): whether the unit met a
// kink.
template <Differences kind> py::tuple exact_differences(py::handle spec, py::handle x, py::handle t, double h) {
    return with_network_type(spec, [&](auto zero) {
        using T = decltype(zero);
        const NetworkView<T> net(spec);
        const BatchView<T> data(net, x, t);
        require_step<T>(h);
        require(kind != Differences::second || (static_cast<T>(h * h) > 0 && std::isfinite(static_cast<T>(h * h))),
                "the square of h must be positive and finite in the network's type");
        const auto [arrays, places] = empty_gradient(net);
        const LayerGradient<T>* to = places.data();
        py::list kinked;
        std::vector<bool*> kinked_places;
        for (const Layer<T>& l : net.layers()) {
            py::array_t<bool> units(l.outputs);
            std::fill_n(units.mutable_data(), l.outputs, false);
            kinked_places.push_back(units.mutable_data());
            kinked.append(units);
        }
        Diagnostics d{0, 0, 0, 0, kinked_places.data()};
        {
            const KernelCall call;
            (kind == Differences::nodal    ? kernels<T>().nodal
             : kind == Differences::second ? kernels<T>().hessian_diagonal
                                           : kernels<T>().incremental)(net.network, data.batch, h, to, d);
        }
        return py::make_tuple(arrays, py::make_tuple(d.loss, d.evaluations, d.fallbacks, d.kinks, kinked));
    });
}

} // namespace

void register_network(py::module_& m) {
    m.def("forward", forward, py::arg("spec"), py::arg("x"));
    m.def("loss", loss, py::arg("spec"), py::arg("x"), py::arg("t"));
    m.def("loss_and_gradient", loss_and_gradient, py::arg("spec"), py::arg("x"), py::arg("t"));
    m.def("incremental", exact_differences<Differences::incremental>, py::arg("spec"), py::arg("x"), py::arg("t"),
          py::arg("h"));
    m.def("nodal", exact_differences<Differences::nodal>, py::arg("spec"), py::arg("x"), py::arg("t"), py::arg("h"));
    m.def("hessian_diagonal", exact_differences<Differences::second>, py::arg("spec"), py::arg("x"), py::arg("t"),
          py::arg("h"));
    m.def("loop", loop, py::arg("spec"), py::arg("x"), py::arg("t"), py::arg("h"), py::arg("entries"));
}

} // namespace fastnet::bindings
