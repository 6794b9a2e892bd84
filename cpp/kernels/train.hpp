// Training: minibatch after minibatch gathered, its gradient computed, the parameters changed.
#pragma once

#include "core/training.hpp"
#include "kernels/backprop.hpp"
#include "kernels/nodal.hpp"
#include "kernels/update.hpp"

namespace fastnet::FASTNET_TARGET {

template <class T> class TrainingRun {
  public:
    TrainingRun(const Network<T>& net, const Training<T>& training)
        : net_(net), training_(training), inputs_(net.layers[0].inputs),
          classes_(training.targets.rows ? classes_of(net) : 0), rows_(min_index(training.batch_size, training.count)),
          x_(rows_ * inputs_), t_(rows_ * classes_), labels_(rows_), gradient_(training.parameter_count),
          views_(net.depth), kinked_(net.depth), kinked_views_(net.depth) {
        for (Index l = 0, k = 0; l < net.depth; ++l) {
            T* const weight = gradient_.add(training.parameters[k++].size).data();
            T* const bias = net.layers[l].bias ? gradient_.add(training.parameters[k++].size).data() : nullptr;
            views_[l] = {weight, bias};
            kinked_views_[l] = kinked_.add(net.layers[l].outputs).data();
        }
        for (Index k = 0; k < training.parameter_count; ++k) {
            pieces_ += pieces_of(k);
        }
    }

    // Ends early where a batch's loss is not finite: the parameters stay those that gave it.
    void run() {
        const Index width = training_.optimizer.coefficient_count;
        for (Index first = 0, step = 0; first < training_.count; first += training_.batch_size, ++step) {
            const double loss = differentiate(first);
            training_.losses[step] = loss;
            if (!__builtin_isfinite(loss)) {
                return;
            }
            change(training_.optimizer.coefficients + step * width);
            ++*training_.done;
        }
    }

  private:
    static constexpr Index piece = 4096; // elements that a task changes

    // Fills the gradient of the batch of the rows from order[first] on, and returns its loss.
    double differentiate(Index first) {
        const std::int64_t* order = training_.order + first;
        const Index rows = min_index(training_.batch_size, training_.count - first);
        for (Index row = 0; row < rows; ++row) {
            if (classes_ == 0) {
                labels_[row] = training_.targets.labels[order[row]];
            }
            for (Index k = 0; k < classes_; ++k) {
                t_[row * classes_ + k] = training_.targets.rows[order[row] * classes_ + k];
            }
        }
        const Index next = min_index(training_.batch_size, training_.count - first - rows);
        const Source<T> source = training_.data->source(order, next, x_.data());
        const Targets<T> targets{classes_ > 0 ? nullptr : labels_.data(), classes_ > 0 ? t_.data() : nullptr};
        const Batch<T> batch{x_.data(), rows, targets, &source};
        if (training_.gradient == GradientKind::backprop) {
            return loss_and_gradient(net_, batch, views_.data());
        }
        Diagnostics diagnostics{0, 0, 0, 0, kinked_views_.data()};
        const auto compute = training_.gradient == GradientKind::nodal ? nodal<T> : incremental<T>;
        compute(net_, batch, training_.h, views_.data(), diagnostics);
        return diagnostics.loss;
    }

    Index pieces_of(Index k) const { return (training_.parameters[k].size + piece - 1) / piece; }

    // The optimizer's step, whole even if Ctrl-C comes meanwhile.
    void change(const double* coefficients) {
        const Uninterrupted whole;
        const int workers = workers_for(0.5 * static_cast<double>(pieces_ * piece));
        parallel_for(pieces_, workers, [&](Index task, int) {
            Index k = 0;
            for (; task >= pieces_of(k); ++k) {
                task -= pieces_of(k);
            }
            const Parameter<T>& p = training_.parameters[k];
            const Index begin = task * piece;
            const auto at = [&](T* array) { return array ? array + begin : nullptr; };
            update<T>(training_.optimizer, coefficients, gradient_[k].data() + begin, at(p.value), at(p.slots[0]),
                      at(p.slots[1]), min_index(piece, p.size - begin));
        });
    }

    const Network<T>& net_;
    const Training<T>& training_;
    const Index inputs_, classes_; // classes: 0 where the targets are labels
    const Index rows_;             // of a batch at most
    const Array<T> x_, t_;         // (rows, inputs), (rows, classes)
    const Array<std::int64_t> labels_;
    FixedList<Array<T>> gradient_; // like the parameters
    const Array<LayerGradient<T>> views_;
    FixedList<Array<bool>> kinked_;
    const Array<bool*> kinked_views_;
    Index pieces_ = 0;
};

template <class T> void train(const Network<T>& net, const Training<T>& training) {
    TrainingRun<T>(net, training).run();
}

} // namespace fastnet::FASTNET_TARGET
