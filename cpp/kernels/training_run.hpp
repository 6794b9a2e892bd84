// Minibatch after minibatch gathered, its gradient computed, the parameters changed; whatever computes the gradient.
#pragma once

#include "core/training.hpp"
#include "kernels/update.hpp"
#include "kernels/workspace.hpp"

namespace fastnet::FASTNET_TARGET {

template <class T> class TrainingRun {
  public:
    // For a network of so many inputs and classes.
    TrainingRun(const Training<T>& training, Index inputs, Index classes)
        : training_(training), classes_(training.targets.rows ? classes : 0),
          rows_(min_index(training.batch_size, training.count)), x_(rows_ * inputs), t_(rows_ * classes_),
          labels_(rows_), gradient_(training.parameter_count) {
        for (Index k = 0; k < training.parameter_count; ++k) {
            gradient_.add(training.parameters[k].size);
            pieces_ += pieces_of(k);
        }
    }

    Index most_rows() const { return rows_; } // of a batch

    // The gradient with respect to parameter k, which `differentiate` fills.
    T* gradient(Index k) const { return gradient_[k].data(); }

    // take_step(batch, finish) fills the gradient and calls finish(loss), which makes the optimizer's step. Ends early
    // where a batch's loss is not finite: the parameters stay those that gave it.
    template <class F> void run(F&& take_step) {
        const Index width = training_.optimizer.coefficient_count;
        for (Index first = 0, step = 0; first < training_.count; first += training_.batch_size, ++step) {
            const Index rows = min_index(training_.batch_size, training_.count - first);
            const std::int64_t* order = training_.order + first;
            gather_targets(order, rows);
            const Index next = min_index(training_.batch_size, training_.count - first - rows);
            const Source<T> source = training_.data->source(order, next, x_.data());
            const Targets<T> targets{classes_ > 0 ? nullptr : labels_.data(), classes_ > 0 ? t_.data() : nullptr};
            bool finite = false;
            take_step(Batch<T>{x_.data(), rows, targets, &source}, [&](double loss) {
                training_.losses[step] = loss;
                finite = __builtin_isfinite(loss);
                if (finite) {
                    change(training_.optimizer.coefficients + step * width);
                    ++*training_.done;
                }
            });
            if (!finite) {
                return;
            }
        }
    }

  private:
    static constexpr Index piece = 4096; // elements that a task changes

    void gather_targets(const std::int64_t* order, Index rows) const {
        for (Index row = 0; row < rows; ++row) {
            if (classes_ == 0) {
                labels_[row] = training_.targets.labels[order[row]];
            }
            for (Index k = 0; k < classes_; ++k) {
                t_[row * classes_ + k] = training_.targets.rows[order[row] * classes_ + k];
            }
        }
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

    const Training<T>& training_;
    const Index classes_;  // 0 where the targets are labels
    const Index rows_;     // of a batch at most
    const Array<T> x_, t_; // (rows, inputs), (rows, classes)
    const Array<std::int64_t> labels_;
    FixedList<Array<T>> gradient_; // like the parameters
    Index pieces_ = 0;
};

} // namespace fastnet::FASTNET_TARGET
