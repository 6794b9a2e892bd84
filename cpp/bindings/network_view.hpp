// Checks a network and its data from Python and translates them into what the kernels read.
#pragma once

#include <cmath>
#include <string>
#include <utility>
#include <vector>

#include "bindings/arrays.hpp"

namespace fastnet::bindings {

// A `NetworkSpec` as the kernels read it. Keeps the arrays alive and the layers at one address.
template <class T> class NetworkView {
  public:
    explicit NetworkView(py::handle spec) {
        const py::tuple weights = spec.attr("weights"), biases = spec.attr("biases"),
                        activations = spec.attr("activations"), constants = spec.attr("constants");
        require(!weights.empty() && weights.size() == biases.size() && weights.size() == activations.size() &&
                    weights.size() == constants.size(),
                "a network has as many weights as biases, activations and constants, and at least one");
        for (std::size_t l = 0; l < weights.size(); ++l) {
            add_layer(weights[l], biases[l], activations[l].cast<int>(), constants[l].cast<double>());
        }
        const int output = spec.attr("output").cast<int>(), loss = spec.attr("loss").cast<int>();
        require(output >= 0 && output <= 1 && loss >= 0 && loss <= static_cast<int>(Loss::absolute_error),
                "unknown output or loss");
        network = {layers_.data(),
                   static_cast<Index>(layers_.size()),
                   static_cast<Output>(output),
                   static_cast<Loss>(loss),
                   static_cast<T>(spec.attr("loss_constant").cast<double>()),
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
    void add_layer(py::handle weight, py::handle bias, int activation, double constant) {
        const std::string number = std::to_string(layers_.size() + 1);
        const std::string w_name = "weight " + number, b_name = "bias " + number;
        const py::array w = as_array(weight, w_name.c_str(), 2);
        const Index inputs = w.shape(0), outputs = w.shape(1);
        require(inputs > 0 && outputs > 0, [&] { return w_name + " of shape " + shape_of(w) + " is empty"; });
        require(layers_.empty() || layers_.back().outputs == inputs,
                [&] { return w_name + " of shape " + shape_of(w) + " does not fit the layer before it"; });
        require(activation >= 0 && activation <= static_cast<int>(Activation::elu),
                [&] { return "there is no activation " + std::to_string(activation); });
        const T* b_data = nullptr;
        if (!bias.is_none()) {
            const py::array b = as_array(bias, b_name.c_str(), 1);
            require(b.shape(0) == outputs, [&] {
                return b_name + " of shape " + shape_of(b) + " does not fit " + w_name + " of shape " + shape_of(w);
            });
            b_data = data_of<T>(b, b_name.c_str());
            kept_.push_back(b);
        }
        layers_.push_back({data_of<T>(w, w_name.c_str()), b_data, inputs, outputs, static_cast<Activation>(activation),
                           static_cast<T>(constant)});
        kept_.push_back(w);
    }

    std::vector<Layer<T>> layers_;
    std::vector<py::array> kept_;
};

// Returns x (rows, inputs), checked for a network or one of stages; there is at least one row.
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

// The numbers of parameters, of which there are `parameters`.
inline std::vector<std::int64_t> numbers_of(const py::array& entries, Index parameters) {
    return checked_copy(entries, "entries", [&](std::size_t k, std::int64_t number) {
        require(number >= 0 && number < parameters, [&] {
            return "entries[" + std::to_string(k) + "] is " + std::to_string(number) +
                   ", which is not the number of one of " + std::to_string(parameters) + " parameters";
        });
    });
}

// Calls f(T{}) with the element type T of the network's parameters.
template <class F> decltype(auto) with_network_type(py::handle spec, F&& f) {
    const py::tuple weights = spec.attr("weights");
    require(!weights.empty(), "a network has at least one layer");
    const py::object first = weights[0];
    return with_element_type(as_array(first, "weight 1", 2), "weight 1", std::forward<F>(f));
}

} // namespace fastnet::bindings
