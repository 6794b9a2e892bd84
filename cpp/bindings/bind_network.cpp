// Networks: forward pass, loss, backprop and finite differences of a `NetworkSpec`.
#include <algorithm>
#include <cmath>
#include <type_traits>
#include <utility>
#include <vector>

#include "bindings/network_view.hpp"
#include "bindings/register.hpp"
#include "bindings/stage_view.hpp"

namespace fastnet::bindings {

namespace {

// Raises unless a network can make a training pass over so many rows.
template <class T> void require_masks_of(const NetworkView<T>&, Index) {}
template <class T> void require_masks_of(const StageView<T>& net, Index rows) {
    net.require_masks_of(rows);
}

// Rows x (rows, inputs) through the network, compute(x, rows, y): its result y (rows, classes).
template <class Net, class F> py::array through(const Net& net, py::handle x_object, bool training, F&& compute) {
    using T = typename Net::Element;
    const py::array x = as_rows(net, x_object);
    const T* from = data_of<T>(x, "x");
    const Index rows = x.shape(0);
    if (training) {
        require_masks_of(net, rows);
    }
    py::array_t<T> y = empty<T>(rows, net.classes());
    T* to = data_of(y);
    const KernelCall call;
    compute(from, rows, to);
    return y;
}

py::array forward(py::handle spec, py::handle x) {
    return with_network(spec, [&](const auto& net) {
        return through(net, x, false, [&](auto from, Index rows, auto to) {
            kernels_of(net).forward(net.network, {.x = from, .rows = rows, .targets = {}}, to);
        });
    });
}

py::array units(py::handle spec, py::handle x, bool counts) {
    return with_stages(spec, [&](const auto& net) {
        return through(net, x, true, [&](auto from, Index rows, auto to) {
            kernels_of(net).units(net.network, from, rows, counts, to);
        });
    });
}

double loss(py::handle spec, py::handle x, py::handle t, bool training, bool counts) {
    return with_network(spec, [&](const auto& net) {
        using Net = std::remove_cvref_t<decltype(net)>;
        const BatchView<typename Net::Element> data(net, x, t);
        if (training) {
            require_masks_of(net, data.batch.rows);
        }
        const KernelCall call;
        if constexpr (!Net::is_chain) { // a chain computes the same in training
            if (training) {
                return kernels_of(net).loss_and_gradient(net.network, data.batch, nullptr, nullptr, counts);
            }
        }
        return kernels_of(net).loss(net.network, data.batch);
    });
}

// Arrays of the parameters' shapes with elements of type T, made by make(parameter), and each part's pointers to them.
template <class Places, class Net, class Make>
std::pair<py::list, std::vector<Places>> like_parameters(const Net& net, Make&& make) {
    py::list arrays;
    std::vector<Places> places;
    places.reserve(net.parts().size());
    std::size_t k = 0;
    const auto next = [&] {
        auto array = make(net.parameters()[k++]);
        arrays.append(array);
        return array.mutable_data();
    };
    for (const auto& part : net.parts()) {
        auto* const weight = part.weight ? next() : nullptr;
        places.push_back({weight, part.bias ? next() : nullptr});
    }
    return {arrays, places};
}

template <class Net> auto empty_gradient(const Net& net) {
    return like_parameters<typename Net::Gradient>(net, &empty_like<typename Net::Element>);
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

// Returns (loss, arrays, derivative with respect to x or None); arrays is the gradient, in the order of the parameters.
py::tuple loss_and_gradient(py::handle spec, py::handle x, py::handle t, bool inputs) {
    const auto compute = [&](const auto& net) {
        using Net = std::remove_cvref_t<decltype(net)>;
        const BatchView<typename Net::Element> data(net, x, t);
        require_masks_of(net, data.batch.rows);
        const auto [arrays, places] = empty_gradient(net);
        const auto* const to = places.data();
        py::object d_x = py::none();
        double loss = 0;
        if constexpr (Net::is_chain) {
            const KernelCall call;
            loss = kernels_of(net).loss_and_gradient(net.network, data.batch, to);
        } else {
            auto [array, d_to] = empty_derivative(net, data.batch.rows, inputs);
            d_x = std::move(array);
            const KernelCall call;
            loss = kernels_of(net).loss_and_gradient(net.network, data.batch, to, d_to, true);
        }
        return py::make_tuple(loss, arrays, d_x);
    };
    return inputs ? with_stages(spec, compute) : with_network(spec, compute);
}

// Returns (arrays, derivative with respect to x or None), as `loss_and_gradient`, for a derivative d of the units.
py::tuple backward(py::handle spec, py::handle x_object, py::handle d_object, bool inputs) {
    return with_stages(spec, [&](const auto& net) {
        using T = typename std::remove_cvref_t<decltype(net)>::Element;
        const py::array x = as_rows(net, x_object), d = as_array(d_object, "d", 2);
        const T *from = data_of<T>(x, "x"), *d_from = data_of<T>(d, "d");
        const Index rows = x.shape(0);
        require_masks_of(net, rows);
        require(d.shape(0) == rows && d.shape(1) == net.classes(), [&] { return "d has shape " + shape_of(d); });
        const auto [arrays, places] = empty_gradient(net);
        const auto [d_x, d_to] = empty_derivative(net, rows, inputs);
        const auto* const to = places.data();
        T* const to_x = d_to;
        {
            const KernelCall call;
            kernels_of(net).backward(net.network, from, rows, d_from, to, to_x);
        }
        return py::make_tuple(arrays, d_x);
    });
}

py::array loop(py::handle spec, py::handle x, py::handle t, double h, py::handle entries_object) {
    return with_network(spec, [&](const auto& net) -> py::array {
        using T = typename std::remove_cvref_t<decltype(net)>::Element;
        const BatchView<T> data(net, x, t);
        require_masks_of(net, data.batch.rows);
        const py::array entries = as_array(entries_object, "entries", 1);
        const std::vector<std::int64_t> numbers = numbers_of(net, entries);
        const Index count = entries.shape(0);
        py::array_t<T> differences(count);
        T* to = data_of(differences);
        const KernelCall call;
        kernels_of(net).loop(net.network, data.batch, h, numbers.data(), count, to);
        return differences;
    });
}

enum class Differences { incremental, nodal, second };

py::array_t<bool> all_false(py::array_t<bool> array) {
    std::fill_n(array.mutable_data(), array.size(), false);
    return array;
}

// The gradient of a chain by exact differences, or the diagonal of its Hessian by second ones. The list gets for each
// layer a bool array (outputs): whether the unit met a kink.
template <Differences kind, class T>
Diagnostics differences_of(const NetworkView<T>& net, const Batch<T>& batch, double h, const LayerGradient<T>* to,
                           py::list& kinked) {
    std::vector<bool*> places;
    for (const Layer<T>& l : net.parts()) {
        py::array_t<bool> units = all_false(py::array_t<bool>(l.outputs));
        places.push_back(units.mutable_data());
        kinked.append(units);
    }
    Diagnostics d{0, 0, 0, 0, places.data()};
    const KernelCall call;
    (kind == Differences::nodal    ? kernels<T>().nodal
     : kind == Differences::second ? kernels<T>().hessian_diagonal
                                   : kernels<T>().incremental)(net.network, batch, h, to, d);
    return d;
}

// The gradient of any stages. The list gets for each parameter a bool array of its shape: which elements met a kink.
template <Differences kind, class T>
Diagnostics differences_of(const StageView<T>& net, const Batch<T>& batch, double h, const StageGradient<T>* to,
                           py::list& kinked) {
    require(kind != Differences::second, "only a chain of affine layers and activations has second differences");
    const auto [arrays, places] = like_parameters<StageKinks>(
        net, [](const py::array& parameter) { return all_false(empty_like<bool>(parameter)); });
    const StageKinks* const kinks = places.data();
    Diagnostics d{0, 0, 0, 0, nullptr};
    {
        const KernelCall call;
        kernels_of(net).differences(net.network, batch, h, kind == Differences::nodal, false, to, kinks, d);
    }
    for (const py::handle array : arrays) {
        const auto met = py::reinterpret_borrow<py::array_t<bool>>(array);
        d.kinks += std::count(met.data(), met.data() + met.size(), true);
        kinked.append(met);
    }
    return d;
}

// Returns (arrays, diagnostics); these are the numbers of `Diagnostics` and what `differences_of` says of kinks.
template <Differences kind> py::tuple exact_differences(py::handle spec, py::handle x, py::handle t, double h) {
    return with_network(spec, [&](const auto& net) {
        using T = typename std::remove_cvref_t<decltype(net)>::Element;
        const BatchView<T> data(net, x, t);
        require_masks_of(net, data.batch.rows);
        require_step<T>(h);
        require(kind != Differences::second || (static_cast<T>(h * h) > 0 && std::isfinite(static_cast<T>(h * h))),
                "the square of h must be positive and finite in the network's type");
        const auto [arrays, places] = empty_gradient(net);
        py::list kinked;
        const Diagnostics d = differences_of<kind>(net, data.batch, h, places.data(), kinked);
        return py::make_tuple(arrays, py::make_tuple(d.loss, d.evaluations, d.fallbacks, d.kinks, kinked));
    });
}

} // namespace

void register_network(py::module_& m) {
    const py::arg spec("spec"), x("x"), t("t"), h("h");
    m.def("forward", forward, spec, x);
    m.def("loss", loss, spec, x, t, py::arg("training") = false, py::arg("counts") = false);
    m.def("loss_and_gradient", loss_and_gradient, spec, x, t, py::arg("inputs") = false);
    m.def("units", units, spec, x, py::arg("counts"));
    m.def("backward", backward, spec, x, py::arg("d"), py::arg("inputs"));
    m.def("loop", loop, spec, x, t, h, py::arg("entries"));
    m.def("incremental", exact_differences<Differences::incremental>, spec, x, t, h);
    m.def("nodal", exact_differences<Differences::nodal>, spec, x, t, h);
    m.def("hessian_diagonal", exact_differences<Differences::second>, spec, x, t, h);
}

} // namespace fastnet::bindings
