// Training of a chain of affine layers and activations.
#pragma once

#include "kernels/backprop.hpp"
#include "kernels/incremental.hpp"
#include "kernels/nodal.hpp"
#include "kernels/training_run.hpp"

namespace fastnet::FASTNET_TARGET {

// Makes the optimizer's step group by group of a weight's rows, while their gradient is in the cache, or in registers.
template <class T> struct StepByGroups {
    void weight(Index l, Index first, Index count) const {
        const Index outputs = net.layers[l].outputs;
        step.change(parameter[l], first * outputs, count * outputs);
        weights.renew(l, first, count);
    }
    void bias(Index l) const { step.change(parameter[l] + 1, 0, net.layers[l].outputs); }
    template <class F> void descend(Index first, F&& multiply) const {
        weights.descend(step.value(parameter[0]), step.rate(), first, multiply);
    }

    const Network<T>& net;
    const TrainingWeights<T>& weights;
    const typename TrainingRun<T>::Step& step;
    const Index* parameter; // (layers): the number of each layer's weight
    bool descends;          // whether the step is `rate` times the gradient, and no more
};

template <class T>
void train_by_backprop(const Network<T>& net, TrainingRun<T>& run, const LayerGradient<T>* gradient) {
    const Index rows = min_index(run.most_rows(), chunk_rows);
    const Source<T> source = run.source(nullptr, 0);
    const bool narrow = 2 * padded<T>(net.layers[0].outputs) <= most_vectors * lanes<T>; // columns go in pairs
    Inputs<T> inputs = make_inputs<T>(net, nullptr, run.most_rows(), rows, &source, narrow);
    Backprop<T> backprop(net, inputs, run.most_rows());
    const TrainingWeights<T> weights(net, inputs.sparse, backprop.packed_rows());
    const Array<Index> parameter(net.depth);
    for (Index l = 0, k = 0; l < net.depth; ++l, ++k) {
        parameter[l] = k;
        k += net.layers[l].bias != nullptr;
    }
    run.run([&](const Batch<T>& batch, auto& step) {
        if (!step.accepts(backprop.begin(batch, weights, gradient))) {
            return;
        }
        const Uninterrupted whole;
        backprop.finish(gradient, StepByGroups<T>{net, weights, step, parameter.data(), run.rule() == Rule::sgd});
        step.finish();
    });
}

template <class T> void train(const Network<T>& net, const Training<T>& training) {
    TrainingRun<T> run(training, net.layers[0].inputs, classes_of(net));
    const Array<LayerGradient<T>> gradient(net.depth);
    FixedList<Array<bool>> kinked(net.depth);
    const Array<bool*> kinked_views(net.depth);
    for (Index l = 0, k = 0; l < net.depth; ++l) {
        T* const weight = run.gradient(k++);
        gradient[l] = {weight, net.layers[l].bias ? run.gradient(k++) : nullptr};
        kinked_views[l] = kinked.add(net.layers[l].outputs).zeroed();
    }
    if (training.gradient == GradientKind::backprop) {
        return train_by_backprop(net, run, gradient.data());
    }
    const auto differences = training.gradient == GradientKind::nodal ? nodal<T> : incremental<T>;
    run.run([&](const Batch<T>& batch, auto& step) {
        Diagnostics diagnostics{0, 0, 0, 0, kinked_views.data()};
        differences(net, batch, training.h, gradient.data(), diagnostics);
        step(diagnostics.loss);
    });
}

} // namespace fastnet::FASTNET_TARGET
