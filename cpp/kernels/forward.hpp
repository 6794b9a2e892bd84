// The forward pass of a network over a block of rows, layer by layer, to its answers and its loss.
#pragma once

#include "kernels/inputs.hpp"
#include "kernels/losses.hpp"
#include "kernels/weights.hpp"

namespace fastnet::FASTNET_TARGET {

// Rows that one task carries through the network: enough to reuse the weights, few enough to stay in the cache.
inline constexpr Index block_rows = 64;

// The stride of a row of units in a workspace: whole vectors.
template <class T> FASTNET_INLINE Index padded(Index units) {
    return round_up(units, lanes<T>);
}

template <class T> Index widest_layer(const Network<T>& net) {
    Index widest = 0;
    for (Index l = 0; l < net.depth; ++l) {
        widest = net.layers[l].outputs > widest ? net.layers[l].outputs : widest;
    }
    return widest;
}

template <class T> double multiply_adds(const Network<T>& net) {
    double count = 0;
    for (Index l = 0; l < net.depth; ++l) {
        count += static_cast<double>(net.layers[l].inputs) * static_cast<double>(net.layers[l].outputs);
    }
    return count;
}

template <class T> Index classes_of(const Network<T>& net) {
    return net.layers[net.depth - 1].outputs;
}

// a -> z = phi(a + bias) in place, (rows, outputs; padded). keep(phi, i, j, a) sees each vector of pre-activations.
template <class T, class Keep> void activate(const Network<T>& net, Index layer, Index rows, T* units, Keep&& keep) {
    const Layer<T>& l = net.layers[layer];
    const Index outputs = l.outputs, stride = padded<T>(outputs); // the compiler can't know that no store changes them
    const T* const bias = l.bias;
    with_activation(l.activation, l.constant, [&, outputs, stride, bias, units, rows](auto phi) {
        for (Index i = 0; i < rows; ++i) {
            for_each_vector<T>(outputs, [&](Index j, Index count) {
                T* at = units + i * stride + j;
                const Vec<T> sum = load(at, count); // zeros behind the units, whatever stands there
                const Vec<T> a = bias ? sum + load(bias + j, count) : sum;
                keep(phi, i, j, a);
                store(at, phi.value(a));
            });
        }
    });
}

// A block of `count` rows from `first` on through the layers of the network. The nonzeros of sparse inputs are in the
// slots from `slot` on. z(l) is where layer l's units (count, padded) go. keep(l) is a function whose calls (phi, i, j,
// a) see its pre-activations, a vector at a time.
template <class T, class Z, class Keep>
void forward_units(const Network<T>& net, const Weights<T>& weights, const Inputs<T>& inputs, Index first, Index count,
                   Index slot, Z&& z, Keep&& keep) {
    for (Index l = 0; l < net.depth; ++l) {
        const Layer<T>& layer = net.layers[l];
        const Index stride = padded<T>(layer.outputs);
        T* units = z(l);
        if (l > 0) {
            weights.all->multiply(l, rows_of<T>(z(l - 1), count, layer.inputs, padded<T>(layer.inputs)), units, stride);
        } else if (weights.first) {
            multiply_nonzeros(inputs.nonzeros, slot, count, *weights.first, units);
        } else {
            weights.all->multiply(0, inputs.rows(first, count), units, stride);
        }
        activate(net, l, count, units, keep(l));
    }
}

// z -> y (count, padded classes): the network's answers from its last layer's units. Both may be the same array.
template <class T> void answer_rows(const Network<T>& net, Index count, const T* z, T* y) {
    const Index classes = classes_of(net), stride = padded<T>(classes);
    if (net.output == Output::softmax) {
        softmax_rows(z, y, stride, count, classes);
    } else if (y != z) {
        std::memcpy(y, z, static_cast<std::size_t>(count * stride) * sizeof(T));
    }
}

// A block's forward pass to the network's answers, which replace the last layer's units.
template <class T, class Z, class Keep>
void forward_block(const Network<T>& net, const Weights<T>& weights, const Inputs<T>& inputs, Index first, Index count,
                   Index slot, Z&& z, Keep&& keep) {
    forward_units(net, weights, inputs, first, count, slot, z, keep);
    answer_rows<T>(net, count, z(net.depth - 1), z(net.depth - 1));
}

inline constexpr auto keep_nothing = [](Index) { return [](auto&&...) {}; };

// Two buffers that the layers of a block write in turn.
template <class T> class PingPong {
  public:
    explicit PingPong(const Network<T>& net, Index rows = block_rows)
        : size_(rows * padded<T>(widest_layer(net))), data_(2 * size_) {}
    T* operator()(Index layer) const { return data_.data() + layer % 2 * size_; }

  private:
    Index size_;
    Array<T> data_;
};

// How many rows of a batch one task takes: a share for each worker, at most a block.
FASTNET_INLINE Index rows_per_task(Index rows, int workers) {
    return min_index(block_rows, round_up((rows + workers - 1) / workers, tile_rows / 2));
}

// f(first, count, y) for each block of a batch's rows: y (count, padded classes) is the network's answer. A source has
// the nonzeros of x, which is filled.
template <class T, class F> void for_each_answer(const Network<T>& net, const Batch<T>& batch, F&& f) {
    const Index rows = batch.rows;
    const int workers = workers_for(multiply_add * multiply_adds(net) * static_cast<double>(rows));
    Inputs<T> inputs = make_inputs(net, batch.x, rows, workers * block_rows, batch.source);
    PerWorkerWeights<T> weights(net, inputs.sparse, rows, workers);
    FixedList<PingPong<T>> units(workers);
    for (int w = 0; w < workers; ++w) {
        units.add(net);
    }
    const Index share = rows_per_task(rows, workers);
    parallel_for((rows + share - 1) / share, workers, [&](Index task, int worker) {
        const Index first = task * share, count = min_index(share, rows - first);
        const Index slot = worker * block_rows;
        inputs.load_rows(first, count, slot, false);
        forward_block(net, weights.prepare(worker), inputs, first, count, slot, units[worker], keep_nothing);
        f(first, count, units[worker](net.depth - 1));
    });
}

// x (rows, inputs) of the batch -> y (rows, classes)
template <class T> void forward(const Network<T>& net, const Batch<T>& batch, T* y) {
    const Index classes = classes_of(net);
    for_each_answer(net, batch, [&](Index first, Index count, const T* answer) {
        for (Index i = 0; i < count; ++i) {
            std::memcpy(y + (first + i) * classes, answer + i * padded<T>(classes),
                        static_cast<std::size_t>(classes) * sizeof(T));
        }
    });
}

// The losses of a block's rows, from its answers y (count, padded).
template <class T>
void row_losses(const Network<T>& net, const Targets<T>& targets, Index first, Index count, const T* y, T* losses) {
    const Index classes = classes_of(net);
    if (net.loss == Loss::cross_entropy && targets.labels) {
        for (Index i = 0; i < count; ++i) {
            losses[i] = y[i * padded<T>(classes) + static_cast<Index>(targets.labels[first + i])];
        }
        return for_each_vector<T>(count, [&](Index i, Index n) {
            store(losses + i, CrossEntropy<T>::of_probability(load(losses + i, n)), n);
        });
    }
    with_loss<T>(net.loss, net.loss_constant, [&](auto loss) {
        for (Index i = 0; i < count; ++i) {
            losses[i] = loss.value(y + i * padded<T>(classes), target_of(targets, first + i, classes), classes);
        }
    });
}

// Compiled once for all kernels, in shared.cpp.
extern template void row_losses(const Network<float>&, const Targets<float>&, Index, Index, const float*, float*);
extern template void row_losses(const Network<double>&, const Targets<double>&, Index, Index, const double*, double*);

// dz (count, padded) = the derivative of the mean loss of `rows` rows with respect to the last layer's units, from a
// block's answers y (count, padded).
template <class T>
void derive_losses(const Network<T>& net, const Targets<T>& targets, Index first, Index count, const T* y, Index rows,
                   T* dz) {
    const Index classes = classes_of(net), stride = padded<T>(classes);
    with_loss<T>(net.loss, net.loss_constant, [&](auto loss) {
        for (Index i = 0; i < count; ++i, y += stride, dz += stride) {
            derive_row(loss, net.output, y, target_of(targets, first + i, classes), classes, static_cast<T>(rows), dz);
        }
    });
}

// `total` plus the rows' losses, added in their order.
template <class T> double sum_of(const T* losses, Index rows, double total = 0) {
    for (Index i = 0; i < rows; ++i) {
        total += static_cast<double>(losses[i]);
    }
    return total;
}

// The mean of the rows' losses, from their sum, plus the penalty: lambda/2 times the sum of all squared weights. It is
// one function that is never inlined, so that every caller gets the same bits.
template <class T> [[gnu::noinline]] double mean_loss(const Network<T>& net, double losses, Index rows) {
    const double mean = losses / static_cast<double>(rows);
    if (net.weight_decay == 0) {
        return mean;
    }
    constexpr Index chains = 16; // sums that the processor can add to side by side
    double squares[chains] = {};
    for (Index l = 0; l < net.depth; ++l) {
        const Layer<T>& layer = net.layers[l];
        const Index size = layer.inputs * layer.outputs;
        for (Index i = 0; i < size; i += chains) {
            for (Index c = 0; c < min_index(chains, size - i); ++c) {
                const double w = static_cast<double>(layer.weight[i + c]);
                squares[c] += w * w;
            }
        }
    }
    double total = 0;
    for (const double of_chain : squares) {
        total += of_chain;
    }
    return mean + net.weight_decay / 2 * total;
}

template <class T> double loss(const Network<T>& net, const Batch<T>& batch) {
    Array<T> losses(batch.rows);
    for_each_answer(net, batch, [&](Index first, Index count, const T* y) {
        row_losses(net, batch.targets, first, count, y, losses.data() + first);
    });
    return mean_loss(net, sum_of(losses.data(), batch.rows), batch.rows);
}

} // namespace fastnet::FASTNET_TARGET
