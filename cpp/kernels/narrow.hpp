// Backprop of a chunk of rows through narrow layers, whose units would leave lanes empty: the rows lie in the lanes.
//
// Units are (units, rows): the products take the weights as they are, and every vector is full. All sums are the chains
// of backprop.hpp, so that both give the same bits.
#pragma once

#include "kernels/forward.hpp"

namespace fastnet::FASTNET_TARGET {

// The sum over a row's n elements in the lanes of a vector each: add(total, k) adds element k. It has the bits of the
// row's own vectors, added up and then folded by `sum`.
template <class T, class F> FASTNET_INLINE Vec<T> sum_as_row(Index n, F&& add) {
    Vec<T> totals[lanes<T>];
    for (Index k = 0; k < n; ++k) {
        Vec<T>& total = totals[k % lanes<T>];
        total = k < lanes<T> ? Vec<T>{} : total;
        add(total, k);
    }
    Index count = min_index(n, lanes<T>);
    for (Index half = lanes<T> / 2; half > 0; half /= 2) {
        for (Index k = half; k < count; ++k) {
            totals[k - half] += totals[k];
        }
        count = min_index(count, half);
    }
    return totals[0];
}

template <class T> class NarrowChunk {
  public:
    // Whether no layer has more than so many units, and each sum is one chain.
    static bool suits(const Network<T>& net, Index most_units) {
        bool narrow = net.layers[0].inputs <= block_inner;
        for (Index l = 0; l < net.depth; ++l) {
            narrow = narrow && net.layers[l].outputs <= most_units;
        }
        return narrow;
    }

    NarrowChunk(const Network<T>& net, Index most_rows)
        : net_(net), stride_(spread<T>(most_rows)), answer_stride_(padded<T>(classes_of(net))),
          x_(net.layers[0].inputs * stride_), z_(net.depth), da_(net.depth), packed_(net.depth),
          dz_(classes_of(net) * stride_), answers_(stride_ * answer_stride_), targets_(classes_of(net) * stride_),
          labels_(stride_), ones_(stride_) {
        for (Index l = 0; l < net.depth; ++l) {
            const Index outputs = net.layers[l].outputs;
            z_.add(outputs * stride_);
            da_.add(outputs * stride_);
            packed_.add(most_rows, outputs);
        }
        for (Index i = 0; i < stride_; ++i) {
            labels_[i] = 0;
            ones_[i] = 1;
        }
        targets_.zeroed();
    }

    // The rows [first, first + count) of the batch forward, and back to the derivatives with respect to the
    // pre-activations. Fills the rows' losses.
    void derive(const Batch<T>& batch, const Inputs<T>& inputs, Index first, Index count, T* losses) {
        count_ = count;
        columns_ = round_up(count, lanes<T>);
        load_rows(inputs, first);
        load_targets(batch.targets, first);
        for (Index l = 0; l < net_.depth; ++l) {
            forward(l);
        }
        answer();
        pack_panel(transposed(rows_of<T>(z_[net_.depth - 1].data(), classes_of(net_), count, stride_)), answers_.data(),
                   answer_stride_);
        row_losses(net_, batch.targets, first, count, answers_.data(), losses);
        derive_answers(static_cast<T>(batch.rows));
        for (Index l = net_.depth - 1; l >= 0; --l) {
            packed_[l].rows = count;
            packed_[l].pack_rows(transposed(rows_of<T>(da_[l].data(), net_.layers[l].outputs, count, stride_)), 0);
            if (l > 0) {
                backward(l);
            }
        }
    }

    // The chunk's share of layer l's gradient.
    void add_up(Index l, const LayerGradient<T>& to) const {
        const Layer<T>& layer = net_.layers[l];
        gemm(rows_of(inputs_of(l), layer.inputs, count_, stride_), packed_[l], to.weight, layer.outputs, false);
        if (to.bias) {
            gemm(rows_of<T>(ones_.data(), 1, count_, stride_), packed_[l], to.bias, layer.outputs, false);
        }
    }

  private:
    // (inputs of layer l, stride)
    const T* inputs_of(Index l) const { return l > 0 ? z_[l - 1].data() : x_.data(); }

    // f(i) for each vector of the chunk's rows.
    template <class F> void for_each_vector_of_rows(F&& f) const {
        for (Index i = 0; i < columns_; i += lanes<T>) {
            f(i);
        }
    }

    // The rows of x, transposed; zeros behind them.
    void load_rows(const Inputs<T>& inputs, Index first) {
        constexpr Index ahead = 6, L = end_lanes<T>; // rows
        const Index units = net_.layers[0].inputs;
        for (Index i = 0; i < columns_; i += L) {
            const Index rows = i < count_ ? min_index(L, count_ - i) : 0;
            for (Index r = 0; inputs.source && r < min_index(L, count_ - i - ahead); ++r) {
                inputs.prefetch_row(first + i + r + ahead);
            }
            for (Index k = 0; k < units; k += L) {
                transpose_block<T>(
                    rows, min_index(L, units - k), [&](Index r) { return inputs.row_in_place(first + i + r) + k; },
                    x_.data() + k * stride_ + i, stride_);
            }
        }
    }

    void load_targets(const Targets<T>& targets, Index first) {
        const Index classes = classes_of(net_);
        if (targets.rows) {
            for (Index i = 0; i < count_; ++i) {
                for (Index k = 0; k < classes; ++k) {
                    targets_[k * stride_ + i] = targets.rows[(first + i) * classes + k];
                }
            }
            return;
        }
        for (Index i = 0; i < count_; ++i) {
            labels_[i] = static_cast<Bits<T>>(targets.labels[first + i]);
        }
        for (Index k = 0; k < classes; ++k) {
            for_each_vector_of_rows([&](Index i) {
                Vec<Bits<T>> label;
                std::memcpy(&label, labels_.data() + i, sizeof label);
                store(targets_.data() + k * stride_ + i, label == static_cast<Bits<T>>(k) ? splat(T(1)) : splat(T(0)));
            });
        }
    }

    // Layer l's units, and their slopes, which da is to be multiplied by.
    void forward(Index l) {
        const Layer<T>& layer = net_.layers[l];
        T* const z = z_[l].data();
        T* const slopes = da_[l].data();
        multiply_in_place(transposed(rows_of(layer.weight, layer.inputs, layer.outputs, layer.outputs)), inputs_of(l),
                          stride_, columns_, z, stride_, Into::set);
        with_activation(layer.activation, layer.constant, [&, columns = columns_, stride = stride_](auto phi) {
            for (Index j = 0; j < layer.outputs; ++j) {
                const bool has_bias = layer.bias;
                const Vec<T> bias = splat(has_bias ? layer.bias[j] : T(0));
                for (Index i = j * stride; i < j * stride + columns; i += lanes<T>) {
                    const Vec<T> sum = load(z + i), a = has_bias ? sum + bias : sum;
                    store(slopes + i, phi.derivative(a));
                    store(z + i, phi.value(a));
                }
            }
        });
    }

    // The last layer's units become the network's answers, as in `answer_rows`.
    void answer() {
        if (net_.output != Output::softmax) {
            return;
        }
        const Index classes = classes_of(net_), stride = stride_;
        T* const y = z_[net_.depth - 1].data();
        for_each_vector_of_rows([&](Index i) {
            Vec<T> top = load(y + i);
            for (Index k = 0; k < classes; ++k) {
                const Vec<T> a = load(y + k * stride + i);
                top = ((a > top) | (top != top)) ? a : top; // as if NaN were not there
            }
            const Vec<T> total = sum_as_row<T>(classes, [&](Vec<T>& sum, Index k) {
                T* const at = y + k * stride + i;
                const Vec<T> e = exp_negative<T>(load(at) - top);
                store(at, e);
                sum += e;
            });
            for (Index k = 0; k < classes; ++k) {
                T* const at = y + k * stride + i;
                store(at, load(at) / total);
            }
        });
    }

    // The last layer's da, from its slopes and the derivative of the mean loss of `rows` rows, as in `derive_row`.
    void derive_answers(T rows) {
        const Index classes = classes_of(net_), stride = stride_;
        const bool is_softmax = net_.output == Output::softmax;
        const T* const y = z_[net_.depth - 1].data();
        T* const dz = dz_.data();
        T* const da = da_[net_.depth - 1].data();
        with_loss<T>(net_.loss, net_.loss_constant, [&](auto loss) {
            for_each_vector_of_rows([&](Index i) {
                const Vec<T> products = sum_as_row<T>(classes, [&](Vec<T>& sum, Index k) {
                    const Index at = k * stride + i;
                    const Vec<T> d = loss.derivative(load(y + at), load(targets_.data() + at));
                    store(dz + at, d);
                    sum += load(y + at) * d;
                });
                const Vec<T> inner = is_softmax ? products : Vec<T>{};
                for (Index k = 0; k < classes; ++k) {
                    const Index at = k * stride + i;
                    const Vec<T> d = load(dz + at);
                    store(da + at, load(da + at) * ((is_softmax ? load(y + at) * (d - inner) : d) / rows));
                }
            });
        });
    }

    // From da of layer l to that of the layer before.
    void backward(Index l) {
        const Layer<T>& layer = net_.layers[l];
        multiply_in_place(rows_of(layer.weight, layer.inputs, layer.outputs, layer.outputs), da_[l].data(), stride_,
                          columns_, da_[l - 1].data(), stride_, Into::scale);
    }

    const Network<T>& net_;
    const Index stride_; // of a unit's rows
    const Index answer_stride_;
    const Array<T> x_;                  // (inputs, stride)
    FixedList<Array<T>> z_, da_;        // of each layer (units, stride): its units, and the derivative before them
    FixedList<PackedMatrix<T>> packed_; // da, for the product with the layer's inputs
    const Array<T> dz_;                 // (classes, stride)
    const Array<T> answers_;            // (rows, answer stride)
    const Array<T> targets_;            // (classes, stride)
    const Array<Bits<T>> labels_;       // (stride)
    const Array<T> ones_;               // (stride)
    Index count_ = 0, columns_ = 0;     // rows, and how many the vectors have
};

} // namespace fastnet::FASTNET_TARGET
