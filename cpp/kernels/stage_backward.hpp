// The way back of a batch through the stages of a network: the gradient of its loss.
#pragma once

#include "kernels/stage_pass.hpp"

namespace fastnet::FASTNET_TARGET {

template <class T> class StageBackward {
  public:
    // After a pass that has kept its slopes.
    explicit StageBackward(const StagePass<T>& pass) : pass_(pass), net_(pass.net()) {}

    // Fills the gradient of the mean loss with respect to the parameters, and to x (rows, inputs) unless that is null,
    // after `mean_of_losses`.
    void run(const Targets<T>& targets, const StageGradient<T>* gradient, T* d_x) const {
        run_from([&](T* d) { derive_answers(targets, d); }, gradient, d_x);
    }

    // The same of a function of the last stage's units, whose derivative with respect to them fill(d) puts into d
    // (rows, padded classes), after `forward`.
    template <class F> void run_from(F&& fill, const StageGradient<T>* gradient, T* d_x) const {
        FixedList<Array<T>> d(pass_.values_.size());
        for (Index s = 0; s < net_.depth; ++s) {
            if (pass_.slots_[s] == d.size()) {
                const Array<T>& added = d.add(pass_.count_ * pass_.stride(s));
                if (s == 0 && pass_.inputs_->sparse) {
                    added.zeroed(); // the padding, too, is asked whether it is finite
                }
            }
        }
        const auto d_of = [&](Index s) { return d[pass_.slots_[s]].data(); };
        FixedList<PackedMatrix<T>> transposes(net_.depth);
        FixedList<Array<T>> partial(net_.depth);
        for (Index s = 0; s < net_.depth; ++s) {
            const Stage<T>& stage = net_.stages[s];
            const bool packs = stage.kind == StageKind::affine && (s > 0 || d_x);
            transposes.add(
                transposed(rows_of(stage.weight, packs ? stage.inputs : 0, packs ? stage.outputs : 0, stage.outputs)));
            const bool sums = stage.kind == StageKind::convolution;
            partial.add(sums ? pass_.parts() * pass_.filter_size(stage) : 0).zeroed();
        }
        fill(d_of(net_.depth - 1));
        for (Index g = pass_.segments_.size() - 1; g >= 0; --g) {
            pass_.for_each_part(pass_.segments_[g], [&](Index begin, Index count, int worker) {
                for (Index s = pass_.segments_[g].last - 1; s >= pass_.segments_[g].first; --s) {
                    if (pass_.segments_[g].domain == Domain::columns) {
                        backward_columns(s, begin, count, d_of(s), gradient[s]);
                        continue;
                    }
                    T* const to = s > 0 ? d_of(s - 1) : d_x;
                    const Index to_stride = s > 0 ? pass_.stride(s - 1) : net_.stages[0].inputs;
                    backward_rows(s, begin, count, d_of(s), transposes[s], partial[s].data(), to, to_stride, worker);
                }
            });
        }
        if (d_x && !makes_units(net_.stages[0])) {
            const Index inputs = net_.stages[0].inputs;
            copy<T>(pass_.count_, inputs, d_of(0), pass_.stride(0), d_x, inputs);
        }
        collect(gradient, d_of, partial);
    }

  private:
    // d (rows, padded classes) = the derivative of the mean loss with respect to the last stage's units.
    void derive_answers(const Targets<T>& targets, T* d) const {
        const Index width = padded<T>(pass_.classes()), n = pass_.classes();
        const T rows = static_cast<T>(pass_.count_);
        pass_.parallel_rows([&](Index begin, Index count, int) {
            with_loss<T>(net_.loss, net_.loss_constant, [&](auto loss) {
                for (Index i = begin; i < begin + count; ++i) {
                    const T* const y = pass_.y_.data() + i * width;
                    T* const to = d + i * width;
                    const Target<T> t = target_of(targets, i, n);
                    for_each_vector<T>(n, [&](Index k, Index m) {
                        store(to + k, loss.derivative(load(y + k, m), t.vector(k, m)), m);
                    });
                    if (net_.output == Output::softmax) {
                        softmax_row_backward(y, to, to, n);
                    }
                    for_each_vector<T>(n, [&](Index k, Index m) { store(to + k, load(to + k, m) / rows, m); });
                }
            });
        });
    }

    // d, the derivative with respect to stage s's output, becomes that with respect to its input: in place, or in `to`
    // unless that is null. A convolution's gradient is added to its part of `partial`.
    void backward_rows(Index s, Index begin, Index count, T* d, const PackedMatrix<T>& transpose, T* partial, T* to,
                       Index to_stride, int worker) const {
        const Stage<T>& stage = net_.stages[s];
        const Index width = pass_.stride(s);
        d += begin * width;
        T* const d_input = to ? to + begin * to_stride : nullptr;
        switch (stage.kind) {
        case StageKind::affine:
            if (d_input) {
                gemm(rows_of<T>(d, count, stage.outputs, width), transpose, d_input, to_stride, false);
            }
            return;
        case StageKind::convolution: {
            T* const weight = partial + begin / pass_.images_in_part() * pass_.filter_size(stage);
            T* const bias = stage.bias ? weight + pass_.decayed_size(stage) : nullptr;
            for (Index i = 0; i < count; ++i) {
                convolve_backward(stage, pass_.input(s, begin + i), d + i * width, pass_.patches_[worker].data(),
                                  weight, bias, d_input ? d_input + i * to_stride : nullptr);
            }
            return;
        }
        case StageKind::max_pooling:
        case StageKind::average_pooling:
            for (Index i = 0; i < count && d_input; ++i) {
                if (stage.kind == StageKind::max_pooling) {
                    max_pool_backward(stage, d + i * width, pass_.winners_[s].data() + (begin + i) * stage.outputs,
                                      d_input + i * to_stride);
                } else {
                    average_pool_backward(stage, d + i * width, d_input + i * to_stride);
                }
            }
            return;
        case StageKind::batch_norm: // by columns
            return;
        case StageKind::activation:
        case StageKind::dropout:
            for (Index i = 0; i < count; ++i) {
                pass_.scale_row(d + i * width, pass_.kept_[s].data() + (begin + i) * width, stage.outputs);
            }
        }
    }

    void backward_columns(Index s, Index first, Index count, T* d, const StageGradient<T>& gradient) const {
        const Stage<T>& stage = net_.stages[s];
        if (couples_rows(stage)) {
            return normalise_backward(stage, pass_.block_of(s, d, first, count),
                                      pass_.block_of(s, pass_.kept_[s].data(), first, count),
                                      pass_.inverses_[s].data() + first / stage.positions, gradient);
        }
        for (Index i = 0; i < pass_.count_; ++i) {
            const Index at = i * pass_.stride(s) + first;
            pass_.scale_row(d + at, pass_.kept_[s].data() + at, count);
        }
    }

    // The gradients of affine layers from d, and of convolutions from their parts.
    template <class D>
    void collect(const StageGradient<T>* gradient, D&& d_of, const FixedList<Array<T>>& partial) const {
        constexpr Index group = NonZeros<T>::group;
        const bool by_nonzeros =
            net_.stages[0].kind == StageKind::affine && pass_.inputs_->sparse && pass_.count_ <= block_inner &&
            all_finite(d_of(0), pass_.count_ * pass_.stride(0)); // 0 x infinity is NaN: zeros may not be skipped
        const auto tasks_of = [&](Index s) {
            const Stage<T>& stage = net_.stages[s];
            return stage.kind == StageKind::affine        ? (stage.inputs + group - 1) / group
                   : stage.kind == StageKind::convolution ? pass_.filters_of(stage)
                                                          : Index{0};
        };
        Index tasks = 0;
        for (Index s = 0; s < net_.depth; ++s) {
            tasks += tasks_of(s);
        }
        parallel_for(tasks, pass_.workers_, [&](Index task, int) {
            Index s = net_.depth - 1; // the later stages' tasks come first, because they are small
            for (; task >= tasks_of(s); --s) {
                task -= tasks_of(s);
            }
            const Stage<T>& stage = net_.stages[s];
            Index first = 0, count = 0; // of the weight's elements
            if (stage.kind == StageKind::convolution) {
                count = patch_size(stage.windows);
                first = task * count;
                add_parts(stage, partial[s].data(), task, gradient[s]);
            } else {
                const Index inputs = min_index(group, stage.inputs - task * group);
                first = task * group * stage.outputs;
                count = inputs * stage.outputs;
                collect_group(s, task, inputs, d_of(s), s == 0 && by_nonzeros, gradient[s]);
            }
            if (net_.weight_decay != 0) {
                const T decay = static_cast<T>(net_.weight_decay);
                for (Index i = first; i < first + count; ++i) {
                    gradient[s].weight[i] += decay * stage.weight[i];
                }
            }
        });
    }

    // One filter's gradient: the sum of its parts.
    void add_parts(const Stage<T>& stage, const T* partial, Index filter, const StageGradient<T>& gradient) const {
        const Index size = patch_size(stage.windows), whole = pass_.filter_size(stage);
        T* const to = gradient.weight + filter * size;
        for_each_vector<T>(size, [&](Index i, Index n) {
            Vec<T> total{};
            for (Index p = 0; p < pass_.parts(); ++p) {
                total += load(partial + p * whole + filter * size + i, n);
            }
            store(to + i, total, n);
        });
        if (gradient.bias) {
            T total = 0;
            for (Index p = 0; p < pass_.parts(); ++p) {
                total += partial[p * whole + pass_.decayed_size(stage) + filter];
            }
            gradient.bias[filter] = total;
        }
    }

    // The rows of one group of inputs in the gradient of an affine stage, and with the first the bias gradient.
    void collect_group(Index s, Index group, Index inputs, const T* d, bool by_nonzeros,
                       const StageGradient<T>& gradient) const {
        const Stage<T>& stage = net_.stages[s];
        const Index first = group * NonZeros<T>::group, width = pass_.stride(s), outputs = stage.outputs;
        T* const to = gradient.weight + first * outputs;
        if (by_nonzeros) {
            multiply_transposed_nonzeros(pass_.inputs_->nonzeros, pass_.count_, group, inputs, d, width, outputs,
                                         StoreOrAdd<T>{to, outputs, false});
        } else {
            const Matrix<T> z = rows_of(pass_.input(s, 0), pass_.count_, stage.inputs, pass_.input_stride(s));
            gemm(transposed(submatrix(z, 0, pass_.count_, first, inputs)), rows_of(d, pass_.count_, outputs, width), to,
                 outputs, false);
        }
        if (group == 0 && gradient.bias) {
            for_each_vector<T>(outputs, [&](Index j, Index n) {
                Vec<T> total{};
                for (Index i = 0; i < pass_.count_; ++i) {
                    total += load(d + i * width + j);
                }
                store(gradient.bias + j, total, n);
            });
        }
    }

    const StagePass<T>& pass_;
    const StageNetwork<T>& net_;
};

} // namespace fastnet::FASTNET_TARGET
