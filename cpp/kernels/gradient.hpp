// A finite-difference gradient in the making: chunks of rows, tables of the effects of moves, sums of them.
//
// A weight moves its unit's pre-activation by h times its input, a bias by h. Inputs of 0 move nothing; equal inputs of
// a row move it equally, and are evaluated once. The effects of a row's distinct moves go into a table, from which they
// are added to the gradient. Threads share out the tables, and then the gradient's rows, so that its sums have one
// order.
#pragma once

#include "kernels/distinct_values.hpp"
#include "kernels/loop.hpp"
#include "kernels/lost_entries.hpp"
#include "kernels/move_effects.hpp"

namespace fastnet::FASTNET_TARGET {

template <class T, class Effects = MoveEffects<T>> class GradientAccumulator {
  public:
    // `cost` is the approximate work for each row, in forward passes.
    GradientAccumulator(const Network<T>& net, const Batch<T>& batch, double h, double cost,
                        const LayerGradient<T>* gradient, Diagnostics& diagnostics)
        : net_(net), batch_(batch), h_(static_cast<T>(h)),
          scale_(static_cast<T>(1 / (divisor(static_cast<double>(h_)) * static_cast<double>(batch.rows)))),
          gradient_(gradient), diagnostics_(diagnostics), chunk_rows_(chunk_rows(net, batch)),
          base_(net, batch, chunk_rows_), effects_(base_),
          workers_(workers_for(cost * multiply_add * multiply_adds(net) * static_cast<double>(batch.rows))),
          works_(workers_), values_(net.depth), obstacles_(workers_), lost_(workers_) {
        lost_.zeroed();
        for (Index l = 0; l < net.depth; ++l) {
            values_.add(chunk_rows_, net.layers[l].inputs);
            units_ += net.layers[l].outputs;
        }
        for (int w = 0; w < workers_; ++w) {
            works_.add(net);
            obstacles_.add(units_).zeroed();
        }
    }

    // f(first, rows) for each chunk of rows, after its forward pass. Then the penalty's gradient is added, and the
    // diagnostics are filled.
    template <class F> void for_each_chunk(F&& f) {
        bool finite = true;
        for (Index first = 0; first < batch_.rows && finite; first += chunk_rows_) {
            const Index rows = min_index(chunk_rows_, batch_.rows - first);
            base_.run(first, rows);
            finite = base_.finite;
            if (finite) {
                f(first, rows);
            }
        }
        for (Index l = 0; l < net_.depth; ++l) {
            if (!finite) { // a difference of losses that are not finite is not finite either
                fill(l, static_cast<T>(__builtin_nan("")));
            }
            add_penalty(l);
        }
        if (finite && any_lost()) {
            evaluate_plainly();
        }
        diagnostics_.loss = mean_loss(net_, base_.losses, batch_.rows);
        report();
    }

    // Adds the effects of the moves of a chunk's rows, for the units that the mask wanted(l, row) says.
    template <class Wanted> void add_moves(Index rows, Wanted&& wanted) {
        find_values(rows, wanted);
        Index begin = 0;
        const Index end = net_.depth * rows;
        while (begin < end) {
            // The table holds as many (layer, row) pairs as it has room for.
            Index next = begin, elements = 0;
            for (; next < end && (next == begin || elements < most_elements); ++next) {
                offsets_[next] = elements;
                elements += values_[next / rows].count[next % rows] * padded<T>(net_.layers[next / rows].outputs);
            }
            const Array<T> table(elements);
            parallel_for(next - begin, workers_, [&](Index task, int worker) {
                const Index l = (begin + task) / rows, row = (begin + task) % rows;
                fill_table(l, row, wanted(l, row), table.data() + offsets_[begin + task], worker);
            });
            add_table(begin, next, rows, table.data());
            begin = next;
        }
    }

    // Makes every element of layer l's gradient the same.
    void fill(Index l, T value) const {
        const Layer<T>& layer = net_.layers[l];
        for (Index i = 0; i < layer.inputs * layer.outputs; ++i) {
            gradient_[l].weight[i] = value;
        }
        if (layer.bias) {
            for (Index i = 0; i < layer.outputs; ++i) {
                gradient_[l].bias[i] = value;
            }
        }
    }

    const BasePoints<T>& base() const { return base_; }
    const Effects& effects() const { return effects_; }
    typename Effects::Workspace& work(int worker) const { return works_[worker]; }
    int workers() const { return workers_; }
    Index most_rows() const { return chunk_rows_; }
    T h() const { return h_; }
    T scale() const { return scale_; }
    Diagnostics& diagnostics() { return diagnostics_; }

    // What the moves of a layer's units (outputs) that a worker has evaluated met.
    unsigned char* obstacles(Index l, int worker) const {
        unsigned char* at = obstacles_[worker].data();
        for (Index i = 0; i < l; ++i) {
            at += net_.layers[i].outputs;
        }
        return at;
    }

  private:
    struct Values { // of one layer's inputs, for each row of a chunk
        Values(Index rows, Index inputs)
            : value(rows * (inputs + 1)), which(rows * inputs), count(rows), distinct(inputs + 1) {}
        const Array<T> value;            // (rows, inputs + 1): the distinct ones; 1 first, for a bias
        const Array<std::int32_t> which; // (rows, inputs)
        const Array<Index> count;        // (rows)
        const DistinctValues<T> distinct;
    };

    // What the effects are divided by.
    static double divisor(double h) { return Effects::power == 1 ? 2 * h : h * h; }

    static constexpr Index most_elements = (Index{8} << 20) / static_cast<Index>(sizeof(T)); // of a table

    // Rows in a chunk: their base points and values take some MiB at most, however large the batch.
    static Index chunk_rows(const Network<T>& net, const Batch<T>& batch) {
        Index bytes = 0;
        for (Index l = 0; l < net.depth; ++l) {
            const Layer<T>& layer = net.layers[l];
            bytes += layer.inputs * static_cast<Index>(sizeof(T) + sizeof(std::int32_t)) +
                     8 * padded<T>(layer.outputs) * static_cast<Index>(sizeof(T));
        }
        const Index rows = (Index{8} << 20) / bytes;
        return min_index(min_index(rows > 1 ? rows : 1, block_inner), batch.rows);
    }

    template <class Wanted> void find_values(Index rows, Wanted&& wanted) {
        parallel_for(net_.depth * rows, workers_, [&](Index task, int) {
            const Index l = task / rows, row = task % rows, inputs = net_.layers[l].inputs;
            Values& v = values_[l];
            if (wanted(l, row).kind == UnitMask::none) {
                v.count[row] = 0;
                return;
            }
            const Array<std::int32_t> slots(v.distinct.workspace());
            v.count[row] =
                v.distinct.find(base_.input(l, row), inputs, net_.layers[l].bias != nullptr,
                                v.value.data() + row * (inputs + 1), v.which.data() + row * inputs, slots.data());
        });
    }

    // The table of a row's moves of layer l: (count, padded units), scaled to central differences.
    void fill_table(Index l, Index row, UnitMask wanted, T* table, int worker) {
        const Layer<T>& layer = net_.layers[l];
        const Values& v = values_[l];
        const Index count = v.count[row];
        if (count == 0) {
            return;
        }
        const Array<T> moves(count);
        const T* values = v.value.data() + row * (layer.inputs + 1);
        for (Index i = 0; i < count; ++i) {
            moves[i] = h_ * values[i];
        }
        const Index stride = padded<T>(layer.outputs), size = count * stride;
        const Results<T> results{table, stride, obstacles(l, worker)};
        effects_.evaluate(l, row, moves.data(), count, wanted, results, works_[worker]);
        Vec<Bits<T>> lost{};
        for (Index i = 0; i < size; i += lanes<T>) {
            const Vec<T> effects = load(table + i);
            lost |= effects - effects != 0; // NaN or infinite
            store(table + i, effects * scale_);
        }
        lost_[worker] |= any<T>(lost);
    }

    bool any_lost() const {
        bool lost = false;
        for (int w = 0; w < workers_; ++w) {
            lost |= lost_[w];
        }
        return lost;
    }

    // Takes the entries from the loop that a move with lost digits, or an overflow on the way, has made NaN.
    void evaluate_plainly() const {
        if constexpr (Effects::power == 1) {
            const Batch<T> rows{batch_.x, batch_.rows, batch_.targets}; // which the source has filled
            replace_lost_entries<T>(
                [&](auto&& f) {
                    for (Index l = 0; l < net_.depth; ++l) {
                        const Layer<T>& layer = net_.layers[l];
                        f(gradient_[l].weight, layer.inputs * layer.outputs);
                        f(gradient_[l].bias, layer.bias ? layer.outputs : 0);
                    }
                },
                [&](const std::int64_t* entries, Index count, T* differences) {
                    loop(net_, rows, static_cast<double>(h_), entries, count, differences);
                });
        }
    }

    // Adds the tables of the (layer, row) pairs [begin, end), rows ascending, to the gradient.
    void add_table(Index begin, Index end, Index rows, const T* table) {
        constexpr Index group = 64; // rows of a weight in a task
        const Index first_layer = begin / rows, last_layer = (end - 1) / rows;
        Index tasks = 0;
        for (Index l = first_layer; l <= last_layer; ++l) {
            tasks += (net_.layers[l].inputs + group - 1) / group;
        }
        parallel_for(tasks, workers_, [&](Index task, int) {
            Index l = first_layer;
            for (; task >= (net_.layers[l].inputs + group - 1) / group; ++l) {
                task -= (net_.layers[l].inputs + group - 1) / group;
            }
            const Layer<T>& layer = net_.layers[l];
            const Values& v = values_[l];
            const Index stride = padded<T>(layer.outputs), first = task * group;
            const Index last = min_index(first + group, layer.inputs);
            const auto add = [&](const T* from, T* to) {
                for_each_vector<T>(layer.outputs, [&](Index j, Index count) {
                    store(to + j, load(to + j, count) + load(from + j), count);
                });
            };
            for (Index pair = begin > l * rows ? begin : l * rows; pair < min_index(end, (l + 1) * rows); ++pair) {
                const Index row = pair % rows;
                if (v.count[row] == 0) {
                    continue;
                }
                const T* moves = table + offsets_[pair];
                const std::int32_t* which = v.which.data() + row * layer.inputs;
                for (Index i = first; i < last; ++i) {
                    if (which[i] >= 0) {
                        add(moves + which[i] * stride, gradient_[l].weight + i * layer.outputs);
                    }
                }
                if (first == 0 && gradient_[l].bias) {
                    add(moves, gradient_[l].bias);
                }
            }
        });
    }

    // Adds the penalty's derivative with respect to layer l's weight, the first or the second.
    void add_penalty(Index l) const {
        const T decay = static_cast<T>(net_.weight_decay);
        if (decay != 0) {
            const Layer<T>& layer = net_.layers[l];
            for (Index i = 0; i < layer.inputs * layer.outputs; ++i) {
                gradient_[l].weight[i] += Effects::power == 1 ? decay * layer.weight[i] : decay;
            }
        }
    }

    void report() {
        for (int w = 0; w < workers_; ++w) {
            diagnostics_.evaluations += works_[w].evaluations;
            for (Index l = 0; l < net_.depth; ++l) {
                for (Index j = 0; j < net_.layers[l].outputs; ++j) {
                    diagnostics_.kinked[l][j] |= (obstacles(l, w)[j] & obstacle::kink) != 0;
                }
            }
        }
    }

    const Network<T>& net_;
    const Batch<T>& batch_;
    const T h_, scale_; // scale: 1 / 2hN, or 1 / h^2 N
    const LayerGradient<T>* gradient_;
    Diagnostics& diagnostics_;
    const Index chunk_rows_;
    BasePoints<T> base_;
    const Effects effects_;
    const int workers_;
    FixedList<typename Effects::Workspace> works_;
    FixedList<Values> values_;
    FixedList<Array<unsigned char>> obstacles_;
    const Array<bool> lost_; // (workers): whether a table had moves that lose digits
    Index units_ = 0;
    const Array<Index> offsets_{net_.depth * chunk_rows_}; // of the (layer, row) pairs in the table
};

} // namespace fastnet::FASTNET_TARGET
