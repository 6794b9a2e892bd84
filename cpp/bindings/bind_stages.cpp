// Networks of stages: forward pass, loss, backprop and finite differences of a `StageSpec`.
#include <algorithm>
#include <string>
#include <utility>
#include <vector>

#include "bindings/network_view.hpp"
#include "bindings/register.hpp"
#include "bindings/stage_view.hpp"
#include "core/dispatch.hpp"

namespace fastnet::bindings {

namespace {

py::array stage_forward(py::handle spec, py::handle x_object) {
    return with_stage_type(spec, [&](auto zero) -> py::array {
        using T = decltype(zero);
        const StageView<T> net(spec);
        const py::array x = as_rows(net, x_object);
        const T* from = data_of<T>(x, "x");
        const Index rows = x.shape(0);
        py::array_t<T> y = empty<T>(rows, net.classes());
        T* to = data_of(y);
        const KernelCall call;
        kernels<T>().stages.forward(net.network, from, rows, to);
        return y;
    });
}

double stage_loss(py::handle spec, py::handle x, py::handle t, bool training, bool counts) {
    return with_stage_type(spec, [&](auto zero) {
        using T = decltype(zero);
        const StageView<T> net(spec);
        const BatchView<T> data(net, x, t);
        const KernelCall call;
        return training ? kernels<T>().stages.loss_and_gradient(net.network, data.batch, nullptr, nullptr, counts)
                        : kernels<T>().stages.loss(net.network, data.batch);
    });
}

// Returns uninitialised arrays of the parameters' shapes, and each stage's pointers to them.
template <class T> std::pair<py::list, std::vector<StageGradient<T>>> empty_gradient(const StageView<T>& net) {
    py::list arrays;
    std::vector<StageGradient<T>> places;
    std::size_t k = 0;
    const auto next = [&] {
        py::array_t<T> array = empty_like<T>(net.parameters()[k++]);
        arrays.append(array);
        return data_of(array);
    };
    for (const Stage<T>& stage : net.stages()) {
        T* const weight = stage.weight ? next() : nullptr;
        places.push_back({weight, stage.bias ? next() : nullptr});
    }
    return {arrays, places};
}

// Returns an uninitialised array (rows, inputs) and its data; None and null unless it is `wanted`.
template <class T> std::pair<py::object, T*> empty_derivative(const StageView<T>& net, Index rows, bool wanted) {
    if (!wanted) {
        return {py::none(), nullptr};
    }
    py::array_t<T> array = empty<T>(rows, net.inputs());
    T* const data = data_of(array);
    return {array, data};
}

// Returns (loss, arrays, derivative with respect to x or None); arrays is the gradient with respect to the parameters.
py::tuple stage_loss_and_gradient(py::handle spec, py::handle x, py::handle t, bool inputs) {
    return with_stage_type(spec, [&](auto zero) {
        using T = decltype(zero);
        const StageView<T> net(spec);
        const BatchView<T> data(net, x, t);
        const auto [arrays, places] = empty_gradient(net);
        const auto [d_x, d_to] = empty_derivative(net, data.batch.rows, inputs);
        const StageGradient<T>* to = places.data();
        T* const d = d_to;
        double loss = 0;
        {
            const KernelCall call;
            loss = kernels<T>().stages.loss_and_gradient(net.network, data.batch, to, d, true);
        }
        return py::make_tuple(loss, arrays, d_x);
    });
}

py::array stage_units(py::handle spec, py::handle x_object, bool counts) {
    return with_stage_type(spec, [&](auto zero) -> py::array {
        using T = decltype(zero);
        const StageView<T> net(spec);
        const py::array x = as_rows(net, x_object);
        const T* from = data_of<T>(x, "x");
        const Index rows = x.shape(0);
        py::array_t<T> units = empty<T>(rows, net.classes());
        T* to = data_of(units);
        const KernelCall call;
        kernels<T>().stages.units(net.network, from, rows, counts, to);
        return units;
    });
}

// Returns (arrays, derivative with respect to x or None), as `stage_loss_and_gradient`.
py::tuple stage_backward(py::handle spec, py::handle x_object, py::handle d_object, bool inputs) {
    return with_stage_type(spec, [&](auto zero) {
        using T = decltype(zero);
        const StageView<T> net(spec);
        const py::array x = as_rows(net, x_object), d = as_array(d_object, "d", 2);
        const T *from = data_of<T>(x, "x"), *d_from = data_of<T>(d, "d");
        const Index rows = x.shape(0);
        require(d.shape(0) == rows && d.shape(1) == net.classes(), [&] { return "d has shape " + shape_of(d); });
        const auto [arrays, places] = empty_gradient(net);
        const auto [d_x, d_to] = empty_derivative(net, rows, inputs);
        const StageGradient<T>* to = places.data();
        T* const to_x = d_to;
        {
            const KernelCall call;
            kernels<T>().stages.backward(net.network, from, rows, d_from, to, to_x);
        }
        return py::make_tuple(arrays, d_x);
    });
}

py::array stage_loop(py::handle spec, py::handle x, py::handle t, double h, py::handle entries_object) {
    return with_stage_type(spec, [&](auto zero) -> py::array {
        using T = decltype(zero);
        const StageView<T> net(spec);
        const BatchView<T> data(net, x, t);
        const py::array entries = as_array(entries_object, "entries", 1);
        const std::vector<std::int64_t> numbers = numbers_of(entries, net.parameter_count());
        const Index count = entries.shape(0);
        py::array_t<T> differences(count);
        T* to = data_of(differences);
        const KernelCall call;
        kernels<T>().stages.loop(net.network, data.batch, h, numbers.data(), count, to);
        return differences;
    });
}

// Returns the gradient by exact differences, (arrays, loss, evaluations, fallbacks, kinks); kinks are arrays of bool
// that say which parameters met a kink.
py::tuple stage_differences(py::handle spec, py::handle x, py::handle t, double h, bool nodal) {
    return with_stage_type(spec, [&](auto zero) {
        using T = decltype(zero);
        const StageView<T> net(spec);
        const BatchView<T> data(net, x, t);
        require_step<T>(h);
        const auto [arrays, places] = empty_gradient(net);
        const StageGradient<T>* to = places.data();
        py::list kinked;
        std::vector<StageKinks> kinks;
        std::size_t k = 0;
        const auto next = [&] {
            py::array_t<bool> array = empty_like<bool>(net.parameters()[k++]);
            std::fill_n(array.mutable_data(), array.size(), false);
            kinked.append(array);
            return array.mutable_data();
        };
        for (const Stage<T>& stage : net.stages()) {
            bool* const weight = stage.weight ? next() : nullptr;
            kinks.push_back({weight, stage.bias ? next() : nullptr});
        }
        const StageKinks* kinks_to = kinks.data();
        Diagnostics d{0, 0, 0, 0, nullptr};
        {
            const KernelCall call;
            kernels<T>().stages.differences(net.network, data.batch, h, nodal, false, to, kinks_to, d);
        }
        return py::make_tuple(arrays, d.loss, d.evaluations, d.fallbacks, kinked);
    });
}

} // namespace

void register_stages(py::module_& m) {
    m.def("stage_forward", stage_forward, py::arg("spec"), py::arg("x"));
    m.def("stage_loss", stage_loss, py::arg("spec"), py::arg("x"), py::arg("t"), py::arg("training"),
          py::arg("counts"));
    m.def("stage_loss_and_gradient", stage_loss_and_gradient, py::arg("spec"), py::arg("x"), py::arg("t"),
          py::arg("inputs"));
    m.def("stage_units", stage_units, py::arg("spec"), py::arg("x"), py::arg("counts"));
    m.def("stage_backward", stage_backward, py::arg("spec"), py::arg("x"), py::arg("d"), py::arg("inputs"));
    m.def("stage_loop", stage_loop, py::arg("spec"), py::arg("x"), py::arg("t"), py::arg("h"), py::arg("entries"));
    m.def("stage_differences", stage_differences, py::arg("spec"), py::arg("x"), py::arg("t"), py::arg("h"),
          py::arg("nodal"));
}

} // namespace fastnet::bindings
