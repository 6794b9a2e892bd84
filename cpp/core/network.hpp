// The description of a network, its data and its gradient, as plain pointers and counts.
//
// Every kernel of every instruction set reads these structures; they own nothing and have no member functions,
// so that no code is shared between two instruction sets.
#pragma once

#include <cstddef>
#include <cstdint>

namespace fastnet {

using Index = std::ptrdiff_t;

// The numbers are those of `fastnet.backends.spec`.
enum class Activation : int { identity = 0, step = 1, sigmoid = 2, tanh = 3, relu = 4, leaky_relu = 5 };
enum class Output : int { identity = 0, softmax = 1 };
enum class Loss : int { cross_entropy = 0, mean_squared_error = 1 };

// A strided matrix: element (i, j) is data[i * row_stride + j * column_stride]. One of the strides is 1.
template <class T> struct Matrix {
    const T* data;
    Index rows, columns;
    Index row_stride, column_stride;
};

// z = activation(z_prev . weight + bias): weight is (inputs, outputs) row-major; bias is (outputs) or null.
template <class T> struct Layer {
    const T* weight;
    const T* bias;
    Index inputs, outputs;
    Activation activation;
    T constant; // of the activation: a leaky ReLU's slope, 0 where it has none
};

template <class T> struct Network {
    const Layer<T>* layers;
    Index depth;
    Output output;
    Loss loss;
    double weight_decay; // lambda of the penalty lambda/2 * (sum of all squared weights), 0 for none
};

// What each row should give: class labels (rows), or target rows (rows, classes); the other pointer is null.
template <class T> struct Targets {
    const std::int64_t* labels;
    const T* rows;
};

template <class T> struct Source; // see core/dataset.hpp

template <class T> struct Batch {
    const T* x; // (rows, inputs) row-major
    Index rows;
    Targets<T> targets;
    const Source<T>* source = nullptr; // of x, where that is still to be filled
};

// Where one layer's gradient goes: weight (inputs, outputs), bias (outputs) or null.
template <class T> struct LayerGradient {
    T* weight;
    T* bias;
};

// What a finite-difference gradient tells about itself.
struct Diagnostics {
    double loss;              // at the parameters themselves
    std::int64_t evaluations; // of the loss's change, by one perturbation of one row
    std::int64_t fallbacks;   // (row, unit) pairs whose interpolation missed, or met a kink: done one by one
    std::int64_t kinks;       // those of them that met a kink
    bool* const* kinked;      // for each layer and unit, whether a perturbation took any unit across a kink
};

} // namespace fastnet
