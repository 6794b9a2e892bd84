// The finite-difference gradient of a network of stages: each parameter's own two moves, carried to the loss.
//
// A parameter moves one column of its stage's units: a unit of all rows, or a filter's positions of all images. As long
// as the next stages change columns one by one, only that column is carried on; a stage that mixes columns makes moves
// of all units of it. Differences are exact, so that nothing cancels, however small the step is.
#pragma once

#include "kernels/stage_moves.hpp"

namespace fastnet::FASTNET_TARGET {

template <class T> class StageDifferences {
  public:
    // After a pass of `base` over rows with these targets, which has kept its points.
    StageDifferences(const StagePass<T>& base, const Targets<T>& targets, double h)
        : base_(base), net_(base.net()), targets_(targets), h_(static_cast<T>(h)), packed_(net_.depth),
          works_(base.workers()) {
        Index widest = base.classes(), patches = 0;
        for (Index s = 0; s < net_.depth; ++s) {
            const Stage<T>& stage = net_.stages[s];
            const bool packs = stage.kind == StageKind::affine && s > 0;
            packed_.add(rows_of(stage.weight, packs ? stage.inputs : 0, packs ? stage.outputs : 0, stage.outputs));
            widest = stage.outputs > widest && s > 0 ? stage.outputs : widest; // of the first stage, only columns move
            widest = column_units(s) > widest ? column_units(s) : widest;
            if (s > 0 && column_units(0) % together(s) != 0) { // its column becomes a part of all units
                widest = stage.inputs > widest ? stage.inputs : widest;
            }
            if (stage.kind == StageKind::convolution) {
                const Index size = patch_size(stage.windows) * stage.windows.positions();
                patches = size > patches ? size : patches;
            }
        }
        for (int w = 0; w < base.workers(); ++w) {
            works_.add(base.rows(), padded<T>(widest), base.classes(), patches);
        }
    }

    // Fills the gradient with respect to the parameters of stage s.
    void run(Index s, const StageGradient<T>& gradient, const StageKinks& kinks) {
        parallel_for(columns(s), base_.workers(),
                     [&](Index column, int worker) { differentiate(s, column, gradient, kinks, worker); });
    }

    // The same for the parameters that move one column.
    void differentiate(Index s, Index column, const StageGradient<T>& gradient, const StageKinks& kinks, int worker) {
        Work& work = works_[worker];
        const Stage<T>& stage = net_.stages[s];
        const Index weights = weights_of_column(s);
        const Index step = stage.kind == StageKind::affine ? stage.outputs : 1; // between a column's weights
        const Index first = stage.kind == StageKind::affine ? column : column * weights;
        const bool decays = stage.kind != StageKind::batch_norm && net_.weight_decay != 0;
        const Index count = weights + (stage.bias ? 1 : 0);
        const double scale = 1 / (2 * static_cast<double>(h_) * static_cast<double>(base_.rows()));
        double changes[group];
        bool kinked[group] = {};
        for (Index k = 0; k < count; k += group / 2) {
            const Index several = min_index(group / 2, count - k);
            checkpoint();
            for (Index i = 0; i < several; ++i) {
                work.kinked = false;
                carry_move(s, column, k + i, h_, 2 * i, work);
                carry_move(s, column, k + i, -h_, 2 * i + 1, work);
                kinked[i] = work.kinked;
            }
            add_up(2 * several, changes, work);
            for (Index i = 0; i < several; ++i) {
                kinked[i] |= work.loss_kinked[2 * i] || work.loss_kinked[2 * i + 1];
                const double difference = (changes[2 * i] - changes[2 * i + 1]) * scale;
                if (k + i == weights) {
                    gradient.bias[column] = static_cast<T>(difference);
                    if (kinks.bias) {
                        kinks.bias[column] = kinked[i];
                    }
                    continue;
                }
                const Index at = first + (k + i) * step;
                const double decay = decays ? net_.weight_decay * static_cast<double>(stage.weight[at]) : 0;
                gradient.weight[at] = static_cast<T>(difference + decay);
                if (kinks.weight) {
                    kinks.weight[at] = kinked[i];
                }
            }
        }
    }

    // changes (count, stride) = the changes of each row's loss when one unit of stage s's moves by nodes[k] *
    // furthest[row] there, where no later stage couples rows.
    void row_changes(Index s, Index unit, const T* furthest, const T* nodes, Index count, Index stride, T* changes,
                     int worker) {
        Work& work = works_[worker];
        for (Index first = 0; first < count; first += group) {
            const Index moves = min_index(group, count - first);
            const Moved moved{unit, 1, padded<T>(1)};
            for (Index g = 0; g < moves; ++g) {
                for (Index i = 0; i < base_.rows(); ++i) {
                    work.from[i * moved.stride] = nodes[first + g] * furthest[i];
                }
                carry(s, moved, g, work);
            }
            for_each_row_change(moves, work, [&](Index i, Vec<T> change) {
                for (Index g = 0; g < moves; ++g) {
                    changes[(first + g) * stride + i] = change[g];
                }
            });
        }
    }

    std::int64_t evaluations() const {
        std::int64_t count = 0;
        for (int w = 0; w < base_.workers(); ++w) {
            count += works_[w].evaluations;
        }
        return count;
    }

  private:
    static constexpr Index group = lanes<T>; // moves whose losses are computed together

    // A thread's own workspace.
    struct Work {
        Work(Index rows, Index widest, Index classes, Index patch_elements)
            : memory(2 * rows * widest), from(memory.data()), to(from + rows * widest),
              answers(group * rows * padded<T>(classes)), dz(classes * lanes<T>), dy(classes * lanes<T>),
              patches(patch_elements) {}
        // The moves that a stage has made are those that the next one takes.
        void swap() {
            T* const made = to;
            to = from;
            from = made;
        }

        const Array<T> memory;
        T *from, *to;           // (rows, padded units): moves of a stage's units, and of the next stage's
        const Array<T> answers; // (moves, rows, padded classes): moves of the last stage's units
        const Array<T> dz, dy;  // (classes, lanes)
        const Array<T> patches;
        std::int64_t evaluations = 0;
        bool kinked = false;          // whether a move met a kink
        bool loss_kinked[group] = {}; // whether each of the answers' moves met one in the loss
    };

    // How many columns stage s's parameters move, and the units of one.
    Index columns(Index s) const {
        const Stage<T>& stage = net_.stages[s];
        return stage.weight ? stage.outputs / column_units(s) : 0;
    }
    Index column_units(Index s) const {
        const Stage<T>& stage = net_.stages[s];
        return stage.kind == StageKind::convolution  ? stage.windows.positions()
               : stage.kind == StageKind::batch_norm ? stage.positions
                                                     : 1;
    }

    // The weights that move one column; its bias comes after them.
    Index weights_of_column(Index s) const {
        const Stage<T>& stage = net_.stages[s];
        return stage.kind == StageKind::affine        ? stage.inputs
               : stage.kind == StageKind::convolution ? patch_size(stage.windows)
                                                      : 1;
    }

    // Carries the moves for a step h of a column's parameter k to the answers, as move g.
    void carry_move(Index s, Index column, Index k, T h, Index g, Work& work) {
        const Index units = column_units(s);
        const Moved moved{column * units, units, padded<T>(units)};
        if (fill_column(s, k, h, moved, work.from)) {
            carry(s, moved, g, work);
        } else {
            const Index size = base_.rows() * padded<T>(base_.classes());
            std::memset(work.answers.data() + g * size, 0, static_cast<std::size_t>(size) * sizeof(T));
        }
    }

    // Fills the column's moves for a step h of parameter k. Returns whether any of them is not 0.
    bool fill_column(Index s, Index k, T h, const Moved& moved, T* moves) const {
        const Stage<T>& stage = net_.stages[s];
        const bool is_bias = k == weights_of_column(s);
        bool any = is_bias;
        for (Index i = 0; i < base_.rows(); ++i) {
            T* const row = moves + i * moved.stride;
            if (is_bias) {
                for (Index j = 0; j < moved.units; ++j) {
                    row[j] = h;
                }
                continue;
            }
            if (stage.kind == StageKind::affine) {
                row[0] = base_.input(s, i)[k];
            } else if (stage.kind == StageKind::convolution) {
                patch_row(stage.windows, k, base_.input(s, i), row);
            } else {
                std::memcpy(row, base_.kept(s) + i * base_.stride(s) + moved.first,
                            static_cast<std::size_t>(moved.units) * sizeof(T));
            }
            for (Index j = 0; j < moved.units; ++j) {
                row[j] *= h;
                any |= row[j] != 0; // NaN is not 0
            }
        }
        return any;
    }

    // Carries moves of stage s's units, in work.from, to the last stage's, as move g of the answers.
    void carry(Index s, Moved moved, Index g, Work& work) {
        for (Index later = s + 1; later < net_.depth; ++later) {
            if (moved.units == 1 && is_normed_affine(later)) {
                moved = differ_normed_affine(base_, later, moved, work.from, work.to);
                work.swap();
                ++later;
            } else {
                moved = differ_stage(later, moved, work);
            }
        }
        const Index stride = padded<T>(base_.classes()), size = base_.rows() * stride;
        T* const to = work.answers.data() + g * size;
        if (moved.units < base_.classes()) {
            std::memset(to, 0, static_cast<std::size_t>(size) * sizeof(T));
        }
        copy<T>(base_.rows(), moved.units, work.from, moved.stride, to + moved.first, stride);
        work.evaluations += base_.rows();
    }

    bool is_normed_affine(Index s) const {
        return net_.stages[s].kind == StageKind::affine && s + 1 < net_.depth &&
               net_.stages[s + 1].kind == StageKind::batch_norm && net_.stages[s + 1].positions == 1;
    }

    // Moves through stage s, from work.from to work.from. Returns which units they are of then.
    Moved differ_stage(Index s, const Moved& moved, Work& work) {
        const Stage<T>& stage = net_.stages[s];
        if (moved.first % together(s) != 0 || moved.units % together(s) != 0) {
            return differ_stage(s, spread(moved, stage.inputs, work), work);
        }
        Moved next{0, stage.outputs, padded<T>(stage.outputs)};
        switch (stage.kind) {
        case StageKind::activation:
            work.kinked |= differ_activation(base_, s, moved, work.from);
            return moved;
        case StageKind::dropout:
            differ_dropout(base_, s, moved, work.from);
            return moved;
        case StageKind::batch_norm:
            differ_batch_norm(base_, s, moved, work.from);
            return moved;
        case StageKind::max_pooling:
        case StageKind::average_pooling:
            next = differ_pooling(base_, s, moved, work.from, work.to, work.kinked);
            break;
        case StageKind::affine:
            multiply(s, moved, work.from, work.to, next.stride);
            break;
        case StageKind::convolution:
            convolve_moves(s, moved, next.stride, work);
        }
        work.swap();
        return next;
    }

    // How many neighbouring units stage s takes together: a channel's, or a batch normalisation's column's.
    Index together(Index s) const {
        const Stage<T>& stage = net_.stages[s];
        switch (stage.kind) {
        case StageKind::batch_norm:
            return stage.positions;
        case StageKind::convolution:
        case StageKind::max_pooling:
        case StageKind::average_pooling:
            return stage.windows.height * stage.windows.width;
        default:
            return 1;
        }
    }

    // The same moves as moves of all `units` units of a stage.
    Moved spread(const Moved& moved, Index units, Work& work) {
        const Moved all{0, units, padded<T>(units)};
        std::memset(work.to, 0, static_cast<std::size_t>(base_.rows() * all.stride) * sizeof(T));
        copy<T>(base_.rows(), moved.units, work.from, moved.stride, work.to + moved.first, all.stride);
        work.swap();
        return all;
    }

    // to (rows, to_stride) = moves of some inputs of an affine stage times their rows of the weight.
    void multiply(Index s, const Moved& moved, const T* from, T* to, Index to_stride) const {
        const Stage<T>& stage = net_.stages[s];
        const Matrix<T> moves = rows_of(from, base_.rows(), moved.units, moved.stride);
        const T* const weight = stage.weight + moved.first * stage.outputs;
        if (moved.units == stage.inputs && packed_[s].columns > 0) {
            gemm(moves, packed_[s], to, to_stride, false);
        } else if (moved.units == 1) {
            for (Index i = 0; i < base_.rows(); ++i) {
                const T d = from[i * moved.stride];
                for_each_vector<T>(stage.outputs, [&](Index j, Index n) {
                    store(to + i * to_stride + j, d * load(weight + j, n), n);
                });
            }
        } else {
            gemm(moves, rows_of(weight, moved.units, stage.outputs, stage.outputs), to, to_stride, false);
        }
    }

    // work.to (rows, to_stride) = moves of some channels through the filters.
    void convolve_moves(Index s, const Moved& moved, Index to_stride, Work& work) const {
        const Stage<T>& stage = net_.stages[s];
        const Windows& w = stage.windows;
        const Index image = w.height * w.width, positions = w.positions(), size = patch_size(w);
        const Index channels = moved.units / image, window = w.window_height * w.window_width;
        const Windows part = with_channels(w, channels);
        const Matrix<T> filters = submatrix(rows_of(stage.weight, stage.outputs / positions, size, size), 0,
                                            stage.outputs / positions, moved.first / image * window, channels * window);
        for (Index i = 0; i < base_.rows(); ++i) {
            gather_patches(part, work.from + i * moved.stride, work.patches.data());
            gemm(filters, rows_of<T>(work.patches.data(), channels * window, positions, positions),
                 work.to + i * to_stride, positions, false);
        }
    }

    // changes (moves) = the sums over the rows of the loss's changes for the answers' moves.
    void add_up(Index moves, double* changes, Work& work) const {
        for (Index g = 0; g < moves; ++g) {
            changes[g] = 0;
        }
        for_each_row_change(moves, work, [&](Index, Vec<T> change) {
            for (Index g = 0; g < moves; ++g) {
                changes[g] += static_cast<double>(change[g]);
            }
        });
    }

    // f(row, changes of its loss), a lane for each of the answers' moves.
    template <class F> void for_each_row_change(Index moves, Work& work, F&& f) const {
        const Index classes = base_.classes(), stride = padded<T>(classes);
        Vec<Bits<T>> crossed{};
        work.dz.zeroed();
        for (Index i = 0; i < base_.rows(); ++i) {
            for (Index g = 0; g < moves; ++g) {
                const T* const d = work.answers.data() + (g * base_.rows() + i) * stride;
                for (Index k = 0; k < classes; ++k) {
                    work.dz[k * lanes<T> + g] = d[k];
                }
            }
            const Answer<T> answer = base_.answer(i);
            const Target<T> target = target_of(targets_, i, classes);
            f(i, loss_difference(net_.output, net_.loss, net_.loss_constant, answer, target, work.dz.data(),
                                 work.dy.data()));
            if (net_.loss == Loss::absolute_error) {
                const T* const dy = (net_.output == Output::softmax ? work.dy : work.dz).data();
                for (Index k = 0; k < classes; ++k) {
                    crossed |= changes_side<T>(splat(answer.y[k] - target(k)), load(dy + k * lanes<T>));
                }
            }
        }
        for (Index g = 0; g < moves; ++g) {
            work.loss_kinked[g] = crossed[g] != 0;
        }
    }

    const StagePass<T>& base_;
    const StageNetwork<T>& net_;
    const Targets<T> targets_;
    const T h_;
    FixedList<PackedMatrix<T>> packed_; // each affine stage's weight
    FixedList<Work> works_;
};

} // namespace fastnet::FASTNET_TARGET
