// Backprop: the derivative of the loss with respect to every parameter, through the chain rule.
#pragma once

#include "kernels/forward.hpp"

namespace fastnet::FASTNET_TARGET {

// Rows between two updates of the gradient, which bound the workspace. They are the inner dimension of one block of
// `gemm`, so that sums over the batch are the same chains whether zeros are skipped or not.
inline constexpr Index chunk_rows = block_inner;

template <class T> class Backprop {
  public:
    Backprop(const Network<T>& net, const Batch<T>& batch)
        : net_(net), batch_(batch), rows_(min_index(batch.rows, chunk_rows)),
          inputs_(make_inputs(net, batch.x, batch.rows, rows_, batch.source)),
          workers_(workers_for(3 * multiply_add * multiply_adds(net) * static_cast<double>(rows_))),
          weights_(net, inputs_.sparse, rows_, workers_), transposed_(net.depth), z_(net.depth), da_(net.depth),
          task_rows_(rows_per_task(rows_, workers_)), dz_(workers_), losses_(rows_), finite_(rows_) {
        Index widest = widest_layer(net);
        for (Index l = 0; l < net.depth; ++l) {
            const Layer<T>& layer = net.layers[l];
            const Index wanted = l > 0 ? layer.inputs : 0; // the derivative with respect to x is not needed
            transposed_.add(transposed(rows_of(layer.weight, wanted, layer.outputs, layer.outputs)));
            z_.add(rows_ * padded<T>(layer.outputs));
            da_.add(rows_ * padded<T>(layer.outputs));
            tasks_ += groups_of(layer.inputs);
        }
        for (int w = 0; w < workers_; ++w) {
            dz_.add(task_rows_ * padded<T>(widest));
        }
    }

    // Fills the gradient and returns the loss.
    double run(const LayerGradient<T>* gradient) {
        double losses = 0;
        for (Index first = 0; first < batch_.rows; first += chunk_rows) {
            const Index rows = min_index(chunk_rows, batch_.rows - first);
            const Index row_tasks = (rows + task_rows_ - 1) / task_rows_, stride = padded<T>(net_.layers[0].outputs);
            parallel_for(row_tasks, workers_, [&](Index task, int worker) {
                const Index begin = task * task_rows_, count = min_index(task_rows_, rows - begin);
                derive_rows(first, begin, count, weights_.prepare(worker), dz_[worker].zeroed());
                finite_[task] = all_finite(da_[0].data() + begin * stride, count * stride);
            });
            losses = sum_of(losses_.data(), rows, losses);
            skips_zeros_ = inputs_.sparse;
            for (Index task = 0; task < row_tasks; ++task) {
                skips_zeros_ &= finite_[task]; // 0 x infinity is NaN: zeros may not be skipped
            }
            parallel_for(tasks_, workers_, [&](Index task, int) {
                Index l = net_.depth - 1; // the later layers' tasks come first, because they are small
                for (; task >= groups_of(net_.layers[l].inputs); --l) {
                    task -= groups_of(net_.layers[l].inputs);
                }
                add_up(l, task, first, rows, gradient[l]);
            });
        }
        return mean_loss(net_, losses, batch_.rows);
    }

  private:
    static Index groups_of(Index inputs) { return (inputs + NonZeros<T>::group - 1) / NonZeros<T>::group; }

    // Rows [begin, begin + count) of the chunk from `first` on: forward, then da of each layer, the derivative with
    // respect to its pre-activations. Both are (rows, padded).
    void derive_rows(Index first, Index begin, Index count, const Weights<T>& weights, T* dz) {
        inputs_.load_rows(first + begin, count, begin);
        const auto at = [&](FixedList<Array<T>>& units) {
            return [&, begin](Index l) { return units[l].data() + begin * padded<T>(net_.layers[l].outputs); };
        };
        const auto z = at(z_), da = at(da_);
        forward_block(net_, weights, inputs_, first + begin, count, begin, z,
                      [&](Index l, auto phi, Index i, Vec<T> a) { store(da(l) + i, phi.derivative(a)); });

        row_losses(net_, batch_.targets, first + begin, count, z(net_.depth - 1), losses_.data() + begin);
        derive_loss(first + begin, count, z(net_.depth - 1), dz);
        for (Index l = net_.depth - 1;; --l) {
            const Index size = count * padded<T>(net_.layers[l].outputs);
            T* d = da(l);
            for (Index i = 0; i < size; i += lanes<T>) {
                store(d + i, load(d + i) * load(dz + i));
            }
            if (l == 0) {
                return;
            }
            const Layer<T>& layer = net_.layers[l];
            gemm(rows_of<T>(d, count, layer.outputs, padded<T>(layer.outputs)), transposed_[l], dz,
                 padded<T>(layer.inputs), false);
        }
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

    // Adds a chunk's share to one group of rows of a layer's weight gradient, and with the first to the bias gradient.
    void add_up(Index l, Index group, Index first, Index rows, const LayerGradient<T>& gradient) {
        const Layer<T>& layer = net_.layers[l];
        if (l == 0 && first + rows == batch_.rows) {
            inputs_.prefetch_next(group, groups_of(layer.inputs));
        }
        const Index outputs = layer.outputs, stride = padded<T>(outputs);
        const Index from = group * NonZeros<T>::group, count = min_index(NonZeros<T>::group, layer.inputs - from);
        const T* da = da_[l].data();
        T* to = gradient.weight + from * outputs;
        if (l == 0 && skips_zeros_) {
            multiply_transposed_nonzeros(inputs_.row(first), layer.inputs, inputs_.nonzeros, rows, group, to, outputs,
                                         first > 0, [da, stride](Vec<T> total, T x, Index row, Index j) {
                                             return total + x * load(da + row * stride + j);
                                         });
        } else {
            const Matrix<T> z = l == 0 ? inputs_.rows(first, rows)
                                       : rows_of<T>(z_[l - 1].data(), rows, layer.inputs, padded<T>(layer.inputs));
            gemm(transposed(submatrix(z, 0, rows, from, count)), rows_of(da, rows, outputs, stride), to, outputs,
                 first > 0);
        }
        if (first + rows == batch_.rows && net_.weight_decay != 0) {
            const T decay = static_cast<T>(net_.weight_decay);
            for (Index i = 0; i < count * outputs; ++i) {
                to[i] += decay * layer.weight[from * outputs + i];
            }
        }
        if (group == 0 && gradient.bias) {
            for_each_vector<T>(outputs, [&](Index j, Index n) {
                Vec<T> total = first > 0 ? load(gradient.bias + j, n) : Vec<T>{};
                for (Index i = 0; i < rows; ++i) {
                    total += load(da + i * stride + j);
                }
                store(gradient.bias + j, total, n);
            });
        }
    }

    const Network<T>& net_;
    const Batch<T>& batch_;
    const Index rows_; // of a chunk at most
    Inputs<T> inputs_;
    const int workers_; // asked for once, because another thread may change the setting meanwhile
    PerWorkerWeights<T> weights_;
    FixedList<PackedMatrix<T>> transposed_;
    FixedList<Array<T>> z_, da_;
    const Index task_rows_;
    FixedList<Array<T>> dz_;
    const Array<T> losses_;    // of a chunk's rows
    const Array<bool> finite_; // of a chunk's tasks: whether the first layer's da is
    Index tasks_ = 0;
    bool skips_zeros_ = false; // whether the first layer's gradient can
};

// Returns the loss, and fills the gradient with respect to every parameter.
template <class T>
double loss_and_gradient(const Network<T>& net, const Batch<T>& batch, const LayerGradient<T>* result) {
    return Backprop<T>(net, batch).run(result);
}

} // namespace fastnet::FASTNET_TARGET
