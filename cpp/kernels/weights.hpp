// A network's weights in the layouts that products read: packed, or padded for the inputs' nonzeros.
#pragma once

#include "kernels/nonzero_products.hpp"

namespace fastnet::FASTNET_TARGET {

// Every layer's weight, the first one's only if `with_first`. They are packed once for products of many rows, and stay
// where they are for products of a few.
template <class T> class LayerWeights {
  public:
    LayerWeights(const Network<T>& net, Index rows, bool with_first) : net_(net), packed_(net.depth) {
        if (rows > few_rows) {
            for (Index l = 0; l < net.depth; ++l) {
                packed_.add(l > 0 || with_first ? weight(l) : submatrix(weight(l), 0, 0, 0, 0));
            }
        }
    }
    // c (rows, outputs) = a (rows, inputs) . weight of layer l
    void multiply(Index l, Matrix<T> a, T* c, Index ldc) const {
        is_packed(l) ? gemm(a, packed_[l], c, ldc, false) : gemm(a, weight(l), c, ldc, false);
    }
    // Packs the rows [first, first + rows) of layer l's weight again; they lie in one block of the inner dimension.
    void pack_rows(Index l, Index first, Index rows) const {
        if (is_packed(l)) {
            packed_[l].pack_rows(submatrix(weight(l), first, rows, 0, net_.layers[l].outputs), first);
        }
    }
    // The element of the packed copy.
    T& at(Index l, Index row, Index column) const { return packed_[l].at(row, column); }

  private:
    bool is_packed(Index l) const { return packed_.size() > 0 && packed_[l].columns > 0; }

    Matrix<T> weight(Index l) const {
        const Layer<T>& layer = net_.layers[l];
        return rows_of(layer.weight, layer.inputs, layer.outputs, layer.outputs);
    }

    const Network<T> net_;
    FixedList<PackedMatrix<T>> packed_;
};

// The weights that a forward pass reads: all, or the first layer's apart, to be multiplied by the inputs' nonzeros.
template <class T> struct Weights {
    const PaddedMatrix<T>* first; // or null
    const LayerWeights<T>* all;
};

// The weights as each worker reads them. Where the inputs are sparse, every worker pads the first layer's weight for
// itself: a worker that read what another has just written would wait for about as long as a few copies take.
template <class T> class PerWorkerWeights {
  public:
    PerWorkerWeights(const Network<T>& net, bool sparse_inputs, Index rows, int workers)
        : first_(net.layers[0]), all_(net, rows, !sparse_inputs), copies_(sparse_inputs ? workers : 0),
          padded_(copies_), size_(PaddedMatrix<T>::size(first_.inputs, first_.outputs)), data_(copies_ * size_) {
        padded_.zeroed();
    }

    // The worker's weights; its first call makes its own padded copy.
    Weights<T> prepare(int worker) {
        if (copies_ == 0) {
            return {nullptr, &all_};
        }
        Padded& copy = padded_[worker];
        if (!copy.made) {
            copy = {true, {first_.weight, first_.inputs, first_.outputs, data_.data() + worker * size_}};
        }
        return {copy.matrix.finite ? &copy.matrix : nullptr, &all_}; // 0 x infinity is NaN: zeros may not be skipped
    }
    const LayerWeights<T>& all() const { return all_; }

  private:
    struct Padded {
        bool made;
        PaddedMatrix<T> matrix;
    };
    const Layer<T>& first_;
    const LayerWeights<T> all_;
    const Index copies_; // one for each worker, or none
    const Array<Padded> padded_;
    const Index size_;
    const Array<T> data_;
};

// Takes a product that is the gradient of rows of the first layer's weight, and makes the step of plain descent with
// it, in both layouts of the weight: the bits of `update`, without an array for the gradient.
template <class T> struct Descent {
    T* weight; // the first of these rows, of n elements
    Index n;
    T* padded;
    Index stride;
    T rate;
    Vec<T>* zeros; // (most_vectors): sums of 0 x each element, NaN where one is not finite

    FASTNET_INLINE void operator()(Index i, Index j, Vec<T> gradient, Index count) const {
        T* const to = weight + i * n + j;
        const Vec<T> after = load(to, count) - rounded<T>(rate * gradient);
        store(to, after, count);
        store(padded + i * stride + j, after);
        zeros[j / lanes<T> % most_vectors] += after * T(0);
    }
};

// The weights as training reads them. The layouts are kept from step to step: whoever changes rows of a weight renews
// them, while they are in his cache.
template <class T> class TrainingWeights {
  public:
    static constexpr Index group = NonZeros<T>::group;

    TrainingWeights(const Network<T>& net, bool sparse_inputs, Index rows)
        : first_(net.layers[0]), all_(net, rows, !sparse_inputs), groups_(sparse_inputs ? groups_of(first_) : 0),
          memory_(groups_ > 0 ? PaddedMatrix<T>::size(first_.inputs, first_.outputs) : 0),
          padded_(first_.outputs, memory_.data()), finite_(groups_) {
        for (Index g = 0; g < groups_; ++g) {
            renew(0, g * group, min_index(group, first_.inputs - g * group));
        }
    }

    Weights<T> prepare(int) const {
        bool finite = groups_ > 0;
        for (Index g = 0; g < groups_; ++g) {
            finite &= finite_[g];
        }
        return {finite ? &padded_ : nullptr, &all_}; // 0 x infinity is NaN: zeros may not be skipped
    }

    // The rows [first, first + rows) of layer l's weight, a group, have changed.
    void renew(Index l, Index first, Index rows) const {
        if (l == 0 && groups_ > 0) {
            finite_[first / group] = padded_.copy_rows(first_.weight, first, rows, first_.outputs);
        } else {
            all_.pack_rows(l, first, rows);
        }
    }

    // Changes the rows [first, …) of the first layer's weight, a group, by a step of plain descent: multiply(put) gives
    // put their gradient. `weight` is where the network's is.
    template <class F> void descend(T* weight, T rate, Index first, F&& multiply) const {
        Vec<T> zeros[most_vectors] = {};
        multiply(Descent<T>{weight + first * first_.outputs, first_.outputs, padded_.row(first), padded_.stride, rate,
                            zeros});
        for (int v = 1; v < most_vectors; ++v) {
            zeros[0] += zeros[v];
        }
        finite_[first / group] = sum<T>(zeros[0]) == 0;
    }

  private:
    static Index groups_of(const Layer<T>& layer) { return (layer.inputs + group - 1) / group; }

    const Layer<T>& first_;
    const LayerWeights<T> all_;
    const Index groups_; // of the first layer's inputs, where they are sparse
    const Array<T> memory_;
    const PaddedMatrix<T> padded_; // the first layer's weight
    const Array<bool> finite_;     // (groups): whether their rows are
};

} // namespace fastnet::FASTNET_TARGET
