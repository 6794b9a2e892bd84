// The finite-difference gradient of a network of stages: each parameter's own two moves, carried to the loss.
//
// The moves of several parameters of a column go through together, a lane for each. Row by row they pass the stages up
// to the next one that couples the rows, which takes those of all rows. As long as the stages change units one by one,
// only the column is carried on. Differences are exact, so that nothing cancels, however small the step is.
#pragma once

#include <algorithm>
#include <numeric>
#include <type_traits>
#include <utility>

#include "kernels/batch_norm_moves.hpp"
#include "kernels/stage_columns.hpp"

namespace fastnet::FASTNET_TARGET {

template <class T> class StageDifferences {
  public:
    // After a pass of `base` over rows with these targets, which has kept its points; `finite`: whether its loss is.
    StageDifferences(const StagePass<T>& base, const Targets<T>& targets, double h, bool finite)
        : base_(base), net_(base.net()), targets_(targets), h_(static_cast<T>(h)), finite_(finite), far_(base.is_far()),
          rows_between_checks_(1 + static_cast<Index>(1e6 / multiply_adds(net_))), filters_(net_.depth),
          inputs_(net_.depth), passages_(net_.depth), answers_(base.rows()), all_(most_units(net_)),
          ones_(most_units(net_)), works_(base.workers()) {
        std::iota(all_.data(), all_.data() + most_units(net_), 0);
        std::fill_n(ones_.data(), most_units(net_), T(1));
        Sizes sizes{base.classes(), 1, 1, 1, 1};
        for (Index s = 0; s < net_.depth; ++s) {
            const Stage<T>& stage = net_.stages[s];
            transpose_filters(stage, filters_);
            inputs_.add(base, s);
            passages_.add(base, s);
            if (stage.weight) {
                measure(s, sizes);
            }
        }
        for (Index i = 0; i < base.rows(); ++i) {
            answers_.add(base.answer(i));
        }
        for (int w = 0; w < base.workers(); ++w) {
            works_.add(base, sizes);
        }
    }

    // Fills the gradient with respect to the parameters of stage s.
    void run(Index s, const StageGradient<T>& gradient, const StageKinks& kinks) {
        parallel_for(columns_of(net_.stages[s]), base_.workers(),
                     [&](Index column, int worker) { differentiate(s, column, gradient, kinks, worker); });
    }

    // The same for the parameters that move one column.
    void differentiate(Index s, Index column, const StageGradient<T>& gradient, const StageKinks& kinks, int worker) {
        const Stage<T>& stage = net_.stages[s];
        const Index weights = weights_of_column(stage), count = weights + (stage.bias ? 1 : 0);
        ParameterMoves<T> moves(base_, inputs_[s], s, column, h_, works_[worker].patch.data(), ones_.data());
        for (Index k = 0; k < count; ++k) {
            if (k < weights && finite_ && inputs_[s].idle(k)) {
                set({gradient, kinks}, s, column, k, 0, false);
                continue;
            }
            if (!moves.add(k)) {
                differentiate(moves, {gradient, kinks}, worker);
            }
        }
        differentiate(moves, {gradient, kinks}, worker);
    }

    // changes (count, stride) = the changes of each row's loss when one unit of stage s's moves by nodes[k] *
    // furthest[row] there, where no later stage couples rows; those of rows without a move stay what they are. A vector
    // can be read from each node on.
    void row_changes(Index s, Index unit, const T* furthest, const T* nodes, Index count, Index stride, T* changes,
                     int worker) {
        for (Index first = 0; first < count; first += lanes<T>) {
            const Index moves = min_index(lanes<T>, count - first);
            works_[worker].evaluations += moves * base_.rows();
            carry(UnitMoves<T>{load(nodes + first), furthest}, s + 1, {unit, 1}, works_[worker],
                  [&](Index i, Vec<T> change) {
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
    // The most that carrying needs: units of a row and of a column; units held before a batch normalisation, units
    // behind it, and its columns.
    struct Sizes {
        Index row, column, held, normed, normed_columns;
    };

    // A thread's own workspace.
    struct Work {
        Work(const StagePass<T>& base, const Sizes& sizes)
            : memory(2 * sizes.row * lanes<T>), from(memory.data()), to(from + sizes.row * lanes<T>),
              numbers(sizes.row), patch(sizes.column), dy(base.classes() * lanes<T>),
              normed{{base, sizes.held, sizes.normed, sizes.normed_columns},
                     {base, sizes.held, sizes.normed, sizes.normed_columns}} {}
        // The moves that a stage has made are those that the next one takes.
        void swap() { std::swap(from, to); }
        // One is written while the other one is read.
        NormedMoves<T>& other_normed() { return normed[++turn % 2]; }

        const Array<T> memory;
        T *from, *to;            // (units, lanes): moves of a stage's units, and of the next stage's, of one row
        Units units{nullptr, 0}; // those of `from`
        bool moving = false;     // whether none of them is known to stay
        const Array<std::int32_t> numbers;
        const Array<T> patch, dy;
        NormedMoves<T> normed[2];
        unsigned turn = 0;
        Vec<Bits<T>> kinks{}; // the lanes in which a move met a kink
        std::int64_t evaluations = 0;
    };

    struct Results {
        const StageGradient<T>& gradient;
        const StageKinks& kinks;
    };

    // What the moves of one of stage s's columns need, all the way.
    void measure(Index s, Sizes& sizes) const {
        const auto grow = [](Index& size, Index to) { size = to > size ? to : size; };
        Index before = 0; // units that move before the last stage
        UnitRange range{0, column_units(net_.stages[s])};
        grow(sizes.column, range.count);
        for (Index next = s + 1; next <= net_.depth; ++next) {
            grow(sizes.row, range.count);
            if (next == net_.depth) {
                break;
            }
            const Stage<T>& stage = net_.stages[next];
            range = taken_with(stage, range);
            grow(sizes.row, range.count);
            if (couples_rows(stage)) {
                grow(sizes.held, hands_one_on(next - 1, before) ? 1 : range.count);
                grow(sizes.normed, range.count);
                grow(sizes.normed_columns, range.count / stage.positions);
            }
            before = range.count;
            range = moved_by(stage, range);
        }
    }

    // Whether stage s is affine, the stage behind it couples the rows of each unit, and only one of its inputs moves.
    bool hands_one_on(Index s, Index moving) const {
        return net_.stages[s].kind == StageKind::affine && net_.stages[s + 1].positions == 1 && moving == 1;
    }

    // The differences of a group of parameters, which is empty afterwards.
    void differentiate(ParameterMoves<T>& moves, const Results& results, int worker) {
        if (moves.count == 0) {
            return;
        }
        Work& work = works_[worker];
        work.kinks = Vec<Bits<T>>{};
        work.evaluations += 2 * moves.count * base_.rows();
        Wide<T> changes{};
        carry(moves, moves.stage + 1, {moves.column * moves.units, moves.units}, work,
              [&](Index, Vec<T> change) { changes += widen<T>(change); });
        for (Index g = 0; g < moves.count; ++g) {
            set(results, moves.stage, moves.column, moves.parameters[g], changes[2 * g] - changes[2 * g + 1],
                work.kinks[2 * g] | work.kinks[2 * g + 1]);
        }
        moves.count = 0;
    }

    // The difference with respect to parameter k of a column, from the losses' sums that two moves change.
    void set(const Results& results, Index s, Index column, Index k, double change, bool kinked) const {
        const Stage<T>& stage = net_.stages[s];
        const double difference = change / (2 * static_cast<double>(h_) * static_cast<double>(base_.rows()));
        const Index weights = weights_of_column(stage);
        if (k == weights) {
            results.gradient.bias[column] = static_cast<T>(difference);
            if (results.kinks.bias) {
                results.kinks.bias[column] = kinked;
            }
            return;
        }
        const Index at = stage.kind == StageKind::affine ? k * stage.outputs + column : column * weights + k;
        const double decay =
            decays(stage) && net_.weight_decay != 0 ? net_.weight_decay * static_cast<double>(stage.weight[at]) : 0;
        results.gradient.weight[at] = static_cast<T>(difference + decay);
        if (results.kinks.weight) {
            results.kinks.weight[at] = kinked;
        }
    }

    // work.from = the source's moves of row i, behind the stages up to `next`, which becomes the first one that they
    // have not passed.
    template <class Source>
    void start(const Source& source, Index& next, Index last, Index i, UnitRange range, Work& work) const {
        work.units = units_of(range);
        work.moving = false;
        if constexpr (std::is_same_v<Source, NormedMoves<T>>) {
            const Passage<T>& passage = passages_[next - 1];
            if (passage.known() && passage.end() < last && range.count == net_.stages[next - 1].outputs) {
                if (passage.linear() && finite_ && !source.is_far(i)) {
                    return start_on_sides(source, passage, next, i, work);
                }
                work.units = passage.live(i);
            }
            pass_activation(next, last, i, work, [&](auto&& map) {
                source.row(i, work.units, [&map, to = work.from](Index j, Index unit, Vec<T> move) {
                    store(to + j * lanes<T>, map(unit, move));
                });
            });
        } else {
            source.row(i, work.from);
        }
    }

    // The same where no unit leaves its side.
    void start_on_sides(const NormedMoves<T>& source, const Passage<T>& passage, Index& next, Index i,
                        Work& work) const {
        work.units = passage.passing(i);
        work.moving = true;
        next = passage.end();
        source.row(i, work.units, [factors = passage.factors(i), to = work.from](Index j, Index, Vec<T> move) {
            store(to + j * lanes<T>, move * splat(factors[j]));
        });
    }

    // f(map) with what an activation and a dropout, if they are the next stages, make of moves: map(unit, move).
    template <class F> void pass_activation(Index& next, Index last, Index row, Work& work, F&& f) const {
        if (next == last || net_.stages[next].kind != StageKind::activation) {
            return f([](Index, Vec<T> move) { return move; });
        }
        const Index s = next++;
        const bool masked = next < last && net_.stages[next].kind == StageKind::dropout;
        const T* const mask = masked ? base_.kept(next) + row * base_.stride(next) : ones_.data();
        next += masked;
        if (!far_) {
            return with_activation_difference(base_, s, row, mask, work.kinks, f);
        }
        const PointRow<T> points = base_.points(s, row);
        with_activation_difference(base_, s, row, mask, work.kinks, [&](auto&& map) {
            f([&](Index unit, Vec<T> move) {
                return unless_lost<T>(loses_digits<T>(points[unit].a, move), map(unit, move));
            });
        });
    }

    Units units_of(UnitRange range) const { return {all_.data() + range.first, range.count}; }

    // Carries moves of a range of units behind stage `next` - 1 to the loss. source.row(i, to) gives those of row i;
    // f(row, changes of its loss) is called for the rows that move.
    template <class Source, class F> void carry(const Source& source, Index next, UnitRange range, Work& work, F&& f) {
        Index end = next; // the stage that couples rows
        while (end < net_.depth && !couples_rows(net_.stages[end])) {
            ++end;
        }
        if (end == net_.depth) {
            for (Index i = 0; i < base_.rows(); ++i) {
                check(i);
                Index s = next;
                start(source, s, end, i, range, work);
                if (finite_ && !moves_any(work.from, work.units.count)) {
                    continue;
                }
                widen_range(carry_row(s, end, i, range, work), {0, base_.classes()}, work);
                f(i, differ_loss(i, work));
            }
            return;
        }
        UnitRange before = range; // the units that reach the stage before the coupling one
        for (Index s = next; s + 1 < end; ++s) {
            before = moved_by(net_.stages[s], taken_with(net_.stages[s], before));
        }
        const bool single = end > next && hands_one_on(end - 1, before.count);
        NormedMoves<T>& normed = work.other_normed();
        UnitRange reached{0, 0};
        for (Index i = 0; i < base_.rows(); ++i) {
            check(i);
            Index s = next;
            start(source, s, single ? end - 1 : end, i, range, work);
            reached = carry_row(s, single ? end - 1 : end, i, range, work);
            if (!single) {
                reached = widen_range(reached, taken_with(net_.stages[end], reached), work);
            }
            std::copy_n(work.from, reached.count * lanes<T>, normed.moves() + i * reached.count * lanes<T>);
        }
        if (single) {
            normed.run_behind_affine(end, reached.first);
            reached = {0, net_.stages[end].outputs};
        } else {
            normed.run(end, reached);
        }
        if (passages_[end].linear() && reached.count == net_.stages[end].outputs) {
            normed.find_far_rows(passages_[end]);
        }
        carry(normed, end + 1, reached, work, f);
    }

    // The changes of row i's loss by the moves of all answers, in work.from; NaN where moves lose digits.
    Vec<T> differ_loss(Index i, Work& work) const {
        const Answer<T>& answer = answers_[i];
        const Target<T> target = target_of(targets_, i, base_.classes());
        T* const dy = work.dy.data();
        const Vec<T> change =
            loss_difference(net_.output, net_.loss, net_.loss_constant, answer, target, work.from, dy);
        if (net_.loss == Loss::absolute_error) {
            const T* const moves = net_.output == Output::softmax ? dy : work.from;
            for (Index k = 0; k < base_.classes(); ++k) {
                work.kinks |= changes_side<T>(splat(answer.y[k] - target(k)), load(moves + k * lanes<T>));
            }
        }
        if (!far_) {
            return change;
        }
        Vec<Bits<T>> lost = loses_digits<T>(splat(base_.row_loss(i)), change);
        for (Index k = 0; k < base_.classes(); ++k) {
            lost |= loses_digits<T>(splat(answer.z[k]), load(work.from + k * lanes<T>));
        }
        return unless_lost<T>(lost, change);
    }

    // A checkpoint, which reads a clock, after every million multiply-adds or so.
    void check(Index row) const {
        if (row % rows_between_checks_ == 0) {
            checkpoint();
        }
    }

    static bool moves_any(const T* moves, Index units) {
        for (Index j = 0; j < units; ++j) {
            if (nonzero_mask<T>(load(moves + j * lanes<T>))) {
                return true;
            }
        }
        return false;
    }

    // Carries one row's moves of some units of a range, in work.from, through the stages [first, last). Returns which
    // units move then.
    UnitRange carry_row(Index first, Index last, Index row, UnitRange range, Work& work) const {
        Units& units = work.units;
        for (Index s = first; s < last;) {
            const Stage<T>& stage = net_.stages[s];
            const UnitRange taken = taken_with(stage, range);
            if (taken.count != range.count) {
                units = units_of(range = widen_range(range, taken, work));
            }
            switch (stage.kind) {
            case StageKind::activation:
                pass_activation(s, last, row, work, [&](auto&& map) {
                    for (Index j = 0; j < units.count; ++j) {
                        T* const move = work.from + j * lanes<T>;
                        store(move, map(units.numbers[j], load(move)));
                    }
                });
                continue;
            case StageKind::dropout:
                differ_dropout(base_, s++, row, units, work.from);
                continue;
            case StageKind::affine:
                if (!work.moving) {
                    units = moving_units(units, work.from, work.numbers.data());
                }
                differ_affine(stage, units, work.from, work.to);
                break;
            case StageKind::convolution: {
                const Index channel = stage.windows.height * stage.windows.width, filters = columns_of(stage);
                const Windows part = with_channels(stage.windows, range.count / channel);
                const Index skipped = range.first / channel * stage.windows.window_height * stage.windows.window_width;
                differ_convolution(part, filters, filters_[s].data() + skipped * filters, work.from, work.to);
                break;
            }
            case StageKind::max_pooling:
                differ_max_pooling(base_, s, row, range, work.from, work.to, work.kinks);
                break;
            case StageKind::average_pooling:
                differ_average_pooling(stage.windows, range, work.from, work.to);
                break;
            case StageKind::batch_norm: // couples rows
                break;
            }
            ++s;
            work.swap();
            range = moved_by(stage, range);
            units = units_of(range);
            work.moving = false;
        }
        return range;
    }

    // The same moves, in work.from, as those of a wider range.
    static UnitRange widen_range(UnitRange range, UnitRange to, Work& work) {
        if (to.count != range.count) {
            std::fill_n(work.to, to.count * lanes<T>, T(0));
            std::copy_n(work.from, range.count * lanes<T>, work.to + (range.first - to.first) * lanes<T>);
            work.swap();
        }
        return to;
    }

    const StagePass<T>& base_;
    const StageNetwork<T>& net_;
    const Targets<T> targets_;
    const T h_;
    const bool finite_;
    const bool far_; // whether any loss or pre-activation is so far from 0 that moves may lose digits
    const Index rows_between_checks_;
    FixedList<Array<T>> filters_;       // of each convolution, (elements of a patch, filters)
    FixedList<ColumnInputs<T>> inputs_; // of each stage
    FixedList<Passage<T>> passages_;    // from each batch normalisation
    FixedList<Answer<T>> answers_;      // of the rows
    const Array<std::int32_t> all_;     // 0, 1, 2, …
    const Array<T> ones_;
    FixedList<Work> works_;
};

} // namespace fastnet::FASTNET_TARGET
