// A batch through the stages of a network to its loss.
//
// Stages are done in segments. Within a segment, threads share out what its stages do not couple: rows, images, or
// columns of the batch. A segment ends where the next stage couples what its threads have shared out.
#pragma once

#include "kernels/backprop.hpp"
#include "kernels/batch_norm.hpp"
#include "kernels/patches.hpp"
#include "kernels/philox.hpp"
#include "kernels/pooling.hpp"
#include "kernels/stage_properties.hpp"

namespace fastnet::FASTNET_TARGET {

// What a segment's threads share out: blocks of rows, rows one by one (images are long rows), or columns of all rows.
enum class Domain { rows, images, columns };

struct Segment {
    Domain domain;
    Index first, last; // stages [first, last)
};

template <class T> double multiply_adds(const StageNetwork<T>& net) {
    double count = 0;
    for (Index s = 0; s < net.depth; ++s) {
        const Stage<T>& stage = net.stages[s];
        const double outputs = static_cast<double>(stage.outputs);
        if (stage.kind == StageKind::affine) {
            count += static_cast<double>(stage.inputs) * outputs;
        } else if (stage.kind == StageKind::convolution) {
            count += static_cast<double>(patch_size(stage.windows)) * outputs;
        } else {
            count += 4 * outputs;
        }
    }
    return count;
}

// The last stage as a network of one layer, for the functions of answers and losses.
template <class T> Layer<T> answer_layer(const StageNetwork<T>& net) {
    const Index classes = net.stages[net.depth - 1].outputs;
    return {nullptr, nullptr, classes, classes, Activation::identity, T(0)};
}

// The base points of some units: arrays of their parts, `size` apart.
template <class T> struct PointRow {
    const T* first;
    Index size;

    // That of one unit, in every lane.
    FASTNET_INLINE BasePoint<T> operator[](Index j) const {
        return {splat(first[j]), splat(first[j + size]), splat(first[j + 2 * size])};
    }
};

// What a pass keeps of each activation, besides its values: for the way back the slopes, and for differences the base
// points.
enum class Keep { nothing, slopes, points };

template <class T> class StageBackward;

template <class T> class StagePass {
  public:
    // `rows` at most go through at a time. Where `training` is false, stages do what they do in inference.
    StagePass(const StageNetwork<T>& net, Index rows, int workers, bool training, Keep keep)
        : net_(net), rows_(rows), workers_(workers), training_(training), keep_(keep), answer_layer_(answer_layer(net)),
          answers_{&answer_layer_, 1, net.output, net.loss, net.loss_constant, 0}, segments_(net.depth),
          slots_(net.depth), values_(net.depth), kept_(net.depth), winners_(net.depth), inverses_(net.depth),
          y_(rows * padded<T>(classes())), losses_(rows), patches_(workers) {
        Index patches = 0;
        for (Index s = 0; s < net.depth; ++s) {
            const Stage<T>& stage = net.stages[s];
            const bool fresh = s == 0 || makes_units(stage);
            slots_[s] = fresh ? values_.size() : slots_[s - 1];
            if (fresh) {
                values_.add(rows * stride(s));
            }
            const bool normalises = couples_rows(stage) && training;
            const bool keeps = stage.kind == StageKind::activation ? keep != Keep::nothing
                               : stage.kind == StageKind::dropout  ? training
                                                                   : normalises;
            const Index arrays = stage.kind == StageKind::activation && keep == Keep::points ? 3 : 1;
            kept_.add(keeps ? arrays * rows * stride(s) : 0);
            inverses_.add(normalises ? stage.outputs / stage.positions : 0);
            winners_.add(stage.kind == StageKind::max_pooling ? rows * stage.outputs : 0);
            if (stage.kind == StageKind::convolution) {
                const Index size = patch_size(stage.windows) * stage.windows.positions();
                patches = size > patches ? size : patches;
            }
            add_to_segments(s);
        }
        for (int w = 0; w < workers; ++w) {
            patches_.add(patches);
        }
    }

    // x (rows, inputs) through the stages to the answers. The running statistics take part if `counts`.
    void forward(Inputs<T>& inputs, Index rows, bool counts) {
        counts_ = counts;
        count_ = rows;
        inputs_ = &inputs;
        const Stage<T>& first = net_.stages[0];
        const bool affine_first = first.kind == StageKind::affine;
        const Layer<T> layer{first.weight, first.bias, first.inputs, first.outputs, Activation::identity, T(0)};
        const Network<T> first_net{&layer, 1, Output::identity, Loss::mean_squared_error, T(0), 0};
        PerWorkerWeights<T> first_weights(first_net, inputs.sparse, affine_first ? rows : 0, workers_);
        FixedList<PackedMatrix<T>> packed(net_.depth);
        for (Index s = 0; s < net_.depth; ++s) {
            const Stage<T>& stage = net_.stages[s];
            const bool packs = s > 0 && stage.kind == StageKind::affine && rows > few_rows;
            packed.add(rows_of(stage.weight, packs ? stage.inputs : 0, packs ? stage.outputs : 0, stage.outputs));
        }
        const bool loads_first = segments_[0].domain == Domain::columns;
        if (loads_first) {
            parallel_rows([&](Index begin, Index count, int) { inputs.load_rows(begin, count, begin); });
        }
        for (Index g = 0; g < segments_.size(); ++g) {
            for_each_part(segments_[g], [&](Index begin, Index count, int worker) {
                if (g == 0 && !loads_first) {
                    inputs.load_rows(begin, count, begin);
                }
                for (Index s = segments_[g].first; s < segments_[g].last; ++s) {
                    if (segments_[g].domain == Domain::columns) {
                        forward_columns(s, begin, count);
                    } else if (s == 0 && affine_first) {
                        first_affine(first_weights.prepare(worker), begin, count);
                    } else {
                        forward_rows(s, packed[s], begin, count, worker);
                    }
                }
            });
        }
        if (counts) {
            count_pass();
        }
    }

    // The answers (rows, padded classes), after `forward`.
    const T* answers() {
        const Index width = padded<T>(classes());
        parallel_rows([&](Index begin, Index count, int) {
            answer_rows(answers_, count, last_units() + begin * width, y_.data() + begin * width);
        });
        return y_.data();
    }

    // The mean of the rows' losses, without the penalty, after `forward`.
    double mean_of_losses(const Targets<T>& targets) {
        const Index width = padded<T>(classes());
        parallel_rows([&](Index begin, Index count, int) {
            T* y = y_.data() + begin * width;
            answer_rows(answers_, count, last_units() + begin * width, y);
            row_losses(answers_, targets, begin, count, y, losses_.data() + begin);
        });
        return sum_of(losses_.data(), count_) / static_cast<double>(count_);
    }

    // Whether any loss, unit or pre-activation is so far from 0 that moves may lose digits.
    bool is_far() const {
        T most = greatest_size(losses_.data(), count_);
        for (Index s = 0; s < net_.depth; ++s) {
            const Stage<T>& stage = net_.stages[s];
            for (Index i = 0; i < count_ && (stage.kind == StageKind::activation || s == net_.depth - 1); ++i) {
                const T* const a = stage.kind == StageKind::activation ? points(s, i).first : answer(i).z;
                const T size = greatest_size(a, stage.outputs);
                most = size > most ? size : most;
            }
        }
        return !(most <= far_from_zero<T>);
    }
    T row_loss(Index row) const { return losses_[row]; }

    double penalty() const {
        double total = 0;
        for (Index s = 0; s < net_.depth && net_.weight_decay != 0; ++s) {
            const Stage<T>& stage = net_.stages[s];
            for (Index i = 0; i < decayed_size(stage); ++i) {
                const double w = static_cast<double>(stage.weight[i]);
                total += w * w;
            }
        }
        return net_.weight_decay / 2 * total;
    }

    // What a pass in training has found, for rows [0, rows). Units are those that the next stage takes.
    const StageNetwork<T>& net() const { return net_; }
    Index rows() const { return count_; }
    int workers() const { return workers_; }
    Index classes() const { return answer_layer_.outputs; }
    // The distance of two rows of stage s's units.
    Index stride(Index s) const { return padded<T>(net_.stages[s].outputs); }
    T* units(Index s) const { return values_[slots_[s]].data(); }
    // The input of stage s at a row, and the distance of two rows.
    const T* input(Index s, Index row) const { return s == 0 ? inputs_->row(row) : units(s - 1) + row * stride(s - 1); }
    Index input_stride(Index s) const { return s == 0 ? inputs_->columns : stride(s - 1); }
    // Dropout's mask, or the normalised values (rows, stride).
    const T* kept(Index s) const { return kept_[s].data(); }
    // 1 / deviation of a batch normalisation's columns.
    const double* inverses(Index s) const { return inverses_[s].data(); }
    // The base points of an activation's units in a row.
    PointRow<T> points(Index s, Index row) const { return {kept_[s].data() + row * stride(s), rows_ * stride(s)}; }
    // The numbers of the elements that a max pooling found to be the greatest.
    const std::int32_t* winners(Index s, Index row) const { return winners_[s].data() + row * net_.stages[s].outputs; }
    Answer<T> answer(Index row) const {
        const T* y = y_.data() + row * padded<T>(classes());
        Index likeliest = 0;
        for (Index k = 1; k < classes(); ++k) {
            likeliest = y[k] > y[likeliest] ? k : likeliest;
        }
        return {units(net_.depth - 1) + row * stride(net_.depth - 1), y, classes(), likeliest};
    }

  private:
    friend class StageBackward<T>;

    const T* last_units() const { return units(net_.depth - 1); }
    static Index decayed_size(const Stage<T>& stage) {
        return stage.kind == StageKind::affine        ? stage.inputs * stage.outputs
               : stage.kind == StageKind::convolution ? filters_of(stage) * patch_size(stage.windows)
                                                      : 0;
    }
    static Index filters_of(const Stage<T>& stage) { return stage.outputs / stage.windows.positions(); }
    // Elements of a convolution's weight and bias.
    static Index filter_size(const Stage<T>& stage) { return filters_of(stage) * (patch_size(stage.windows) + 1); }

    void count_pass() const {
        for (Index s = 0; s < net_.depth; ++s) {
            const Stage<T>& stage = net_.stages[s];
            if (stage.random) {
                ++stage.random[2];
            } else if (stage.kind == StageKind::batch_norm && stage.passes) {
                ++*stage.passes;
            }
        }
    }

    void add_to_segments(Index s) {
        const Stage<T>& stage = net_.stages[s];
        const bool by_columns = couples_rows(stage) && training_;
        const bool any = s > 0 && !makes_units(stage) && !by_columns; // joins whatever is there
        const Domain domain = has_windows(stage) ? Domain::images : by_columns ? Domain::columns : Domain::rows;
        const Index last = segments_.size() - 1;
        if (any || (last >= 0 && segments_[last].domain == domain && domain != Domain::columns)) {
            segments_[last].last = s + 1;
        } else {
            segments_.add(domain, s, s + 1);
        }
    }

    // Images are summed up in so many parts, whatever the number of threads.
    Index images_in_part() const { return count_ > 128 ? (count_ + 31) / 32 : 4; }
    Index parts() const { return (count_ + images_in_part() - 1) / images_in_part(); }

    // f(begin, count, worker) for the parts of a segment: rows, or units of all rows.
    template <class F> void for_each_part(const Segment& segment, F&& f) const {
        Index total = count_, share = rows_per_task(count_, workers_);
        if (segment.domain == Domain::images) {
            share = images_in_part();
        } else if (segment.domain == Domain::columns) {
            const Stage<T>& stage = net_.stages[segment.first];
            total = stage.outputs;
            share = stage.positions > 1 ? stage.positions : round_up((total + workers_ - 1) / workers_, lanes<T>);
        }
        parallel_for((total + share - 1) / share, workers_,
                     [&](Index task, int worker) { f(task * share, min_index(share, total - task * share), worker); });
    }
    template <class F> void parallel_rows(F&& f) const { for_each_part(Segment{Domain::rows, 0, 0}, f); }

    void first_affine(const Weights<T>& weights, Index begin, Index count) {
        T* to = units(0) + begin * stride(0);
        if (weights.first) {
            multiply_nonzeros(inputs_->nonzeros, begin, count, *weights.first, to);
        } else {
            weights.all->multiply(0, inputs_->rows(begin, count), to, stride(0));
        }
        add_bias_rows(0, begin, count);
    }

    void add_bias_rows(Index s, Index begin, Index count) {
        const Stage<T>& stage = net_.stages[s];
        if (!stage.bias) {
            return;
        }
        for (Index i = begin; i < begin + count; ++i) {
            T* const row = units(s) + i * stride(s);
            for_each_vector<T>(stage.outputs, [&](Index j, Index n) {
                store(row + j, load(row + j, n) + load(stage.bias + j, n), n);
            });
        }
    }

    // Stage s of rows [begin, begin + count).
    void forward_rows(Index s, const PackedMatrix<T>& packed, Index begin, Index count, int worker) {
        const Stage<T>& stage = net_.stages[s];
        const Index width = stride(s);
        T* const to = units(s) + begin * width;
        switch (stage.kind) {
        case StageKind::affine: {
            const Matrix<T> from = rows_of(input(s, begin), count, stage.inputs, input_stride(s));
            if (packed.columns > 0) {
                gemm(from, packed, to, width, false);
            } else {
                gemm(from, rows_of(stage.weight, stage.inputs, stage.outputs, stage.outputs), to, width, false);
            }
            add_bias_rows(s, begin, count);
            return;
        }
        case StageKind::convolution:
            for (Index i = 0; i < count; ++i) {
                convolve(stage, input(s, begin + i), patches_[worker].data(), to + i * width);
            }
            return;
        case StageKind::max_pooling:
            for (Index i = 0; i < count; ++i) {
                max_pool(stage.windows, input(s, begin + i), to + i * width,
                         winners_[s].data() + (begin + i) * stage.outputs);
            }
            return;
        case StageKind::average_pooling:
            for (Index i = 0; i < count; ++i) {
                average_pool(stage.windows, input(s, begin + i), to + i * width);
            }
            return;
        case StageKind::batch_norm: // in inference: in training it is done by columns
            copy_first_input(s, begin, count);
            return normalise_rows(stage, to, count, width);
        case StageKind::activation:
        case StageKind::dropout:
            copy_first_input(s, begin, count);
            return forward_block_of(s, begin, count, 0, stage.outputs);
        }
    }

    // Where the first stage changes its units in place, they are a copy of x.
    void copy_first_input(Index s, Index begin, Index count) {
        if (s == 0) {
            copy(count, inputs_->columns, inputs_->row(begin), inputs_->columns, units(0) + begin * stride(0),
                 stride(0));
        }
    }

    void forward_columns(Index s, Index first, Index count) {
        const Stage<T>& stage = net_.stages[s];
        if (!couples_rows(stage)) {
            return forward_block_of(s, 0, count_, first, count);
        }
        if (s == 0) {
            copy(count_, count, inputs_->row(0) + first, inputs_->columns, units(0) + first, stride(0));
        }
        Stage<T> counted = stage;
        if (!counts_) {
            counted.running_mean = nullptr;
        }
        normalise(counted, block_of(s, units(s), first, count), block_of(s, kept_[s].data(), first, count),
                  inverses_[s].data() + first / stage.positions);
    }

    ColumnBlock<T> block_of(Index s, T* data, Index first, Index count) const {
        return {data, count_, stride(s), first, count, net_.stages[s].positions};
    }

    // An activation or dropout, in place, of units [first, first + count) of rows [begin, begin + rows).
    void forward_block_of(Index s, Index begin, Index rows, Index first, Index count) {
        const Stage<T>& stage = net_.stages[s];
        const Index at = begin * stride(s) + first;
        T *const to = units(s) + at, *const kept = kept_[s].data() + at;
        if (stage.kind == StageKind::dropout) {
            for (Index i = 0; i < rows && training_; ++i) {
                T* const mask = kept + i * stride(s);
                mask_row(stage, (begin + i) * stage.outputs + first, count, mask);
                scale_row(to + i * stride(s), mask, count);
            }
            for (Index i = 0; i < rows && !training_ && stage.scale != 1; ++i) {
                scale_row(to + i * stride(s), stage.scale, count);
            }
            return;
        }
        with_activation(stage.activation, stage.constant, [&](auto phi) {
            for (Index i = 0; i < rows; ++i) {
                for_each_vector<T>(count, [&](Index j, Index n) {
                    T* const z = to + i * stride(s) + j;
                    const Vec<T> a = load(z, n);
                    T* const keep = kept + i * stride(s) + j;
                    if (keep_ == Keep::slopes) {
                        store(keep, phi.derivative(a), n);
                    } else if (keep_ == Keep::points) {
                        const BasePoint<T> point = phi.base_point(a);
                        const Index size = rows_ * stride(s);
                        store(keep, point.a, n);
                        store(keep + size, point.s, n);
                        store(keep + 2 * size, point.c, n);
                    }
                    store(z, phi.value(a), n);
                });
            }
        });
    }

    // Elements [first, first + n) of a dropout's mask, the given or the next one.
    static void mask_row(const Stage<T>& stage, Index first, Index n, T* to) {
        if (stage.mask) {
            copy<T>(1, n, stage.mask + first, n, to, n);
        } else {
            fill_mask(Philox{{stage.random[0], stage.random[1]}, stage.random[2]}, stage.ratio, first, n, to);
        }
    }

    static void scale_row(T* row, const T* factors, Index n) {
        for_each_vector<T>(
            n, [&](Index j, Index count) { store(row + j, load(row + j, count) * load(factors + j, count), count); });
    }
    static void scale_row(T* row, T factor, Index n) {
        for_each_vector<T>(n, [&](Index j, Index count) { store(row + j, load(row + j, count) * factor, count); });
    }

    const StageNetwork<T>& net_;
    const Index rows_;
    const int workers_;
    const bool training_;
    const Keep keep_;
    const Layer<T> answer_layer_;
    const Network<T> answers_;
    FixedList<Segment> segments_;
    const Array<Index> slots_;               // of each stage: which of values_ its units are in
    FixedList<Array<T>> values_;             // (rows, padded units)
    FixedList<Array<T>> kept_;               // of each stage, (rows, padded units): slopes, masks or normalised values
    FixedList<Array<std::int32_t>> winners_; // of each stage, (rows, outputs)
    FixedList<Array<double>> inverses_;      // of each stage: 1 / deviation of its columns
    const Array<T> y_, losses_;
    FixedList<Array<T>> patches_; // a workspace for each worker
    Index count_ = 0;             // of the present rows
    bool counts_ = false;
    Inputs<T>* inputs_ = nullptr;
};

} // namespace fastnet::FASTNET_TARGET
