// Checks the stages of a network from Python and translates them into what the kernels read.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "bindings/network_view.hpp"
#include "core/dispatch.hpp"
#include "core/stages.hpp"

namespace fastnet::bindings {

// `object` as an array that can be changed in place.
template <class T> T* writable(py::handle object, const std::string& name, Index size) {
    const py::array array = as_array(object, name.c_str());
    require(array.size() == size,
            [&] { return name + " has " + std::to_string(array.size()) + " elements, not " + std::to_string(size); });
    require(array.writeable(), [&] { return name + " is read-only"; });
    return const_cast<T*>(data_of<T>(array, name.c_str()));
}

// A `NetworkSpec` of any stages as the kernels read it. Keeps the arrays alive and the stages at one address.
template <class T> class StageView {
  public:
    using Element = T;
    using Gradient = StageGradient<T>;
    static constexpr bool is_chain = false;

    explicit StageView(py::handle spec) {
        const py::tuple stages = spec.attr("stages");
        require(!stages.empty(), "a network has at least one stage");
        for (const py::handle stage : stages) {
            add(stage);
        }
        network = {stages_.data(), static_cast<Index>(stages_.size()), output_of(spec),
                   loss_of(spec),  loss_constant_of<T>(spec),          weight_decay_of(spec)};
    }
    StageView(const StageView&) = delete;
    StageView& operator=(const StageView&) = delete;

    Index inputs() const { return stages_.front().inputs; }
    Index classes() const { return stages_.back().outputs; }
    const std::vector<Stage<T>>& parts() const { return stages_; }
    // Stage after stage, the weight before the bias: as in Python.
    const std::vector<py::array>& parameters() const { return parameters_; }

    // Raises unless the masks that are given are those of a batch of so many rows.
    void require_masks_of(Index rows) const {
        for (const Mask& mask : masks_) {
            require(mask.array.shape(0) == rows && mask.array.shape(1) == mask.units, [&] {
                return mask.name + " has shape " + shape_of(mask.array) + ", not (" + std::to_string(rows) + ", " +
                       std::to_string(mask.units) + ")";
            });
        }
    }
    bool has_masks() const { return !masks_.empty(); }

    StageNetwork<T> network{};

  private:
    struct Mask {
        std::string name;
        py::array array;
        Index units;
    };

    void add(py::handle object) {
        const std::string name = "stage " + std::to_string(stages_.size() + 1);
        Stage<T> stage{};
        const int kind = object.attr("kind").cast<int>();
        require(kind >= 0 && kind <= static_cast<int>(StageKind::average_pooling),
                [&] { return name + ": there is no kind " + std::to_string(kind); });
        stage.kind = static_cast<StageKind>(kind);
        stage.inputs = object.attr("inputs").cast<Index>();
        stage.outputs = object.attr("outputs").cast<Index>();
        require(stage.inputs > 0 && stage.outputs > 0, [&] { return name + " has no units"; });
        require(stages_.empty() || stages_.back().outputs == stage.inputs,
                [&] { return name + " does not fit the stage before it"; });
        switch (stage.kind) {
        case StageKind::affine:
            add_parameters(object, name, stage, {stage.inputs, stage.outputs}, stage.outputs);
            break;
        case StageKind::activation:
            stage.activation = as_activation(object.attr("activation"));
            stage.constant = static_cast<T>(object.attr("constant").cast<double>());
            break;
        case StageKind::batch_norm:
            add_batch_norm(object, name, stage);
            break;
        case StageKind::dropout:
            add_dropout(object, name, stage);
            break;
        default:
            add_windows(object, name, stage);
        }
        const bool same = stage.kind == StageKind::activation || stage.kind == StageKind::dropout ||
                          stage.kind == StageKind::batch_norm;
        require(!same || stage.inputs == stage.outputs, [&] { return name + " has as many outputs as inputs"; });
        stages_.push_back(stage);
    }

    void add_batch_norm(py::handle object, const std::string& name, Stage<T>& stage) {
        stage.positions = object.attr("positions").cast<Index>();
        require(stage.positions > 0 && stage.outputs % stage.positions == 0,
                [&] { return name + ": its positions do not fit its units"; });
        const Index columns = stage.outputs / stage.positions;
        add_parameters(object, name, stage, {columns}, columns);
        require(stage.bias != nullptr, [&] { return name + " has no beta"; });
        stage.running_mean = keep<T>(object.attr("running_mean"), name + "'s running_mean", columns);
        stage.running_variance = keep<T>(object.attr("running_var"), name + "'s running_var", columns);
        const py::object passes = object.attr("passes");
        stage.passes = passes.is_none() ? nullptr : keep<std::int64_t>(passes, name + "'s passes", 1);
        stage.momentum = object.attr("momentum").cast<double>();
    }

    void add_dropout(py::handle object, const std::string& name, Stage<T>& stage) {
        stage.scale = static_cast<T>(object.attr("scale").cast<double>());
        const py::object given = object.attr("mask");
        if (given.is_none()) {
            stage.ratio = object.attr("ratio").cast<double>();
            require(stage.ratio >= 0 && stage.ratio < 1, [&] { return name + ": the ratio is out of range"; });
            stage.random = keep<std::uint64_t>(object.attr("random"), name + "'s random", 3);
            return;
        }
        const std::string mask_name = name + "'s mask";
        const py::array mask = as_array(given, mask_name.c_str(), 2);
        stage.mask = data_of<T>(mask, mask_name.c_str());
        masks_.push_back({mask_name, mask, stage.outputs});
    }

    void add_windows(py::handle object, const std::string& name, Stage<T>& stage) {
        const py::object from = object.attr("windows");
        const auto number = [&](const char* attribute) {
            const Index n = from.attr(attribute).template cast<Index>(); // what follows does not overflow
            require(n >= 0 && n < (Index{1} << 20), [&] { return name + ": its windows do not fit its image"; });
            return n;
        };
        Windows& w = stage.windows;
        w = {number("channels"),
             number("height"),
             number("width"),
             number("window_height"),
             number("window_width"),
             number("stride_y"),
             number("stride_x"),
             number("pad_y"),
             number("pad_x"),
             0,
             0};
        const bool valid = w.channels > 0 && w.window_height > 0 && w.window_width > 0 && w.stride_y > 0 &&
                           w.stride_x > 0 && w.pad_y < w.window_height && w.pad_x < w.window_width &&
                           w.height + 2 * w.pad_y >= w.window_height && w.width + 2 * w.pad_x >= w.window_width &&
                           w.channels * w.height * w.width == stage.inputs;
        require(valid, [&] { return name + ": its windows do not fit its image"; });
        w.out_height = (w.height + 2 * w.pad_y - w.window_height) / w.stride_y + 1;
        w.out_width = (w.width + 2 * w.pad_x - w.window_width) / w.stride_x + 1;
        require(stage.outputs % w.positions() == 0, [&] { return name + ": its outputs do not fit its windows"; });
        const Index filters = stage.outputs / w.positions();
        if (stage.kind == StageKind::convolution) {
            add_parameters(object, name, stage, {filters, w.channels, w.window_height, w.window_width}, filters);
        } else {
            require(filters == w.channels, [&] { return name + ": its outputs do not fit its channels"; });
        }
    }

    void add_parameters(py::handle object, const std::string& name, Stage<T>& stage, const std::vector<Index>& shape,
                        Index outputs) {
        const std::string w_name = name + "'s weight", b_name = name + "'s bias";
        const py::array w = as_array(object.attr("weight"), w_name.c_str(), static_cast<py::ssize_t>(shape.size()));
        require(std::vector<Index>(w.shape(), w.shape() + w.ndim()) == shape,
                [&] { return w_name + " has shape " + shape_of(w); });
        stage.weight = data_of<T>(w, w_name.c_str());
        parameters_.push_back(w);
        if (const py::object bias = object.attr("bias"); !bias.is_none()) {
            const py::array b = as_array(bias, b_name.c_str(), 1);
            require(b.shape(0) == outputs, [&] { return b_name + " has shape " + shape_of(b); });
            stage.bias = data_of<T>(b, b_name.c_str());
            parameters_.push_back(b);
        }
    }

    template <class X> X* keep(const py::object& object, const std::string& name, Index size) {
        kept_.push_back(object);
        return writable<X>(object, name, size);
    }

    std::vector<Stage<T>> stages_;
    std::vector<py::array> parameters_;
    std::vector<py::object> kept_;
    std::vector<Mask> masks_;
};

// Calls f with a `NetworkSpec` as its stages.
template <class F> decltype(auto) with_stages(py::handle spec, F&& f) {
    return described([&]() -> decltype(auto) {
        const py::dtype dtype = spec.attr("dtype");
        if (dtype.equal(py::dtype::of<float>())) {
            return f(StageView<float>(spec));
        }
        require(dtype.equal(py::dtype::of<double>()),
                [&] { return "a network is float32 or float64, not " + std::string(py::str(dtype)); });
        return f(StageView<double>(spec));
    });
}

// The kernels that compute the network.
template <class T> const Kernels<T>& kernels_of(const NetworkView<T>&) {
    return kernels<T>();
}
template <class T> const StageKernels<T>& kernels_of(const StageView<T>&) {
    return kernels<T>().stages;
}

// Calls f with a `NetworkSpec` as the kernels take it that compute it: chains have faster ones of their own. This is
// the one place that chooses.
template <class F> decltype(auto) with_network(py::handle spec, F&& f) {
    return described([&]() -> decltype(auto) {
        const py::tuple layers = spec.attr("layers");
        if (layers.empty()) {
            return with_stages(spec, std::forward<F>(f));
        }
        const py::tuple first = layers[0];
        require(!first.empty(), "layer 1 has no weight");
        return with_element_type(as_array(first[0], "weight 1", 2), "weight 1", [&](auto zero) -> decltype(auto) {
            return f(NetworkView<decltype(zero)>(spec, layers));
        });
    });
}

} // namespace fastnet::bindings
