// The base points of finite differences: a forward pass over a chunk of rows that keeps what they need of every unit.
#pragma once

#include "kernels/forward.hpp"

namespace fastnet::FASTNET_TARGET {

template <class T> class BasePoints {
  public:
    // For chunks of at most `rows` rows.
    BasePoints(const Network<T>& network, const Batch<T>& data, Index most_rows)
        : net(network), batch(data), inputs(make_inputs(net, batch.x, batch.rows, most_rows, batch.source)),
          workers_(workers_for(multiply_add * multiply_adds(net) * static_cast<double>(most_rows))),
          weights_(net, inputs.sparse, net.depth > 2 ? few_rows + 1 : most_rows, workers_), units_(net.depth),
          classes_(classes_of(net)), widest_(most_rows), answers_(most_rows * padded<T>(classes_)),
          likeliest_(most_rows), losses_(most_rows), far_(most_rows) {
        for (Index l = 0; l < net.depth; ++l) {
            units_.add(most_rows * padded<T>(net.layers[l].outputs));
        }
    }

    // The forward pass of rows [first, first + rows) of the batch, which are the chunk's rows 0, 1, … from now on.
    void run(Index first, Index rows) {
        first_ = first;
        const Index share = rows_per_task(rows, workers_);
        parallel_for((rows + share - 1) / share, workers_, [&](Index task, int worker) {
            const Index begin = task * share;
            run_block(begin, min_index(share, rows - begin), weights_.prepare(worker));
        });
        finite = all_finite(losses_.data(), rows);
        losses = sum_of(losses_.data(), rows, losses);
    }

    // Layer l's inputs (inputs) for a row of the chunk.
    const T* input(Index l, Index row) const {
        return l == 0 ? inputs.row(first_ + row) : units_[l - 1].z.data() + row * padded<T>(net.layers[l].inputs);
    }

    // The greatest size of layer l's inputs for a row of the chunk.
    T widest_input(Index l, Index row) const {
        return l == 0 ? widest_[row] : greatest_size(input(l, row), net.layers[l].inputs);
    }

    // Layer l's inputs for the rows [0, rows) of the chunk.
    Matrix<T> input_rows(Index l, Index rows) const {
        const Index columns = net.layers[l].inputs;
        return l == 0 ? inputs.rows(first_, rows)
                      : rows_of<T>(units_[l - 1].z.data(), rows, columns, padded<T>(columns));
    }

    // The base points of a vector of layer l's units, from unit j on.
    BasePoint<T> at(Index l, Index row, Index j) const {
        const Units& u = units_[l];
        const Index i = row * padded<T>(net.layers[l].outputs) + j;
        return {load(u.a.data() + i), load(u.s.data() + i), load(u.c.data() + i)};
    }

    // The base point of one unit, in every lane.
    BasePoint<T> at_unit(Index l, Index row, Index j) const {
        const Units& u = units_[l];
        const Index i = row * padded<T>(net.layers[l].outputs) + j;
        return {splat(u.a[i]), splat(u.s[i]), splat(u.c[i])};
    }

    Answer<T> answer(Index row) const {
        const Index at = row * padded<T>(classes_);
        return {units_[net.depth - 1].z.data() + at, answers_.data() + at, classes_, likeliest_[row]};
    }

    // The target of a row; a one-hot row is replaced by its label.
    Target<T> target(Index row) const {
        const Target<T> t = target_of(batch.targets, first_ + row, classes_);
        if (!t.row) {
            return t;
        }
        Index ones = 0, others = 0, label = 0;
        for (Index k = 0; k < classes_; ++k) {
            ones += t.row[k] == 1;
            others += t.row[k] != 0 && t.row[k] != 1;
            label = t.row[k] == 1 ? k : label;
        }
        return ones == 1 && others == 0 ? Target<T>{label, nullptr} : t;
    }

    // Whether a row's loss, or any of its pre-activations, is so far from 0 that moves may lose digits.
    bool is_far(Index row) const { return far_[row]; }
    T loss(Index row) const { return losses_[row]; }

    // The weights, packed where many differences go through them.
    const LayerWeights<T>& layer_weights() const { return weights_.all(); }

    const Network<T>& net;
    const Batch<T>& batch;
    Inputs<T> inputs;
    bool finite = true; // whether every row's loss is
    double losses = 0;  // the sum over all rows so far

  private:
    struct Units { // each (rows, outputs; padded)
        explicit Units(Index size) : z(size), a(size), s(size), c(size) {}
        const Array<T> z, a, s, c;
    };

    void run_block(Index begin, Index count, const Weights<T>& block_weights) {
        inputs.load_rows(first_ + begin, count, begin);
        for (Index i = begin; i < begin + count; ++i) { // while it is in the cache
            widest_[i] = greatest_size(input(0, i), net.layers[0].inputs);
        }
        const auto from = [&](const Array<T>& units, Index l) {
            return units.data() + begin * padded<T>(net.layers[l].outputs);
        };
        const Index last = net.depth - 1;
        forward_units(
            net, block_weights, inputs, first_ + begin, count, begin, [&](Index l) { return from(units_[l].z, l); },
            [&](Index l) {
                return [a_of = from(units_[l].a, l), s_of = from(units_[l].s, l), c_of = from(units_[l].c, l),
                        stride = padded<T>(net.layers[l].outputs)](auto phi, Index i, Index j, Vec<T> a) {
                    const BasePoint<T> point = phi.base_point(a);
                    const Index at = i * stride + j;
                    store(a_of + at, point.a);
                    store(s_of + at, point.s);
                    store(c_of + at, point.c);
                };
            });
        T* y = from(answers_, last);
        answer_rows<T>(net, count, from(units_[last].z, last), y);
        row_losses(net, batch.targets, first_ + begin, count, y, losses_.data() + begin);
        for (Index i = 0; i < count; ++i, y += padded<T>(classes_)) {
            Index best = 0;
            for (Index k = 1; k < classes_; ++k) {
                best = y[k] > y[best] ? k : best;
            }
            likeliest_[begin + i] = best;
            far_[begin + i] = !(furthest(begin + i) <= far_from_zero<T>);
        }
    }

    // The greatest size of a row's loss and pre-activations.
    T furthest(Index row) const {
        T most = losses_[row] < 0 ? -losses_[row] : losses_[row];
        for (Index l = 0; l < net.depth; ++l) {
            const Index outputs = net.layers[l].outputs;
            const T size = greatest_size(units_[l].a.data() + row * padded<T>(outputs), outputs);
            most = size > most ? size : most;
        }
        return most;
    }

    const int workers_;
    PerWorkerWeights<T> weights_;
    FixedList<Units> units_;
    const Index classes_;
    const Array<T> widest_; // (rows): the greatest size of an input
    const Array<T> answers_;
    const Array<Index> likeliest_;
    const Array<T> losses_;
    const Array<bool> far_; // (rows)
    Index first_ = 0;
};

} // namespace fastnet::FASTNET_TARGET
