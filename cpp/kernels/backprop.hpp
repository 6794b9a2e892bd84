// Backprop: the derivative of the loss with respect to every parameter, through the chain rule.
#pragma once

#include "kernels/forward.hpp"

namespace fastnet::FASTNET_TARGET {

// Rows between two updates of the gradient, which bound the workspace. They are the inner dimension of one block of
// `gemm`, so that sums over the batch are the same chains whether zeros are skipped or not.
inline constexpr Index chunk_rows = block_inner;

// The gradient of one batch after another, of at most `most_rows` rows each; the workspace is kept.
template <class T> class Backprop {
  public:
    // `inputs` is of the first batch.
    Backprop(const Network<T>& net, Inputs<T>& inputs, Index most_rows)
        : net_(net), inputs_(inputs), rows_(min_index(most_rows, chunk_rows)),
          workers_(workers_for(3 * multiply_add * multiply_adds(net) * static_cast<double>(rows_))),
          transposed_(net.depth), z_(net.depth), da_(net.depth), packed_(net.depth),
          task_rows_(rows_per_task(rows_, workers_)), dz_(workers_), losses_(rows_), finite_(rows_) {
        Index widest = widest_layer(net);
        for (Index l = 0; l < net.depth; ++l) {
            const Layer<T>& layer = net.layers[l];
            transposed_.add(layer.outputs, l > 0 ? layer.inputs : 0); // that with respect to x is not needed
            z_.add(rows_ * padded<T>(layer.outputs));
            da_.add(rows_ * padded<T>(layer.outputs));
            packed_.add(rows_, layer.outputs);
            tasks_ += groups_of(layer.inputs);
            transposed_tasks_ += l > 0 ? groups_of(layer.outputs) : 0;
        }
        for (int w = 0; w < workers_; ++w) {
            dz_.add(task_rows_ * padded<T>(widest));
        }
    }

    int workers() const { return workers_; }

    // Everything but the last chunk's share of the gradient. Returns the loss. weights.prepare(worker) gives the
    // worker's `Weights`.
    template <class W> double begin(const Batch<T>& batch, W& weights, const LayerGradient<T>* gradient) {
        batch_ = batch;
        inputs_.take(batch);
        pack_transposed();
        double losses = 0;
        for (first_ = 0;; first_ += chunk_rows) {
            count_ = min_index(chunk_rows, batch_.rows - first_);
            derive_chunk(weights);
            losses = sum_of(losses_.data(), count_, losses);
            if (first_ + count_ == batch_.rows) {
                return mean_loss(net_, losses, batch_.rows);
            }
            add_up(gradient, [](auto&&...) {});
        }
    }

    // The last chunk's share. changed(l, first, rows) is called for each group of rows of layer l's weight gradient,
    // when nothing reads these rows of the weight any more; the bias gradient is ready with the first group. Allocates
    // nothing: once it has begun, it ends.
    template <class F> void finish(const LayerGradient<T>* gradient, F&& changed) { add_up(gradient, changed); }

  private:
    static constexpr Index group = NonZeros<T>::group;
    static Index groups_of(Index inputs) { return (inputs + group - 1) / group; }

    void pack_transposed() {
        const double elements = multiply_adds(net_) - static_cast<double>(net_.layers[0].inputs) *
                                                          static_cast<double>(net_.layers[0].outputs);
        parallel_for(transposed_tasks_, workers_for(0.3 * elements), [&](Index task, int) {
            Index l = 1;
            for (; task >= groups_of(net_.layers[l].outputs); ++l) {
                task -= groups_of(net_.layers[l].outputs);
            }
            const Layer<T>& layer = net_.layers[l];
            const Index from = task * group, columns = min_index(group, layer.outputs - from);
            const Matrix<T> weight = rows_of(layer.weight, layer.inputs, layer.outputs, layer.outputs);
            transposed_[l].pack_rows(transposed(submatrix(weight, 0, layer.inputs, from, columns)), from);
        });
    }

    // A chunk forward and back, to the derivatives with respect to its pre-activations.
    template <class W> void derive_chunk(W& weights) {
        const Index row_tasks = (count_ + task_rows_ - 1) / task_rows_, stride = padded<T>(net_.layers[0].outputs);
        for (Index l = 0; l < net_.depth; ++l) {
            packed_[l].rows = count_;
        }
        parallel_for(row_tasks, workers_, [&](Index task, int worker) {
            const Index begin = task * task_rows_, count = min_index(task_rows_, count_ - begin);
            derive_rows(begin, count, weights.prepare(worker), dz_[worker].zeroed());
            finite_[task] = all_finite(da_[0].data() + begin * stride, count * stride);
        });
        skips_zeros_ = inputs_.sparse;
        for (Index task = 0; task < row_tasks; ++task) {
            skips_zeros_ &= finite_[task]; // 0 x infinity is NaN: zeros may not be skipped
        }
        if (inputs_.sparse && !skips_zeros_) {
            inputs_.load_rows(first_, count_, 0);
            pack(0, 0, count_);
        }
    }

    // Rows [begin, begin + count) of the chunk: forward, then da of each layer, the derivative with respect to its
    // pre-activations. Both are (rows, padded).
    void derive_rows(Index begin, Index count, const Weights<T>& weights, T* dz) {
        const Index first = first_ + begin;
        inputs_.load_rows(first, count, begin, !weights.first);
        const auto at = [&](FixedList<Array<T>>& units) {
            return [&, begin](Index l) { return units[l].data() + begin * padded<T>(net_.layers[l].outputs); };
        };
        const auto z = at(z_), da = at(da_);
        forward_block(net_, weights, inputs_, first, count, begin, z,
                      [&](Index l, auto phi, Index i, Vec<T> a) { store(da(l) + i, phi.derivative(a)); });

        row_losses(net_, batch_.targets, first, count, z(net_.depth - 1), losses_.data() + begin);
        derive_loss(first, count, z(net_.depth - 1), dz);
        for (Index l = net_.depth - 1;; --l) {
            const Index size = count * padded<T>(net_.layers[l].outputs);
            T* d = da(l);
            for (Index i = 0; i < size; i += lanes<T>) {
                store(d + i, load(d + i) * load(dz + i));
            }
            if (l > 0 || !inputs_.sparse) {
                pack(l, begin, count);
            }
            if (l == 0) {
                return;
            }
            const Layer<T>& layer = net_.layers[l];
            gemm(rows_of<T>(d, count, layer.outputs, padded<T>(layer.outputs)), transposed_[l], dz,
                 padded<T>(layer.inputs), false);
        }
    }

    // Packs rows of layer l's da for the product with its inputs.
    void pack(Index l, Index begin, Index count) {
        const Index outputs = net_.layers[l].outputs, stride = padded<T>(outputs);
        packed_[l].pack_rows(rows_of<T>(da_[l].data() + begin * stride, count, outputs, stride), begin);
    }

    // dz (count, padded) = the derivative of the mean loss with respect to the last layer's units, from the answers
    // y (count, padded).
    void derive_loss(Index row, Index count, const T* y, T* dz) {
        const Index classes = classes_of(net_), stride = padded<T>(classes);
        const T rows = static_cast<T>(batch_.rows);
        with_loss<T>(net_.loss, net_.loss_constant, [&](auto loss) {
            for (Index i = 0; i < count; ++i, y += stride, dz += stride) {
                const Target<T> t = target_of(batch_.targets, row + i, classes);
                for_each_vector<T>(classes, [&](Index k, Index n) {
                    store(dz + k, loss.derivative(load(y + k, n), t.vector(k, n)), n);
                });
                if (net_.output == Output::softmax) {
                    softmax_row_backward(y, dz, dz, classes);
                }
                for_each_vector<T>(classes, [&](Index k, Index n) { store(dz + k, load(dz + k, n) / rows, n); });
            }
        });
    }

    // Adds the chunk's share to the gradient.
    template <class F> void add_up(const LayerGradient<T>* gradient, F&& changed) {
        parallel_for(tasks_, workers_, [&](Index task, int) {
            Index l = net_.depth - 1; // the later layers' tasks come first, because they are small
            for (; task >= groups_of(net_.layers[l].inputs); --l) {
                task -= groups_of(net_.layers[l].inputs);
            }
            const Index from = task * group, rows = min_index(group, net_.layers[l].inputs - from);
            add_group(l, task, from, rows, gradient[l]);
            changed(l, from, rows);
        });
    }

    // To the rows [from, from + count) of a layer's weight gradient, a group, and with the first to the bias gradient.
    void add_group(Index l, Index number, Index from, Index count, const LayerGradient<T>& gradient) {
        const Layer<T>& layer = net_.layers[l];
        const bool last = first_ + count_ == batch_.rows;
        if (l == 0 && last) {
            inputs_.prefetch_next(number, groups_of(layer.inputs));
        }
        const Index outputs = layer.outputs, stride = padded<T>(outputs);
        const T* da = da_[l].data();
        T* to = gradient.weight + from * outputs;
        if (l == 0 && skips_zeros_) {
            multiply_transposed_nonzeros(inputs_.nonzeros, count_, number, count, da, stride, to, outputs, first_ > 0);
        } else {
            const Matrix<T> z = l == 0 ? inputs_.rows(first_, count_)
                                       : rows_of<T>(z_[l - 1].data(), count_, layer.inputs, padded<T>(layer.inputs));
            gemm(transposed(submatrix(z, 0, count_, from, count)), packed_[l], to, outputs, first_ > 0);
        }
        if (last && net_.weight_decay != 0) {
            const T decay = static_cast<T>(net_.weight_decay);
            for (Index i = 0; i < count * outputs; ++i) {
                to[i] += decay * layer.weight[from * outputs + i];
            }
        }
        if (number == 0 && gradient.bias) {
            for_each_vector<T>(outputs, [&](Index j, Index n) {
                Vec<T> total = first_ > 0 ? load(gradient.bias + j, n) : Vec<T>{};
                for (Index i = 0; i < count_; ++i) {
                    total += load(da + i * stride + j);
                }
                store(gradient.bias + j, total, n);
            });
        }
    }

    const Network<T>& net_;
    Inputs<T>& inputs_;
    const Index rows_;                      // of a chunk at most
    const int workers_;                     // asked for once, because another thread may change the setting meanwhile
    FixedList<PackedMatrix<T>> transposed_; // the weights
    FixedList<Array<T>> z_, da_;
    FixedList<PackedMatrix<T>> packed_; // da, for the product with the layer's inputs
    const Index task_rows_;
    FixedList<Array<T>> dz_;
    const Array<T> losses_;    // of a chunk's rows
    const Array<bool> finite_; // of a chunk's tasks: whether the first layer's da is
    Index tasks_ = 0, transposed_tasks_ = 0;

    Batch<T> batch_{};
    Index first_ = 0, count_ = 0; // the chunk: its first row, and its rows
    bool skips_zeros_ = false;    // whether the first layer's gradient can
};

// Returns the loss, and fills the gradient with respect to every parameter.
template <class T>
double loss_and_gradient(const Network<T>& net, const Batch<T>& batch, const LayerGradient<T>* result) {
    const Index rows = min_index(batch.rows, chunk_rows);
    Inputs<T> inputs = make_inputs(net, batch.x, batch.rows, rows, batch.source);
    Backprop<T> backprop(net, inputs, batch.rows);
    PerWorkerWeights<T> weights(net, inputs.sparse, rows, backprop.workers());
    const double loss = backprop.begin(batch, weights, result);
    backprop.finish(result, [](auto&&...) {});
    return loss;
}

} // namespace fastnet::FASTNET_TARGET
