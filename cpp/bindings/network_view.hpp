// Checks a chain and its data from Python and translates them into what the kernels read.
#pragma once

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arrays.hpp"

namespace fastnet::bindings {

// What a `NetworkSpec` says of every network.
inline Output output_of(py::handle spec) {
    const int output = spec.attr("output").cast<int>();
    require(output >= 0 && output <= static_cast<int>(Output::softmax),
            [&] { return "there is no output " + std::to_string(output); });
    return static_cast<Output>(output);
}

inline Loss loss_of(py::handle spec) {
    const int loss = spec.attr("loss").cast<int>();
    require(loss >= 0 && loss <= static_cast<int>(Loss::absolute_error),
            [&] { return "there is no loss " + std::to_string(loss); });
    return static_cast<Loss>(loss);
}

template <class T> T loss_constant_of(py::handle spec) {
    return static_cast<T>(spec.attr("loss_constant").cast<double>());
}

inline double weight_decay_of(py::handle spec) {
    return spec.attr("weight_decay").cast<double>();
}

inline Activation as_activation(py::handle object) {
    const int activation = object.cast<int>();
    require(activation >= 0 && activation <= static_cast<int>(Activation::elu),
            [&] { return "there is no activation " + std::to_string(activation); });
    return static_cast<Activation>(activation);
}

// A chain of affine layers and activations as the kernels read it. Keeps the arrays alive and the layers at one
// address.
template <class T> class NetworkView {
  public:
    using Element = T;
    using Gradient = LayerGradient<T>;
    static constexpr bool is_chain = true;

    // `layers` are those of `spec`, a `NetworkSpec`: (weight, bias, activation, constant) of each.
    NetworkView(py::handle spec, const py::tuple& layers) {
        layers_.reserve(layers.size());
        parameters_.reserve(2 * layers.size());
        for (std::size_t l = 0; l < layers.size(); ++l) {
            add_layer(layers[l]);
        }
        network = {layers_.data(), static_cast<Index>(layers_.size()), output_of(spec),
                   loss_of(spec),  loss_constant_of<T>(spec),          weight_decay_of(spec)};
    }
    NetworkView(const NetworkView&) = delete;
    NetworkView& operator=(const NetworkView&) = delete;

    Index inputs() const { return layers_.front().inputs; }
    Index classes() const { return layers_.back().outputs; }
    const std::vector<Layer<T>>& parts() const { return layers_; }
    // Layer after layer, the weight before the bias: as in Python.
    const std::vector<py::array>& parameters() const { return parameters_; }

    Network<T> network{};

  private:
    void add_layer(const py::tuple& layer) {
        const std::string number = std::to_string(layers_.size() + 1);
        const std::string w_name = "weight " + number, b_name = "bias " + number;
        require(layer.size() == 4, [&] { return "layer " + number + " must have four items"; });
        const py::array w = as_array(layer[0], w_name.c_str(), 2);
        const py::object bias = layer[1];
        const Index inputs = w.shape(0), outputs = w.shape(1);
        require(inputs > 0 && outputs > 0, [&] { return w_name + " of shape " + shape_of(w) + " is empty"; });
        require(layers_.empty() || layers_.back().outputs == inputs,
                [&] { return w_name + " of shape " + shape_of(w) + " does not fit the layer before it"; });
        const Activation activation = as_activation(layer[2]);
        const T* const w_data = data_of<T>(w, w_name.c_str());
        const T* b_data = nullptr;
        parameters_.push_back(w);
        if (!bias.is_none()) {
            const py::array b = as_array(bias, b_name.c_str(), 1);
            require(b.shape(0) == outputs, [&] {
                return b_name + " of shape " + shape_of(b) + " does not fit " + w_name + " of shape " + shape_of(w);
            });
            b_data = data_of<T>(b, b_name.c_str());
            parameters_.push_back(b);
        }
        layers_.push_back({w_data, b_data, inputs, outputs, activation, static_cast<T>(layer[3].cast<double>())});
    }

    std::vector<Layer<T>> layers_;
    std::vector<py::array> parameters_;
};

// Returns x (rows, inputs), checked for a network, whichever view it has; there is at least one row.
template <class Net> py::array as_rows(const Net& net, py::handle object) {
    const py::array x = as_array(object, "x", 2);
    require(x.shape(0) > 0, [&] { return "x of shape " + shape_of(x) + " has no rows"; });
    require(x.shape(1) == net.inputs(), [&] {
        return "x has " + std::to_string(x.shape(1)) + " columns for a network of " + std::to_string(net.inputs()) +
               " inputs";
    });
    return x;
}

template <class T> class BatchView {
  public:
    template <class Net>
    BatchView(const Net& net, py::handle x, py::handle t)
        : x_(as_rows(net, x)), t_(as_array(t, "t"), x_.shape(0), net.classes()) {
        batch = {data_of<T>(x_, "x"), x_.shape(0), t_.targets};
    }

    Batch<T> batch{};

  private:
    const py::array x_; // kept alive
    const TargetsView<T> t_;
};

// The step of differences, which must be one in the network's type, too.
template <class T> void require_step(double h) {
    require(h > 0 && static_cast<T>(h) > 0 && std::isfinite(static_cast<T>(h)),
            [&] { return "h must be positive and finite in " + std::string(py::str(py::dtype::of<T>())); });
}

// The numbers of parameters of a network.
template <class Net> std::vector<std::int64_t> numbers_of(const Net& net, const py::array& entries) {
    Index parameters = 0;
    for (const py::array& p : net.parameters()) {
        parameters += p.size();
    }
    return checked_copy(entries, "entries", [&](std::size_t k, std::int64_t number) {
        require(number >= 0 && number < parameters, [&] {
            return "entries[" + std::to_string(k) + "] is " + std::to_string(number) +
                   ", which is not the number of one of " + std::to_string(parameters) + " parameters";
        });
    });
}

} // namespace fastnet::bindings
