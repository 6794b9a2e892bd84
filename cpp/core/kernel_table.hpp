// What an instruction set offers: one table of functions for each element type.
#pragma once

#include "core/stages.hpp"
#include "core/training.hpp"

namespace fastnet {

// Shapes are in the files of `kernels/` that define the functions of these names: stage_forward and so on.
template <class T> struct StageKernels {
    void (*forward)(const StageNetwork<T>& net, const Batch<T>& batch, T* y);
    double (*loss)(const StageNetwork<T>& net, const Batch<T>& batch);
    double (*loss_and_gradient)(const StageNetwork<T>& net, const Batch<T>& batch, const StageGradient<T>* gradient,
                                T* d_x, bool counts);
    void (*units)(const StageNetwork<T>& net, const T* x, Index rows, bool counts, T* units);
    void (*backward)(const StageNetwork<T>& net, const T* x, Index rows, const T* d, const StageGradient<T>* gradient,
                     T* d_x);
    void (*loop)(const StageNetwork<T>& net, const Batch<T>& batch, double h, const std::int64_t* entries, Index count,
                 T* differences);
    void (*differences)(const StageNetwork<T>& net, const Batch<T>& batch, double h, bool nodal, bool counts,
                        const StageGradient<T>* gradient, const StageKinks* kinks, Diagnostics& diagnostics);
    void (*train)(const StageNetwork<T>& net, const StageNetwork<T>& before, const Training<T>& training);
};

// The same for chains of affine layers and activations, and for single functions.
template <class T> struct Kernels {
    void (*matmul)(Matrix<T> a, Matrix<T> b, T* c, Index ldc);
    void (*add_bias)(const T* x, const T* b, T* to, Index rows, Index columns);
    void (*exp)(const T* x, T* to, Index n);
    void (*activation)(Activation kind, T constant, const T* x, T* to, Index n);
    void (*activation_derivative)(Activation kind, T constant, const T* x, T* to, Index n);
    void (*softmax)(const T* x, T* to, Index rows, Index columns);
    double (*mean_loss)(Loss kind, T constant, const T* y, const Targets<T>& targets, Index rows, Index classes);
    void (*forward)(const Network<T>& net, const Batch<T>& batch, T* y);
    double (*loss)(const Network<T>& net, const Batch<T>& batch);
    double (*loss_and_gradient)(const Network<T>& net, const Batch<T>& batch, const LayerGradient<T>* result);
    void (*loop)(const Network<T>& net, const Batch<T>& batch, double h, const std::int64_t* entries, Index count,
                 T* differences);
    void (*incremental)(const Network<T>& net, const Batch<T>& batch, double h, const LayerGradient<T>* result,
                        Diagnostics& diagnostics);
    void (*nodal)(const Network<T>& net, const Batch<T>& batch, double h, const LayerGradient<T>* result,
                  Diagnostics& diagnostics);
    void (*hessian_diagonal)(const Network<T>& net, const Batch<T>& batch, double h, const LayerGradient<T>* result,
                             Diagnostics& diagnostics);
    void (*train)(const Network<T>& net, const Training<T>& training);
    Index (*pack_row)(const T* x, Index columns, std::uint64_t* masks, T* nonzeros);
    bool (*all_finite)(const T* x, Index n);
    StageKernels<T> stages;
};

struct KernelTable {
    const char* isa;
    Kernels<float> f32;
    Kernels<double> f64;
};

} // namespace fastnet
