// The forward pass of a network over a block of rows, layer by layer.
#pragma once

#include "kernels/activations.hpp"
#include "kernels/losses.hpp"
#include "kernels/nonzeros.hpp"

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

// A row-major matrix with its stride, as a view.
template <class T> FASTNET_INLINE Matrix<T> rows_of(const T* data, Index rows, Index columns, Index stride) {
    return {data, rows, columns, stride, 1};
}
template <class T> FASTNET_INLINE Matrix<T> transposed(Matrix<T> m) {
    return {m.data, m.columns, m.rows, m.column_stride, m.row_stride};
}

// a -> z = phi(a + bias) in place, (rows, outputs; padded). keep(phi, at, a) sees each vector of pre-activations.
template <class T, class Keep> void activate(const Network<T>& net, Index layer, Index rows, T* units, Keep&& keep) {
    const Layer<T>& l = net.layers[layer];
    const Index stride = padded<T>(l.outputs);
    with_activation(l.activation, net.leaky_slope, [&](auto phi) {
        for (Index i = 0; i < rows; ++i) {
            for_each_vector<T>(l.outputs, [&](Index j, Index count) {
                T* at = units + i * stride + j;
                const Vec<T> sum = load(at, count); // zeros behind the units, whatever stands there
                const Vec<T> a = l.bias ? sum + load(l.bias + j, count) : sum;
                keep(phi, i * stride + j, a);
                store(at, phi.value(a));
            });
        }
    });
}

// Every layer's weight, the first one's too if `first`, packed once for the products of many rows; left where it is for
// a few.
template <class T> class LayerWeights {
  public:
    LayerWeights(const Network<T>& net, Index rows, bool first) : net_(net), packed_(net.depth) {
        for (Index l = 0; rows > few_rows && l < net.depth; ++l) {
            packed_.add(l > 0 || first ? weight(l) : part(weight(l), 0, 0, 0, 0));
        }
    }
    // c (rows, outputs) = a (rows, inputs) . weight of layer l
    void multiply(Index l, Matrix<T> a, T* c, Index ldc) const {
        const bool is_packed = packed_.size() > 0 && packed_[l].columns > 0;
        is_packed ? gemm(a, packed_[l], c, ldc, false) : gemm(a, weight(l), c, ldc, false);
    }
    // The packed copy's element.
    T& at(Index l, Index row, Index column) const { return packed_[l].at(row, column); }

  private:
    Matrix<T> weight(Index l) const {
        const Layer<T>& layer = net_.layers[l];
        return rows_of(layer.weight, layer.inputs, layer.outputs, layer.outputs);
    }

    const Network<T> net_;
    List<PackedMatrix<T>> packed_;
};

// The rows of x (rows, inputs) as the first layer takes them: as they are, or by their nonzeros where most are zeros.
template <class T> class Inputs {
  public:
    // `slots` is how many rows' nonzeros are noted at a time.
    Inputs(const Network<T>& net, const T* x, Index rows, Index slots, const Source<T>* source = nullptr)
        : x_(x), columns_(net.layers[0].inputs), rows_(rows), source_(source),
          sparse(source ? source->masks != nullptr && rows > few_rows : worth_skipping_zeros(x, rows, columns_)),
          nonzeros(sparse ? slots : 0, columns_) {}

    const T* row(Index i) const { return x_ + i * columns_; }
    Matrix<T> rows(Index first, Index count) const { return rows_of(row(first), count, columns_, columns_); }

    // Has the rows [first, first + count) ready: fetches them, and notes their nonzeros in the slots from `slot` on.
    void note(Index first, Index count, Index slot) {
        constexpr Index ahead = 6; // rows
        for (Index i = first; i < first + count; ++i) {
            if (!source_) {
                if (sparse) {
                    nonzeros.note(row(i), slot + i - first);
                }
            } else if (sparse) {
                if (i + ahead < first + count) {
                    expect(i + ahead);
                }
                nonzeros.fetch(*source_, i, slot + i - first);
            } else {
                std::memcpy(source_->to + i * columns_, source_->x + source_->order[i] * columns_,
                            static_cast<std::size_t>(columns_) * sizeof(T));
            }
        }
    }

    // Has a share of the next batch's rows on its way here: that of one of `tasks`, which has something to do
    // meanwhile.
    void expect_next(Index task, Index tasks) const {
        for (Index i = source_ ? task * source_->next / tasks : 0; source_ && i < (task + 1) * source_->next / tasks;
             ++i) {
            expect(rows_ + i);
        }
    }

  private:
    // Has a row of the batch, or of the next one, on its way here.
    void expect(Index i) const {
        const Index row = static_cast<Index>(source_->order[i]);
        if (sparse) {
            prefetch(source_->masks + row * nonzeros.groups, nonzeros.groups);
            prefetch(source_->values + source_->starts[row], columns_ / 4); // most of them
        } else {
            prefetch(source_->x + row * columns_, columns_);
        }
    }

    const T* x_;
    const Index columns_, rows_;
    const Source<T>* source_;

  public:
    const bool sparse;
    NonZeros<T> nonzeros;
};

// The weights that a forward pass reads: all, or the first layer's apart, to be multiplied by the inputs' nonzeros.
template <class T> struct Weights {
    const PaddedMatrix<T>* first; // or null
    const LayerWeights<T>* all;
};

// The weights as each worker reads them. Where the inputs are sparse, every worker pads the first layer's for itself
// when it first asks: what one thread has written reaches another at the cost of a few copies.
template <class T> class WorkersWeights {
  public:
    WorkersWeights(const Network<T>& net, const Inputs<T>& inputs, Index rows, int workers)
        : first_(net.layers[0]), all_(net, rows, !inputs.sparse), padded_(inputs.sparse ? workers : 0), made_(padded_),
          size_(PaddedMatrix<T>::size(first_.inputs, first_.outputs)), data_(padded_ * size_) {
        made_.zeroed();
    }

    Weights<T> operator()(int worker) const {
        if (padded_ == 0) {
            return {nullptr, &all_};
        }
        Made& made = made_[worker];
        if (!made.is) {
            made = {true, {first_.weight, first_.inputs, first_.outputs, data_.data() + worker * size_}};
        }
        return {made.matrix.finite ? &made.matrix : nullptr, &all_}; // 0 times infinity is not nothing
    }
    const LayerWeights<T>& all() const { return all_; }

  private:
    struct Made {
        bool is;
        PaddedMatrix<T> matrix;
    };
    const Layer<T>& first_;
    const LayerWeights<T> all_;
    const Index padded_; // copies
    const Array<Made> made_;
    const Index size_;
    const Array<T> data_;
};

// A block of `count` rows from `first` on through the layers of the network; sparse inputs were noted from `slot` on.
// z(l) says where layer l's units (count, padded) go. keep(l, phi, at, a) sees its pre-activations, a vector at a time.
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
            multiply_nonzeros(inputs.row(first), layer.inputs, count, inputs.nonzeros, slot, *weights.first, units);
        } else {
            weights.all->multiply(0, inputs.rows(first, count), units, stride);
        }
        activate(net, l, count, units, [&](auto phi, Index at, Vec<T> a) { keep(l, phi, at, a); });
    }
}

template <class T> Index classes_of(const Network<T>& net) {
    return net.layers[net.depth - 1].outputs;
}

// z -> y (count, padded classes), may be the same array: the network's answers from its last layer's units.
template <class T> void answer_rows(const Network<T>& net, Index count, const T* z, T* y) {
    const Index classes = classes_of(net), stride = padded<T>(classes);
    for (Index i = 0; i < count; ++i, z += stride, y += stride) {
        if (net.output == Output::softmax) {
            softmax_row(z, y, classes);
        } else if (y != z) {
            std::memcpy(y, z, static_cast<std::size_t>(classes) * sizeof(T));
        }
    }
}

// The same to the network's answers, which replace the last layer's units.
template <class T, class Z, class Keep>
void forward_block(const Network<T>& net, const Weights<T>& weights, const Inputs<T>& inputs, Index first, Index count,
                   Index slot, Z&& z, Keep&& keep) {
    forward_units(net, weights, inputs, first, count, slot, z, keep);
    answer_rows<T>(net, count, z(net.depth - 1), z(net.depth - 1));
}

inline constexpr auto keep_nothing = [](auto&&...) {};

// Two buffers that the layers of a block write in turn.
template <class T> class Alternating {
  public:
    explicit Alternating(const Network<T>& net, Index rows = block_rows)
        : size_(rows * padded<T>(widest_layer(net))), data_(2 * size_) {}
    T* operator()(Index layer) const { return data_.data() + layer % 2 * size_; }

  private:
    Index size_;
    Array<T> data_;
};

// How many rows of a batch one task takes: a share for each worker, at most a block.
FASTNET_INLINE Index rows_per_task(Index rows, int workers) {
    return min_index(block_rows, round_up((rows + workers - 1) / workers, tile_rows));
}

// f(first, count, y) for each block of rows of x (rows, inputs): y (count, padded classes) is the network's answer.
template <class T, class F> void for_each_answer(const Network<T>& net, const T* x, Index rows, F&& f) {
    const int workers = workers_for(multiply_add * multiply_adds(net) * static_cast<double>(rows));
    Inputs<T> inputs(net, x, rows, workers * block_rows);
    const WorkersWeights<T> weights(net, inputs, rows, workers);
    List<Alternating<T>> units(workers);
    for (int w = 0; w < workers; ++w) {
        units.add(net);
    }
    const Index share = rows_per_task(rows, workers);
    parallel_for((rows + share - 1) / share, workers, [&](Index task, int worker) {
        const Index first = task * share, count = min_index(share, rows - first);
        const Index slot = worker * block_rows;
        inputs.note(first, count, slot);
        forward_block(net, weights(worker), inputs, first, count, slot, units[worker], keep_nothing);
        f(first, count, units[worker](net.depth - 1));
    });
}

// x (rows, inputs) -> y (rows, classes)
template <class T> void forward(const Network<T>& net, const T* x, Index rows, T* y) {
    const Index classes = classes_of(net);
    for_each_answer(net, x, rows, [&](Index first, Index count, const T* answer) {
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
    with_loss<T>(net.loss, [&](auto loss) {
        for (Index i = 0; i < count; ++i) {
            losses[i] = loss.value(y + i * padded<T>(classes), target_of(targets, first + i, classes), classes);
        }
    });
}

// The sum of the rows' losses, in their order, on top of those before.
template <class T> double sum_of(const T* losses, Index rows, double total = 0) {
    for (Index i = 0; i < rows; ++i) {
        total += static_cast<double>(losses[i]);
    }
    return total;
}

// The mean of the rows' losses, from their sum, plus the penalty: lambda/2 times the sum of all squared weights. One
// function, not inlined: the same bits wherever a loss is told.
template <class T> [[gnu::noinline]] double mean_loss(const Network<T>& net, double losses, Index rows) {
    constexpr Index chains = 16; // that the processor can add to side by side
    double squares[chains] = {};
    for (Index l = 0; l < net.depth && net.weight_decay != 0; ++l) {
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
    const double mean = losses / static_cast<double>(rows);
    return net.weight_decay == 0 ? mean : mean + net.weight_decay / 2 * total;
}

template <class T> double loss(const Network<T>& net, const Batch<T>& batch) {
    Array<T> losses(batch.rows);
    for_each_answer(net, batch.x, batch.rows, [&](Index first, Index count, const T* y) {
        row_losses(net, batch.targets, first, count, y, losses.data() + first);
    });
    return mean_loss(net, sum_of(losses.data(), batch.rows), batch.rows);
}

} // namespace fastnet::FASTNET_TARGET
