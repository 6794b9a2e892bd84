// The description of a network of stages, its gradient and its state, as plain pointers and counts.
//
// A chain of affine layers and activations alone is a `Network` (core/network.hpp), which has kernels of its own.
#pragma once

#include "core/network.hpp"

namespace fastnet {

// The numbers are those of `fastnet.backends.spec`.
enum class StageKind : int {
    affine = 0,
    activation = 1,
    batch_norm = 2,
    dropout = 3,
    convolution = 4,
    max_pooling = 5,
    average_pooling = 6,
};

// How windows lie on an image (channels, height, width): they are `stride` apart, and the image has a border of `pad`
// on either side. There are out_height x out_width of them.
struct Windows {
    Index channels, height, width;
    Index window_height, window_width;
    Index stride_y, stride_x, pad_y, pad_x;
    Index out_height, out_width;

    Index positions() const { return out_height * out_width; }
};

// What one stage does to each row of `inputs` units, which become `outputs` units. Images lie in a row as (channels,
// height, width). Each kind of stage uses the fields of its group.
template <class T> struct Stage {
    StageKind kind;
    Index inputs, outputs;

    // affine: weight (inputs, outputs); convolution: weight (filters, channels, window_height, window_width);
    // batch_norm: gamma and beta (columns). bias may be null for the first two.
    const T* weight;
    const T* bias;

    Activation activation; // activation
    T constant;            // of the activation: a leaky ReLU's slope, an ELU's alpha

    // batch_norm: a column is `positions` neighbouring units of all rows. A training pass mixes its statistics into the
    // running ones (columns), and counts itself in `passes`, which is null where the statistics were given.
    Index positions;
    T* running_mean;
    T* running_variance;
    std::int64_t* passes;
    double momentum;

    // dropout: the mask of a training pass, or the generator's key and the number of the next mask, which a training
    // pass counts; one of the two is null. In inference, units are multiplied by `scale`.
    double ratio;
    std::uint64_t* random; // (3)
    const T* mask;         // (rows, units)
    T scale;

    Windows windows; // convolution and pooling
};

template <class T> struct StageNetwork {
    const Stage<T>* stages;
    Index depth;
    Output output;
    Loss loss;
    T loss_constant;     // Huber's delta
    double weight_decay; // lambda of the penalty lambda/2 * (sum of all squared weights of affine and convolution)
};

// Where the gradient with respect to a stage's weight and bias goes, in their shapes; null where it has none.
template <class T> struct StageGradient {
    T* weight;
    T* bias;
};

// Where the differences say which parameters met a kink on their way, in the shapes of the weight and the bias; null
// where nobody asks.
struct StageKinks {
    bool* weight;
    bool* bias;
};

} // namespace fastnet
