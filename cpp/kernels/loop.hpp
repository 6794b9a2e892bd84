// The textbook's finite-difference gradient: for each parameter two full forward passes, subtracted.
#pragma once

#include "kernels/forward.hpp"

namespace fastnet::FASTNET_TARGET {

// A thread's own copy of the network, in which one parameter at a time is changed, and its workspace.
template <class T> class PerturbedNetwork {
  public:
    // `sparse`: whether the inputs' zeros are skipped.
    PerturbedNetwork(const Network<T>& net, const Inputs<T>& inputs, bool sparse, const Batch<T>& batch)
        : inputs_(inputs), batch_(batch), biases_(net.depth), layers_(net.depth), units_(net), losses_(batch.rows),
          net_(net), all_(net, few_rows + 1, !sparse), sparse_(sparse),
          first_(net.layers[0].weight, sparse ? net.layers[0].inputs : 0, net.layers[0].outputs) {
        for (Index l = 0; l < net.depth; ++l) {
            const Layer<T>& layer = net.layers[l];
            T* bias = biases_.add(layer.outputs).data();
            if (layer.bias) {
                std::memcpy(bias, layer.bias, static_cast<std::size_t>(layer.outputs) * sizeof(T));
            }
            layers_.add(layer).bias = layer.bias ? bias : nullptr;
        }
        net_.layers = &layers_[0];
    }

    // The central difference of the mean loss, without the penalty, with respect to the parameter with that
    // flat number:
    // W1, b1, W2, b2, …, each row-major.
    T difference(Index entry, double h) {
        Index l = 0;
        for (; entry >= size_of(l); ++l) {
            entry -= size_of(l);
        }
        const Layer<T>& layer = net_.layers[l];
        const bool is_weight = entry < layer.inputs * layer.outputs;
        T& parameter = is_weight ? weight_at(l, entry / layer.outputs, entry % layer.outputs)
                                 : biases_[l][entry - layer.inputs * layer.outputs];
        const T value = parameter;
        const T above_value = value + static_cast<T>(h), below_value = value - static_cast<T>(h);
        parameter = above_value;
        const double above = mean_loss();
        parameter = below_value;
        const double below = mean_loss();
        parameter = value;
        const double w = static_cast<double>(value);
        const double decay = is_weight && net_.weight_decay != 0 ? net_.weight_decay * w : 0; // of λ/2 w², exactly
        return static_cast<T>((above - below) / (2 * h) + decay);
    }

  private:
    Index size_of(Index l) const {
        const Layer<T>& layer = net_.layers[l];
        return layer.outputs * (layer.inputs + (layer.bias ? 1 : 0));
    }

    T& weight_at(Index l, Index row, Index column) {
        return l == 0 && sparse_ ? first_.matrix.row(row)[column] : all_.at(l, row, column);
    }

    double mean_loss() {
        for (Index first = 0; first < batch_.rows; first += block_rows) {
            const Index count = min_index(block_rows, batch_.rows - first);
            forward_block(net_, Weights<T>{sparse_ ? &first_.matrix : nullptr, &all_}, inputs_, first, count, first,
                          units_, keep_nothing);
            row_losses(net_, batch_.targets, first, count, units_(net_.depth - 1), losses_.data() + first);
            checkpoint();
        }
        return sum_of(losses_.data(), batch_.rows) / static_cast<double>(batch_.rows);
    }

    const Inputs<T>& inputs_;
    const Batch<T>& batch_;
    FixedList<Array<T>> biases_;
    FixedList<Layer<T>> layers_;
    PingPong<T> units_;
    Array<T> losses_;
    Network<T> net_;
    LayerWeights<T> all_; // packed, so that they can be changed
    const bool sparse_;
    const PaddedCopy<T> first_; // the first layer's weight, where `sparse`
};

// differences (count) = the central differences with respect to the parameters with the given flat numbers.
template <class T>
void loop(const Network<T>& net, const Batch<T>& batch, double h, const std::int64_t* entries, Index count,
          T* differences) {
    Inputs<T> inputs = make_inputs(net, batch.x, batch.rows, batch.rows);
    inputs.load_rows(0, batch.rows, 0);
    const bool sparse = inputs.sparse && all_finite(net.layers[0].weight, net.layers[0].inputs * net.layers[0].outputs);
    const int workers = workers_for(2 * multiply_add * multiply_adds(net) * static_cast<double>(batch.rows * count));
    FixedList<PerturbedNetwork<T>> copies(workers);
    for (int w = 0; w < workers; ++w) {
        copies.add(net, inputs, sparse, batch);
    }
    parallel_for(count, workers, [&](Index k, int worker) {
        differences[k] = copies[worker].difference(static_cast<Index>(entries[k]), h);
    });
}

} // namespace fastnet::FASTNET_TARGET
