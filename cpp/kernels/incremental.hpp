// The finite-difference gradient in which each perturbation is carried to the loss as an exact difference.
#pragma once

#include "kernels/gradient.hpp"

namespace fastnet::FASTNET_TARGET {

template <class T>
void incremental(const Network<T>& net, const Batch<T>& batch, double h, const LayerGradient<T>* result,
                 Diagnostics& diagnostics) {
    GradientAccumulator<T> gradient(net, batch, h, 10, result, diagnostics);
    for (Index l = 0; l < net.depth; ++l) {
        gradient.fill(l, T(0));
    }
    gradient.for_each_chunk(
        [&](Index, Index rows) { gradient.add_moves(rows, [](Index, Index) { return UnitMask{UnitMask::all}; }); });
}

} // namespace fastnet::FASTNET_TARGET
