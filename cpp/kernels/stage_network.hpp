// Networks of stages: forward pass, loss, backprop, the loop of finite differences, and training.
#pragma once

#include "kernels/lost_entries.hpp"
#include "kernels/stage_backward.hpp"
#include "kernels/stage_nodal.hpp"
#include "kernels/training_run.hpp"

namespace fastnet::FASTNET_TARGET {

// The rows of x for a pass whose nonzeros are kept all at a time.
template <class T>
Inputs<T> stage_inputs(const StageNetwork<T>& net, const T* x, Index rows, const Source<T>* source = nullptr) {
    const Stage<T>& first = net.stages[0];
    if (first.kind != StageKind::affine) {
        return {x, rows, first.inputs, source, false, NonZeros<T>(0, first.inputs)};
    }
    const Layer<T> layer{first.weight, first.bias, first.inputs, first.outputs, Activation::identity, T(0)};
    return make_inputs(Network<T>{&layer, 1, net.output, net.loss, T(0), 0}, x, rows, rows, source);
}

template <class T> int stage_workers(const StageNetwork<T>& net, Index rows, double passes) {
    return workers_for(passes * multiply_add * multiply_adds(net) * static_cast<double>(rows));
}

// Rows that go through in inference at a time, where none depends on another.
template <class T> Index rows_at_once(const StageNetwork<T>& net, Index rows) {
    Index units = 1;
    for (Index s = 0; s < net.depth; ++s) {
        units += net.stages[s].outputs;
    }
    const Index most = (Index{16} << 20) / (units * static_cast<Index>(sizeof(T)));
    return min_index(rows, most > block_rows ? most : block_rows);
}

// The rows of a source without an order, from row `first` on.
template <class T> Source<T> rows_from(const Source<T>& source, Index first) {
    Source<T> rest = source;
    rest.x += first * source.columns;
    if (source.packed) {
        rest.starts += first;
    }
    return rest;
}

// f(first, count, pass) for blocks of a batch's rows, each after its forward pass in inference. A source has the
// nonzeros of x, which is filled.
template <class T, class F> void for_each_stage_block(const StageNetwork<T>& net, const Batch<T>& batch, F&& f) {
    const Index rows = batch.rows, most = rows_at_once(net, rows);
    StagePass<T> pass(net, most, stage_workers(net, most, 1), false, Keep::nothing);
    for (Index first = 0; first < rows; first += most) {
        const Index count = min_index(most, rows - first);
        const Source<T> source = batch.source ? rows_from(*batch.source, first) : Source<T>{};
        const T* const x = batch.x + first * net.stages[0].inputs;
        Inputs<T> inputs = stage_inputs(net, x, count, batch.source ? &source : nullptr);
        pass.forward(inputs, count, false);
        f(first, count, pass);
    }
}

// x (rows, inputs) of the batch -> y (rows, classes), in inference.
template <class T> void stage_forward(const StageNetwork<T>& net, const Batch<T>& batch, T* y) {
    const Index classes = net.stages[net.depth - 1].outputs;
    for_each_stage_block(net, batch, [&](Index first, Index count, StagePass<T>& pass) {
        copy(count, classes, pass.answers(), padded<T>(classes), y + first * classes, classes);
    });
}

// The loss in inference.
template <class T> double stage_loss(const StageNetwork<T>& net, const Batch<T>& batch) {
    const Index classes = net.stages[net.depth - 1].outputs;
    double total = 0, penalty = 0;
    for_each_stage_block(net, batch, [&](Index first, Index count, StagePass<T>& pass) {
        const Targets<T>& t = batch.targets;
        const Targets<T> targets{t.labels ? t.labels + first : nullptr, t.rows ? t.rows + first * classes : nullptr};
        total += pass.mean_of_losses(targets) * static_cast<double>(count);
        penalty = pass.penalty();
    });
    return total / static_cast<double>(batch.rows) + penalty;
}

// The loss in training and, unless it is null, its gradient, and that with respect to x (rows, inputs) unless that is
// null. `counts`: whether the pass changes the state of its stages.
template <class T>
double stage_loss_and_gradient(const StageNetwork<T>& net, const Batch<T>& batch, const StageGradient<T>* gradient,
                               T* d_x, bool counts) {
    StagePass<T> pass(net, batch.rows, stage_workers(net, batch.rows, gradient ? 3 : 1), true,
                      gradient ? Keep::slopes : Keep::nothing);
    Inputs<T> inputs = stage_inputs(net, batch.x, batch.rows, batch.source);
    pass.forward(inputs, batch.rows, counts);
    const double loss = pass.mean_of_losses(batch.targets) + pass.penalty();
    if (gradient) {
        StageBackward<T>(pass).run(batch.targets, gradient, d_x);
    }
    return loss;
}

// x (rows, inputs) -> the last stage's units (rows, classes), in training. `counts`: whether the pass changes the state
// of its stages.
template <class T> void stage_units(const StageNetwork<T>& net, const T* x, Index rows, bool counts, T* units) {
    const Index classes = net.stages[net.depth - 1].outputs;
    StagePass<T> pass(net, rows, stage_workers(net, rows, 1), true, Keep::nothing);
    Inputs<T> inputs = stage_inputs(net, x, rows);
    pass.forward(inputs, rows, counts);
    copy(rows, classes, pass.units(net.depth - 1), padded<T>(classes), units, classes);
}

// The gradient of a function of these units, of which d (rows, classes) is the derivative with respect to them; and d_x
// as in `stage_loss_and_gradient`. The pass is made again, and changes nothing.
template <class T>
void stage_backward(const StageNetwork<T>& net, const T* x, Index rows, const T* d, const StageGradient<T>* gradient,
                    T* d_x) {
    const Index classes = net.stages[net.depth - 1].outputs;
    StagePass<T> pass(net, rows, stage_workers(net, rows, 3), true, Keep::slopes);
    Inputs<T> inputs = stage_inputs(net, x, rows);
    pass.forward(inputs, rows, false);
    StageBackward<T>(pass).run_from([&](T* to) { copy(rows, classes, d, classes, to, padded<T>(classes)); }, gradient,
                                    d_x);
}

// A thread's own copy of the parameters, of which one at a time is changed.
template <class T> class PerturbedStages {
  public:
    PerturbedStages(const StageNetwork<T>& net, const Batch<T>& batch)
        : batch_(batch), stages_(net.depth), weights_(net.depth), biases_(net.depth), sizes_(2 * net.depth), net_(net),
          inputs_(stage_inputs(net, batch.x, batch.rows)) {
        for (Index s = 0; s < net.depth; ++s) {
            Stage<T>& stage = stages_.add(net.stages[s]);
            const Index outputs = stage.outputs, positions = stage.windows.positions();
            Index weight = 0, bias = 0;
            if (stage.kind == StageKind::affine) {
                weight = stage.inputs * outputs, bias = outputs;
            } else if (stage.kind == StageKind::convolution) {
                bias = outputs / positions, weight = bias * patch_size(stage.windows);
            } else if (stage.kind == StageKind::batch_norm) {
                weight = bias = outputs / stage.positions;
            }
            sizes_[2 * s] = weight;
            sizes_[2 * s + 1] = stage.bias ? bias : 0;
            stage.weight = copied(weights_.add(weight), stage.weight, weight);
            stage.bias = copied(biases_.add(bias), stage.bias, stage.bias ? bias : 0);
        }
        net_.stages = &stages_[0];
    }

    // The central difference of the loss with respect to the parameter with that flat number: stage after stage, the
    // weight and then the bias, row by row.
    T difference(Index entry, double h) {
        Index k = 0;
        for (; entry >= sizes_[k]; ++k) {
            entry -= sizes_[k];
        }
        const Stage<T>& stage = stages_[k / 2];
        T& parameter = (k % 2 == 0 ? weights_ : biases_)[k / 2][entry];
        const T value = parameter;
        parameter = value + static_cast<T>(h);
        const double above = mean_of_losses();
        parameter = value - static_cast<T>(h);
        const double below = mean_of_losses();
        parameter = value;
        const bool decayed = k % 2 == 0 && decays(stage) && net_.weight_decay != 0;
        const double decay = decayed ? net_.weight_decay * static_cast<double>(value) : 0; // of lambda/2 w², exactly
        return static_cast<T>((above - below) / (2 * h) + decay);
    }

  private:
    static const T* copied(const Array<T>& to, const T* from, Index size) {
        if (size == 0) {
            return nullptr;
        }
        std::memcpy(to.data(), from, static_cast<std::size_t>(size) * sizeof(T));
        return to.data();
    }

    double mean_of_losses() {
        StagePass<T> pass(net_, batch_.rows, 1, true, Keep::nothing);
        pass.forward(inputs_, batch_.rows, false);
        checkpoint();
        return pass.mean_of_losses(batch_.targets);
    }

    const Batch<T>& batch_;
    FixedList<Stage<T>> stages_;
    FixedList<Array<T>> weights_, biases_;
    const Array<Index> sizes_; // of each stage's weight and bias
    StageNetwork<T> net_;
    Inputs<T> inputs_;
};

// differences (count) = the central differences, in training, with respect to the parameters with these flat numbers.
template <class T>
void stage_loop(const StageNetwork<T>& net, const Batch<T>& batch, double h, const std::int64_t* entries, Index count,
                T* differences) {
    const int workers = stage_workers(net, batch.rows * count, 2);
    FixedList<PerturbedStages<T>> copies(workers);
    for (int w = 0; w < workers; ++w) {
        copies.add(net, batch);
    }
    parallel_for(count, workers, [&](Index k, int worker) {
        differences[k] = copies[worker].difference(static_cast<Index>(entries[k]), h);
    });
}

// A network whose dropouts draw the masks of the pass before, if that has counted itself.
template <class T> class UncountedStages {
  public:
    UncountedStages(const StageNetwork<T>& original, bool counted)
        : stages_(original.depth), random_(3 * original.depth), net(original) {
        for (Index s = 0; s < net.depth; ++s) {
            Stage<T>& stage = stages_.add(original.stages[s]);
            if (stage.random) {
                std::uint64_t* const own = random_.data() + 3 * s;
                std::memcpy(own, stage.random, 3 * sizeof *own);
                own[2] -= counted;
                stage.random = own;
            }
        }
        net.stages = &stages_[0];
    }

  private:
    FixedList<Stage<T>> stages_;
    const Array<std::uint64_t> random_; // (stages, 3)

  public:
    StageNetwork<T> net;
};

// The loss in training and its gradient by exact differences; `nodal` where that knows a stage's moves, if it is asked
// for. `counts`: whether the pass changes the state of its stages. `kinks`, false before, may be null.
template <class T>
void stage_differences(const StageNetwork<T>& net, const Batch<T>& batch, double h, bool nodal, bool counts,
                       const StageGradient<T>* gradient, const StageKinks* kinks, Diagnostics& diagnostics) {
    StagePass<T> pass(net, batch.rows, num_threads(), true, Keep::points);
    Inputs<T> inputs = stage_inputs(net, batch.x, batch.rows, batch.source);
    pass.forward(inputs, batch.rows, counts);
    const double mean = pass.mean_of_losses(batch.targets);
    diagnostics.loss = mean + pass.penalty();
    StageDifferences<T> differences(pass, batch.targets, h, mean - mean == 0);
    StageNodal<T> polynomials(pass, differences, h);
    for (Index s = 0; s < net.depth; ++s) {
        const StageKinks of_stage = kinks ? kinks[s] : StageKinks{nullptr, nullptr};
        if (nodal && polynomials.handles(s)) {
            diagnostics.fallbacks += polynomials.run(s, gradient[s], of_stage);
        } else {
            differences.run(s, gradient[s], of_stage);
        }
    }
    diagnostics.evaluations = differences.evaluations();
    if (mean - mean == 0) {
        const Batch<T> rows{batch.x, batch.rows, batch.targets}; // which the source has filled
        replace_lost_entries<T>(
            [&](auto&& f) {
                for (Index s = 0; s < net.depth; ++s) {
                    const Index columns = columns_of(net.stages[s]);
                    f(gradient[s].weight, columns * weights_of_column(net.stages[s]));
                    f(gradient[s].bias, net.stages[s].bias ? columns : 0);
                }
            },
            [&](const std::int64_t* entries, Index count, T* values) {
                const UncountedStages<T> uncounted(net, counts);
                stage_loop(uncounted.net, rows, static_cast<double>(static_cast<T>(h)), entries, count, values);
            });
    }
}

// Copies what training passes change from one network's stages to those of another.
template <class T> void copy_state(const StageNetwork<T>& from, const StageNetwork<T>& to) {
    for (Index s = 0; s < from.depth; ++s) {
        const Stage<T>&one = from.stages[s], &other = to.stages[s];
        if (one.random) {
            other.random[2] = one.random[2];
        } else if (one.kind == StageKind::batch_norm) {
            const Index columns = one.outputs / one.positions;
            copy<T>(1, columns, one.running_mean, columns, other.running_mean, columns);
            copy<T>(1, columns, one.running_variance, columns, other.running_variance, columns);
            if (one.passes && other.passes) {
                *other.passes = *one.passes;
            }
        }
    }
}

// Puts the state back to what it was before the present step, unless the step was finished.
template <class T> class StepState {
  public:
    // `before` has arrays of its own, which hold the state from before the last step afterwards.
    StepState(const StageNetwork<T>& net, const StageNetwork<T>& before, const std::int64_t& done)
        : net_(net), before_(before), done_(done), steps_(done) {
        copy_state(net, before);
    }
    ~StepState() {
        if (done_ == steps_) {
            copy_state(before_, net_);
        }
    }
    StepState(const StepState&) = delete;
    StepState& operator=(const StepState&) = delete;

  private:
    const StageNetwork<T>&net_, &before_;
    const std::int64_t& done_;
    const std::int64_t steps_;
};

template <class T>
void stage_train(const StageNetwork<T>& net, const StageNetwork<T>& before, const Training<T>& training) {
    TrainingRun<T> run(training, net.stages[0].inputs, net.stages[net.depth - 1].outputs);
    const Array<StageGradient<T>> gradient(net.depth);
    for (Index s = 0, k = 0; s < net.depth; ++s) {
        T* const weight = net.stages[s].weight ? run.gradient(k++) : nullptr;
        gradient[s] = {weight, net.stages[s].bias ? run.gradient(k++) : nullptr};
    }
    run.run([&](const Batch<T>& batch, auto&& finish) {
        const StepState<T> state(net, before, *training.done);
        if (training.gradient == GradientKind::backprop) {
            return finish(stage_loss_and_gradient<T>(net, batch, gradient.data(), nullptr, true));
        }
        Diagnostics diagnostics{0, 0, 0, 0, nullptr};
        const bool nodal = training.gradient == GradientKind::nodal;
        stage_differences<T>(net, batch, training.h, nodal, true, gradient.data(), nullptr, diagnostics);
        finish(diagnostics.loss);
    });
}

} // namespace fastnet::FASTNET_TARGET
