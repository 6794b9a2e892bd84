// The kernels of networks of stages, which `stages.cpp` compiles: `stage_network.hpp` says what they do.
#pragma once

#include "core/kernel_table.hpp"

namespace fastnet::FASTNET_TARGET {

template <class T> void stage_forward(const StageNetwork<T>& net, const Batch<T>& batch, T* y);
template <class T> double stage_loss(const StageNetwork<T>& net, const Batch<T>& batch);
template <class T>
double stage_loss_and_gradient(const StageNetwork<T>& net, const Batch<T>& batch, const StageGradient<T>* gradient,
                               T* d_x, bool counts);
template <class T> void stage_units(const StageNetwork<T>& net, const T* x, Index rows, bool counts, T* units);
template <class T>
void stage_backward(const StageNetwork<T>& net, const T* x, Index rows, const T* d, const StageGradient<T>* gradient,
                    T* d_x);
template <class T>
void stage_loop(const StageNetwork<T>& net, const Batch<T>& batch, double h, const std::int64_t* entries, Index count,
                T* differences);
template <class T>
void stage_differences(const StageNetwork<T>& net, const Batch<T>& batch, double h, bool nodal, bool counts,
                       const StageGradient<T>* gradient, const StageKinks* kinks, Diagnostics& diagnostics);
template <class T>
void stage_train(const StageNetwork<T>& net, const StageNetwork<T>& before, const Training<T>& training);

template <class T>
inline constexpr StageKernels<T> stage_kernels{
    .forward = stage_forward<T>,
    .loss = stage_loss<T>,
    .loss_and_gradient = stage_loss_and_gradient<T>,
    .units = stage_units<T>,
    .backward = stage_backward<T>,
    .loop = stage_loop<T>,
    .differences = stage_differences<T>,
    .train = stage_train<T>,
};

} // namespace fastnet::FASTNET_TARGET
