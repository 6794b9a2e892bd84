// Minibatch after minibatch gathered, its gradient computed, the parameters changed; whatever computes the gradient.
#pragma once

#include "core/training.hpp"
#include "kernels/nonzero_products.hpp"
#include "kernels/update.hpp"

namespace fastnet::FASTNET_TARGET {

template <class T> class TrainingRun {
  public:
    // One step of the optimizer, which the loss and then the gradient are given to.
    class Step {
      public:
        Step(const TrainingRun& run, Index number)
            : training_(run.training_), run_(run), number_(number),
              coefficients_(training_.optimizer.coefficients + number * training_.optimizer.coefficient_count) {}

        // Records the loss. Returns whether the step is to be made: not where the loss is not finite.
        bool accepts(double loss) const {
            training_.losses[number_] = loss;
            return __builtin_isfinite(loss);
        }

        // Changes `count` elements of parameter k, from `begin` on, by their gradient.
        void change(Index k, Index begin, Index count) const {
            const Parameter<T>& p = training_.parameters[k];
            const auto at = [&](T* array) { return array ? array + begin : nullptr; };
            update<T>(training_.optimizer, coefficients_, run_.gradient(k) + begin, at(p.value), at(p.slots[0]),
                      at(p.slots[1]), count);
        }

        // Parameter k, and the rate that the rule of plain descent multiplies its gradient by.
        T* value(Index k) const { return training_.parameters[k].value; }
        T rate() const { return static_cast<T>(coefficients_[0]); }

        // All elements have been changed.
        void finish() {
            ++*training_.done;
            made_ = true;
        }

        // All of this, where the gradient is ready together with the loss. Whole even if Ctrl-C comes meanwhile.
        void operator()(double loss) {
            if (accepts(loss)) {
                const Uninterrupted whole;
                run_.for_each_piece([&](Index k, Index begin, Index count) { change(k, begin, count); });
                finish();
            }
        }

        bool made() const { return made_; }

      private:
        const Training<T>& training_;
        const TrainingRun& run_;
        const Index number_;
        const double* const coefficients_;
        bool made_ = false;
    };

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
    Rule rule() const { return training_.optimizer.rule; }

    // The gradient with respect to parameter k, which `differentiate` fills.
    T* gradient(Index k) const { return gradient_[k].data(); }

    // Where rows of the data come from; the next batch has `next` rows.
    Source<T> source(const std::int64_t* order, Index next) const {
        return training_.data->source(order, next, x_.data());
    }

    // take_step(batch, step) fills the gradient and makes the step. Ends early where a step is not made: the
    // parameters stay those that gave its loss. Or where an epoch leaves parameters that are not finite.
    template <class F> void run(F&& take_step) {
        Index number = 0;
        for (Index epoch = 0; epoch < training_.epochs && (epoch == 0 || are_finite()); ++epoch) {
            const std::int64_t* const order = training_.order + epoch * training_.order_stride;
            for (Index first = 0; first < training_.count; first += training_.batch_size, ++number) {
                const Index rows = min_index(training_.batch_size, training_.count - first);
                gather_targets(order + first, rows);
                const Index next = min_index(training_.batch_size, training_.count - first - rows);
                const Source<T> source = this->source(order + first, next);
                const Targets<T> targets{classes_ > 0 ? nullptr : labels_.data(), classes_ > 0 ? t_.data() : nullptr};
                Step step(*this, number);
                take_step(Batch<T>{x_.data(), rows, targets, &source}, step);
                if (!step.made()) {
                    return;
                }
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

    // Whether all parameters are.
    bool are_finite() const {
        bool finite = true;
        for (Index k = 0; k < training_.parameter_count; ++k) {
            finite &= all_finite(training_.parameters[k].value, training_.parameters[k].size);
        }
        return finite;
    }

    Index pieces_of(Index k) const { return (training_.parameters[k].size + piece - 1) / piece; }

    // f(k, begin, count) for each piece of the parameters, shared out among the threads.
    template <class F> void for_each_piece(F&& f) const {
        const int workers = workers_for(0.5 * static_cast<double>(pieces_ * piece));
        parallel_for(pieces_, workers, [&](Index task, int) {
            Index k = 0;
            for (; task >= pieces_of(k); ++k) {
                task -= pieces_of(k);
            }
            const Index begin = task * piece;
            f(k, begin, min_index(piece, training_.parameters[k].size - begin));
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
