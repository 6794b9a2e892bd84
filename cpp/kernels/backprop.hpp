// Backprop: the derivative of the loss with respect to every parameter, through the chain rule.
#pragma once

#include "kernels/narrow.hpp"

namespace fastnet::FASTNET_TARGET {

// Rows whose share of the gradient is one sum; the shares are added up in their order. They bound the workspace. They
// are the inner dimension of one block of `gemm`, so that sums over the batch are the same chains whether zeros are
// skipped or not.
inline constexpr Index chunk_rows = block_inner;

// What is kept of a chunk's rows on the way back.
template <class T> struct Chunk {
    Chunk(const Network<T>& net, Index most_rows) : z(net.depth), da(net.depth), packed(net.depth) {
        for (Index l = 0; l < net.depth; ++l) {
            const Index outputs = net.layers[l].outputs;
            z.add(most_rows * padded<T>(outputs));
            da.add(most_rows * spread<T>(outputs));
            packed.add(most_rows, outputs);
        }
    }
    void begin(Index first_row, Index rows) {
        first = first_row;
        count = rows;
        for (Index l = 0; l < packed.size(); ++l) {
            packed[l].rows = rows;
        }
    }

    FixedList<Array<T>> z;             // of each layer (rows, padded): its units
    FixedList<Array<T>> da;            // of each layer (rows, spread): the derivative before them
    FixedList<PackedMatrix<T>> packed; // da, for the product with the layer's inputs
    Index first = 0, count = 0;        // its rows in the batch
    bool skips_zeros = false;          // whether the first layer's gradient can
};

// What `Backprop` tells about its progress goes nowhere: the gradient is all that is wanted.
struct GradientAlone {
    static constexpr bool descends = false;
    void weight(Index, Index, Index) const {}
    void bias(Index) const {}
    template <class F> void descend(Index, F&&) const {}
};

// The gradient of one batch after another, of at most `most_rows` rows each; the workspace is kept.
//
// Either the workers share out the rows of a chunk, then its gradient, and go to the next chunk together. Or, where a
// batch has many chunks and the gradient is small, each takes whole chunks, and the chunks' shares are kept apart until
// the end: one parallel region for a batch, not two for a chunk. So it is with narrow layers, too, for which a chunk
// has its rows in the lanes. All add the same numbers in the same order.
template <class T> class Backprop {
  public:
    // `inputs` is of the first batch.
    Backprop(const Network<T>& net, Inputs<T>& inputs, Index most_rows)
        : net_(net), inputs_(inputs), rows_(min_index(most_rows, chunk_rows)),
          is_narrow_(is_narrow(net, inputs, most_rows)),
          workers_(workers_for(3 * multiply_add * multiply_adds(net) *
                               static_cast<double>(takes_chunks(most_rows) ? most_rows : rows_))),
          takes_chunks_(is_narrow_ || (workers_ > 1 && takes_chunks(most_rows))), transposed_(net.depth),
          task_rows_(takes_chunks_ ? block_rows : rows_per_task(rows_, workers_)), dz_(workers_), losses_(most_rows),
          finite_(rows_), chunks_(workers_), narrow_(workers_), at_(net.depth),
          shares_(takes_chunks_ ? chunks_of(most_rows) * size_of(net) : 0) {
        Index size = 0;
        for (Index l = 0; l < net.depth; ++l) {
            const Layer<T>& layer = net.layers[l];
            transposed_.add(layer.outputs, l > 0 ? layer.inputs : 0); // that with respect to x is not needed
            tasks_ += groups_of(layer.inputs);
            transposed_tasks_ += l > 0 && !is_narrow_ ? groups_of(layer.outputs) : 0;
            at_[l] = size;
            size += (layer.inputs + 1) * layer.outputs;
        }
        for (int w = 0; w < workers_; ++w) {
            if (is_narrow_) {
                narrow_.add(net, rows_);
                continue;
            }
            dz_.add(task_rows_ * padded<T>(widest_layer(net)));
            if (takes_chunks_ || w == 0) {
                chunks_.add(net, rows_);
            }
        }
    }

    int workers() const { return workers_; }

    // How many rows there are to pack the weights for: none where they are taken as they are.
    Index packed_rows() const { return is_narrow_ ? 0 : rows_; }

    // Everything but the last chunk's share of the gradient, or the sum of all shares. Returns the loss.
    // weights.prepare(worker) gives the worker's `Weights`.
    template <class W> double begin(const Batch<T>& batch, W& weights, const LayerGradient<T>* gradient) {
        batch_ = batch;
        inputs_.take(batch);
        pack_transposed();
        if (takes_chunks_) {
            parallel_for(chunks_of(batch_.rows), workers_,
                         [&](Index task, int worker) { take_chunk(task, weights.prepare(worker), worker); });
        } else {
            for (Index first = 0;; first += chunk_rows) {
                derive_chunk(first, weights);
                if (first + chunk_rows >= batch_.rows) {
                    break;
                }
                add_up(gradient, GradientAlone{});
            }
        }
        return mean_loss(net_, sum_of(losses_.data(), batch_.rows), batch_.rows);
    }

    // The rest. user.weight(l, first, rows) is called for each group of rows of layer l's weight gradient, when nothing
    // reads these rows of the weight any more, and user.bias(l) with the first group. If user.descends, the first
    // layer's rows may instead go to user.descend(first, multiply), where multiply(put) gives put their gradient.
    // Allocates nothing: once it has begun, it ends.
    template <class U> void finish(const LayerGradient<T>* gradient, const U& user) {
        takes_chunks_ ? add_shares(gradient, user) : add_up(gradient, user);
    }

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

    static Index chunks_of(Index rows) { return (rows + chunk_rows - 1) / chunk_rows; }

    // How many parameters there may be, with biases.
    static Index size_of(const Network<T>& net) {
        Index size = 0;
        for (Index l = 0; l < net.depth; ++l) {
            size += (net.layers[l].inputs + 1) * net.layers[l].outputs;
        }
        return size;
    }

    // Whether rows in the lanes are faster: for layers of up to 64 units, and where that leaves threads without a
    // chunk, for those of up to 32.
    static bool is_narrow(const Network<T>& net, const Inputs<T>& inputs, Index rows) {
        return !inputs.sparse && rows >= 2 * lanes<T> &&
               NarrowChunk<T>::suits(net, chunks_of(rows) < num_threads() ? 32 : 64) && has_few_elements(net, rows);
    }

    // Whether the shares of so many rows are few enough to be kept apart.
    static bool has_few_elements(const Network<T>& net, Index rows) {
        constexpr Index most_elements = Index{1} << 18;
        return chunks_of(rows) * size_of(net) <= most_elements;
    }

    // Whether several workers would take whole chunks.
    bool takes_chunks(Index rows) const {
        constexpr Index fewest = 8; // chunks
        return is_narrow_ || (!inputs_.sparse && chunks_of(rows) >= fewest && has_few_elements(net_, rows));
    }

    // Chunk `number` forward and back, to its share of the gradient, by one worker.
    void take_chunk(Index number, const Weights<T>& weights, int worker) {
        const Index first = number * chunk_rows, rows = min_index(chunk_rows, batch_.rows - first);
        if (is_narrow_) {
            return take_narrow_chunk(narrow_[worker], number, first, rows);
        }
        Chunk<T>& chunk = chunks_[worker];
        chunk.begin(first, rows);
        for (Index begin = 0; begin < chunk.count; begin += task_rows_) {
            derive_rows(chunk, begin, min_index(task_rows_, chunk.count - begin), weights, dz_[worker].zeroed());
        }
        for (Index l = 0; l < net_.depth; ++l) {
            const LayerGradient<T> to = share(number, l);
            add_group(chunk, l, 0, net_.layers[l].inputs, to.weight, false);
            if (to.bias) {
                add_bias(chunk, l, to.bias, false);
            }
        }
    }

    void take_narrow_chunk(NarrowChunk<T>& chunk, Index number, Index first, Index rows) {
        chunk.derive(batch_, inputs_, first, rows, losses_.data() + first);
        for (Index l = 0; l < net_.depth; ++l) {
            chunk.add_up(l, share(number, l));
        }
    }

    // Where layer l's part of a chunk's share is.
    LayerGradient<T> share(Index number, Index l) const {
        T* const weight = shares_.data() + number * size_of(net_) + at_[l];
        const Layer<T>& layer = net_.layers[l];
        return {weight, layer.bias ? weight + layer.inputs * layer.outputs : nullptr};
    }

    // A chunk forward and back, to the derivatives with respect to its pre-activations.
    template <class W> void derive_chunk(Index first, W& weights) {
        Chunk<T>& chunk = chunks_[0];
        chunk.begin(first, min_index(chunk_rows, batch_.rows - first));
        const Index row_tasks = (chunk.count + task_rows_ - 1) / task_rows_;
        parallel_for(row_tasks, workers_, [&](Index task, int worker) {
            const Index begin = task * task_rows_, count = min_index(task_rows_, chunk.count - begin);
            finite_[task] = derive_rows(chunk, begin, count, weights.prepare(worker), dz_[worker].zeroed());
        });
        chunk.skips_zeros = inputs_.sparse;
        for (Index task = 0; task < row_tasks; ++task) {
            chunk.skips_zeros &= finite_[task]; // 0 x infinity is NaN: zeros may not be skipped
        }
        if (inputs_.sparse && !chunk.skips_zeros) {
            inputs_.load_rows(chunk.first, chunk.count, 0);
            pack(chunk, 0, 0, chunk.count);
        }
    }

    // Rows [begin, begin + count) of the chunk: forward, then da of each layer, the derivative with respect to its
    // pre-activations. Returns whether that of the first layer is finite.
    bool derive_rows(Chunk<T>& chunk, Index begin, Index count, const Weights<T>& weights, T* dz) {
        const Index first = chunk.first + begin;
        inputs_.load_rows(first, count, begin, !weights.first);
        const auto z = [&](Index l) { return chunk.z[l].data() + begin * padded<T>(net_.layers[l].outputs); };
        const auto da = [&](Index l) { return chunk.da[l].data() + begin * spread<T>(net_.layers[l].outputs); };
        forward_block(net_, weights, inputs_, first, count, begin, z, [&](Index l) {
            return [d = da(l), stride = spread<T>(net_.layers[l].outputs)](auto phi, Index i, Index j, Vec<T> a) {
                store(d + i * stride + j, phi.derivative(a));
            };
        });

        row_losses(net_, batch_.targets, first, count, z(net_.depth - 1), losses_.data() + first);
        derive_losses(net_, batch_.targets, first, count, z(net_.depth - 1), batch_.rows, dz);
        for (Index l = net_.depth - 1;; --l) {
            const Layer<T>& layer = net_.layers[l];
            const Index width = padded<T>(layer.outputs), stride = spread<T>(layer.outputs);
            T* const d = da(l);
            Vec<T> zeros{}; // 0 x every element: NaN where one is not finite
            for (Index i = 0; i < count; ++i) {
                for (Index j = 0; j < width; j += lanes<T>) {
                    const Vec<T> v = load(d + i * stride + j) * load(dz + i * width + j);
                    zeros += v * T(0);
                    store(d + i * stride + j, v);
                }
            }
            if (l > 0 || !inputs_.sparse) {
                pack(chunk, l, begin, count);
            }
            if (l == 0) {
                return sum<T>(zeros) == 0;
            }
            gemm(rows_of<T>(d, count, layer.outputs, stride), transposed_[l], dz, padded<T>(layer.inputs), false);
        }
    }

    // Packs rows of layer l's da for the product with its inputs.
    void pack(Chunk<T>& chunk, Index l, Index begin, Index count) {
        const Index outputs = net_.layers[l].outputs, stride = spread<T>(outputs);
        chunk.packed[l].pack_rows(rows_of<T>(chunk.da[l].data() + begin * stride, count, outputs, stride), begin);
    }

    // f(l, number, from, rows) for each group of rows of a weight, shared out among so many workers. The later layers'
    // tasks come first, because they are small.
    template <class F> void for_each_group_of_rows(int workers, F&& f) {
        parallel_for(tasks_, workers, [&](Index task, int) {
            Index l = net_.depth - 1;
            for (; task >= groups_of(net_.layers[l].inputs); --l) {
                task -= groups_of(net_.layers[l].inputs);
            }
            f(l, task, task * group, min_index(group, net_.layers[l].inputs - task * group));
        });
    }

    // Adds the chunk's share to the gradient.
    template <class U> void add_up(const LayerGradient<T>* gradient, const U& user) {
        const Chunk<T>& chunk = chunks_[0];
        const bool last = chunk.first + chunk.count == batch_.rows;
        for_each_group_of_rows(workers_, [&](Index l, Index number, Index from, Index rows) {
            if (l == 0 && last) {
                inputs_.prefetch_next(number, groups_of(net_.layers[0].inputs));
            }
            if (from == 0 && gradient[l].bias) {
                add_bias(chunk, l, gradient[l].bias, chunk.first > 0);
                user.bias(l);
            }
            if (user.descends && l == 0 && chunk.count == batch_.rows && chunk.skips_zeros && net_.weight_decay == 0) {
                return user.descend(from, [&](auto put) { multiply_nonzeros(chunk, from, rows, put); });
            }
            add_group(chunk, l, from, rows, gradient[l].weight, chunk.first > 0);
            if (last) {
                add_penalty(l, from, rows, gradient[l]);
            }
            user.weight(l, from, rows);
        });
    }

    // Adds up the chunks' shares.
    template <class U> void add_shares(const LayerGradient<T>* gradient, const U& user) {
        const Index chunks = chunks_of(batch_.rows);
        const int workers = workers_for(0.1 * static_cast<double>(chunks * size_of(net_)));
        for_each_group_of_rows(workers, [&](Index l, Index, Index from, Index rows) {
            const Index outputs = net_.layers[l].outputs, begin = from * outputs;
            const auto add = [&](T* to, Index size, auto&& at) {
                for_each_vector<T>(size, [&](Index i, Index n) {
                    Vec<T> total = load(at(0) + i, n);
                    for (Index number = 1; number < chunks; ++number) {
                        total += load(at(number) + i, n);
                    }
                    store(to + i, total, n);
                });
            };
            add(gradient[l].weight + begin, rows * outputs, [&](Index c) { return share(c, l).weight + begin; });
            if (from == 0 && gradient[l].bias) {
                add(gradient[l].bias, outputs, [&](Index c) { return share(c, l).bias; });
                user.bias(l);
            }
            add_penalty(l, from, rows, gradient[l]);
            user.weight(l, from, rows);
        });
    }

    // To the rows [from, from + rows) of a layer's weight gradient.
    void add_penalty(Index l, Index from, Index rows, const LayerGradient<T>& gradient) {
        if (net_.weight_decay != 0) {
            const Index outputs = net_.layers[l].outputs;
            const T decay = static_cast<T>(net_.weight_decay);
            for (Index i = from * outputs; i < (from + rows) * outputs; ++i) {
                gradient.weight[i] += decay * net_.layers[l].weight[i];
            }
        }
    }

    // The chunk's share of the rows [from, from + count) of a layer's weight gradient. Where zeros are skipped, the
    // rows are a group.
    void add_group(const Chunk<T>& chunk, Index l, Index from, Index count, T* gradient, bool accumulate) {
        const Layer<T>& layer = net_.layers[l];
        const Index outputs = layer.outputs;
        T* const to = gradient + from * outputs;
        if (l == 0 && chunk.skips_zeros) {
            multiply_nonzeros(chunk, from, count, StoreOrAdd<T>{to, outputs, accumulate});
        } else {
            const Matrix<T> z =
                l == 0 ? inputs_.rows(chunk.first, chunk.count)
                       : rows_of<T>(chunk.z[l - 1].data(), chunk.count, layer.inputs, padded<T>(layer.inputs));
            gemm(transposed(submatrix(z, 0, chunk.count, from, count)), chunk.packed[l], to, outputs, accumulate);
        }
    }

    // The same for a group of rows of the first layer's, over the nonzeros.
    template <class Put> void multiply_nonzeros(const Chunk<T>& chunk, Index from, Index count, Put put) {
        const Index outputs = net_.layers[0].outputs;
        multiply_transposed_nonzeros(inputs_.nonzeros, chunk.count, from / group, count, chunk.da[0].data(),
                                     spread<T>(outputs), outputs, put);
    }

    // The chunk's share of a layer's bias gradient.
    void add_bias(const Chunk<T>& chunk, Index l, T* gradient, bool accumulate) {
        const Index outputs = net_.layers[l].outputs, stride = spread<T>(outputs);
        const T* const da = chunk.da[l].data();
        for_each_vector<T>(outputs, [&](Index j, Index n) {
            Vec<T> total{};
            for (Index i = 0; i < chunk.count; ++i) {
                total += load(da + i * stride + j);
            }
            store(gradient + j, accumulate ? load(gradient + j, n) + total : total, n);
        });
    }

    const Network<T>& net_;
    Inputs<T>& inputs_;
    const Index rows_; // of a chunk at most
    const bool is_narrow_;
    const int workers_;                     // asked for once, because another thread may change the setting meanwhile
    const bool takes_chunks_;               // whether a worker takes whole chunks
    FixedList<PackedMatrix<T>> transposed_; // the weights
    const Index task_rows_;
    FixedList<Array<T>> dz_;
    const Array<T> losses_;            // of the batch's rows
    const Array<bool> finite_;         // of a chunk's tasks: whether the first layer's da is
    FixedList<Chunk<T>> chunks_;       // one, or one for each worker
    FixedList<NarrowChunk<T>> narrow_; // instead of them
    const Array<Index> at_;            // of each layer: where it begins in a share
    const Array<T> shares_;            // (chunks, size): of the gradient, where workers take whole chunks
    Index tasks_ = 0, transposed_tasks_ = 0;

    Batch<T> batch_{};
};

// Returns the loss, and fills the gradient with respect to every parameter.
template <class T>
double loss_and_gradient(const Network<T>& net, const Batch<T>& batch, const LayerGradient<T>* result) {
    const Index rows = min_index(batch.rows, chunk_rows);
    Inputs<T> inputs = make_inputs(net, batch.x, batch.rows, rows, batch.source);
    Backprop<T> backprop(net, inputs, batch.rows);
    PerWorkerWeights<T> weights(net, inputs.sparse, backprop.packed_rows(), backprop.workers());
    const double loss = backprop.begin(batch, weights, result);
    backprop.finish(result, GradientAlone{});
    return loss;
}

} // namespace fastnet::FASTNET_TARGET
