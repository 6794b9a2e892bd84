// Training of a chain of affine layers and activations.
#pragma once

#include "kernels/backprop.hpp"
#include "kernels/nodal.hpp"
#include "kernels/training_run.hpp"

namespace fastnet::FASTNET_TARGET {

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
    const auto differences = training.gradient == GradientKind::nodal ? nodal<T> : incremental<T>;
    run.run([&](const Batch<T>& batch, auto&& finish) {
        if (training.gradient == GradientKind::backprop) {
            return finish(loss_and_gradient(net, batch, gradient.data()));
        }
        Diagnostics diagnostics{0, 0, 0, 0, kinked_views.data()};
        differences(net, batch, training.h, gradient.data(), diagnostics);
        finish(diagnostics.loss);
    });
}

} // namespace fastnet::FASTNET_TARGET
