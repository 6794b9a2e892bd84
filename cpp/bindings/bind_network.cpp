// Networks: forward pass, loss, backprop and finite differences of a `NetworkSpec`.
#include <algorithm>
#include <cmath>
#include <string>
#include <type_traits>
#include <utility>
#include <vector>

#include "bindings/arrays.hpp"
#include "bindings/register.hpp"
#include "core/dispatch.hpp"

namespace fastnet::bindings {

namespace {

// A `NetworkSpec` as the kernels read it; keeps the arrays alive and its layers in place.
template <class T> class NetworkView {
  public:
    explicit NetworkView(py::handle spec) {
        const py::tuple weights = spec.attr("weights"), biases = spec.attr("biases"),
                        activations = spec.attr("activations");
        require(!weights.empty() && weights.size() == biases.size() && weights.size() == activations.size(),
                "a network has as many weights as biases and activations, and at least one");
        for (std::size_t l = 0; l < weights.size(); ++l) {
            add_layer(weights[l], biases[l], activations[l].cast<int>());
        }
        const int output = spec.attr("output").cast<int>(), loss = spec.attr("loss").cast<int>();
        require(output >= 0 && output <= 1 && loss >= 0 && loss <= 1, "unknown output or loss");
        network = {layers_.data(),
                   static_cast<Index>(layers_.size()),
                   static_cast<Output>(output),
                   static_cast<Loss>(loss),
                   static_cast<T>(spec.attr("leaky_slope").cast<double>()),
                   spec.attr("weight_decay").cast<double>()};
    }
    NetworkView(const NetworkView&) = delete;
    NetworkView& operator=(const NetworkView&) = delete;

    Index inputs() const { return layers_.front().inputs; }
    Index classes() const { return layers_.back().outputs; }
    const std::vector<Layer<T>>& layers() const { return layers_; }
    Index parameters() const {
        Index count = 0;
        for (const Layer<T>& l : layers_) {
            count += l.outputs * (l.inputs + (l.bias ? 1 : 0));
        }
        return count;
    }

    Network<T> network{};

  private:
    void add_layer(py::handle weight, py::handle bias, int activation) {
        const std::string number = std::to_string(layers_.size() + 1);
        const std::string w_name = "weight " + number, b_name = "bias " + number;
        const py::array w = as_array(weight, w_name.c_str(), 2);
        const Index inputs = w.shape(0), outputs = w.shape(1);
        require(inputs > 0 && outputs > 0, w_name + " of shape " + shape_of(w) + " is empty");
        require(layers_.empty() || layers_.back().outputs == inputs,
                w_name + " of shape " + shape_of(w) + " does not fit the layer before it");
        require(activation >= 0 && activation <= static_cast<int>(Activation::leaky_relu),
                "there is no activation " + std::to_string(activation));
        const T* b_data = nullptr;
        if (!bias.is_none()) {
            const py::array b = as_array(bias, b_name.c_str(), 1);
            require(b.shape(0) == outputs,
                    b_name + " of shape " + shape_of(b) + " does not fit " + w_name + " of shape " + shape_of(w));
            b_data = data_of<T>(b, b_name.c_str());
            kept_.push_back(b);
        }
        layers_.push_back(
            {data_of<T>(w, w_name.c_str()), b_data, inputs, outputs, static_cast<Activation>(activation)});
        kept_.push_back(w);
    }

    std::vector<Layer<T>> layers_;
    std::vector<py::array> kept_;
};

// x (rows, inputs) for a network, with at least one row.
template <class T> py::array as_rows(const NetworkView<T>& net, py::handle object) {
    const py::array x = as_array(object, "x", 2);
    require(x.shape(0) > 0, "x of shape " + shape_of(x) + " has no rows");
    require(x.shape(1) == net.inputs(), "x has " + std::to_string(x.shape(1)) + " columns for a network of " +
                                            std::to_string(net.inputs()) + " inputs");
    return x;
}

template <class T> class BatchView {
  public:
    BatchView(const NetworkView<T>& net, py::handle x, py::handle t) : x_(as_rows(net, x)), t_(as_array(t, "t")) {
        const Index rows = x_.shape(0);
        batch = {data_of<T>(x_, "x"), rows, as_targets<T>(t_, rows, net.classes())};
    }

    Batch<T> batch{};

  private:
    const py::array x_, t_; // kept alive
};

// f(T{}) for the element type of the network's parameters.
template <class F> decltype(auto) with_network_type(py::handle spec, F&& f) {
    const py::tuple weights = spec.attr("weights");
    require(!weights.empty(), "a network has at least one layer");
    const py::object first = weights[0];
    return with_element_type(as_array(first, "weight 1", 2), "weight 1", std::forward<F>(f));
}

py::array forward(py::handle spec, py::handle x_object) {
    return with_network_type(spec, [&](auto zero) -> py::array {
        using T = decltype(zero);
        const NetworkView<T> net(spec);
        const py::array x = as_rows(net, x_object);
        const T* from = data_of<T>(x, "x");
        const Index rows = x.shape(0);
        py::array_t<T> y = empty<T>(rows, net.classes());
        T* to = data_of(y);
        const Release release;
        kernels<T>().forward(net.network, from, rows, to);
        return y;
    });
}

double loss(py::handle spec, py::handle x, py::handle t) {
    return with_network_type(spec, [&](auto zero) {
        using T = decltype(zero);
        const NetworkView<T> net(spec);
        const BatchView<T> data(net, x, t);
        const Release release;
        return kernels<T>().loss(net.network, data.batch);
    });
}

// Uninitialised arrays of the parameters' shapes, in the order W1, b1, W2, b2, …, and where each layer's are.
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

// (loss, arrays)
py::tuple loss_and_gradient(py::handle spec, py::handle x, py::handle t) {
    return with_network_type(spec, [&](auto zero) {
        using T = decltype(zero);
        const NetworkView<T> net(spec);
        const BatchView<T> data(net, x, t);
        const auto [arrays, places] = empty_gradient(net);
        const LayerGradient<T>* to = places.data();
        double loss = 0;
        {
            const Release release;
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
        const std::int64_t* numbers = data_of<std::int64_t>(entries, "entries");
        const Index count = entries.shape(0), parameters = net.parameters();
        for (Index k = 0; k < count; ++k) {
            require(numbers[k] >= 0 && numbers[k] < parameters,
                    "entries[" + std::to_string(k) + "] is " + std::to_string(numbers[k]) + ", which is no number of " +
                        std::to_string(parameters) + " parameters");
        }
        py::array_t<T> differences(count);
        T* to = data_of(differences);
        const Release release;
        kernels<T>().loop(net.network, data.batch, h, numbers, count, to);
        return differences;
    });
}

// The gradient by exact differences, (arrays, diagnostics); diagnostics are the counts of `Diagnostics` and, for each
// layer, whether each of its units met a kink.
py::tuple exact_differences(py::handle spec, py::handle x, py::handle t, double h, bool nodal) {
    return with_network_type(spec, [&](auto zero) {
        using T = decltype(zero);
        const NetworkView<T> net(spec);
        const BatchView<T> data(net, x, t);
        require(h > 0 && static_cast<T>(h) > 0 && std::isfinite(static_cast<T>(h)),
                "h must be positive and finite in " + std::string(py::str(py::dtype::of<T>())));
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
            const Release release;
            (nodal ? kernels<T>().nodal : kernels<T>().incremental)(net.network, data.batch, h, to, d);
        }
        return py::make_tuple(arrays, py::make_tuple(d.loss, d.evaluations, d.fallbacks, d.kinks, kinked));
    });
}

} // namespace

void register_network(py::module_& m) {
    m.def("forward", forward, py::arg("spec"), py::arg("x"));
    m.def("loss", loss, py::arg("spec"), py::arg("x"), py::arg("t"));
    m.def("loss_and_gradient", loss_and_gradient, py::arg("spec"), py::arg("x"), py::arg("t"));
    m.def(
        "incremental",
        [](py::handle spec, py::handle x, py::handle t, double h) { return exact_differences(spec, x, t, h, false); },
        py::arg("spec"), py::arg("x"), py::arg("t"), py::arg("h"));
    m.def(
        "nodal",
        [](py::handle spec, py::handle x, py::handle t, double h) { return exact_differences(spec, x, t, h, true); },
        py::arg("spec"), py::arg("x"), py::arg("t"), py::arg("h"));
    m.def("loop", loop, py::arg("spec"), py::arg("x"), py::arg("t"), py::arg("h"), py::arg("entries"));
}

} // namespace fastnet::bindings
