// Differences through a batch normalisation, which couples the rows: moves of a column of all rows, exactly.
//
// With x the normalised values, e the moves less their mean, s the deviation and s' the new one, the normalised values
// move by e/s' - x·(s'² - s²)/(s'·(s + s')), where s'² - s² is the mean of 2·s·x·e + e². Nothing cancels. So every unit
// moves by its own e and x times two numbers of its column.
#pragma once

#include "kernels/stage_passages.hpp"

namespace fastnet::FASTNET_TARGET {

template <class T> class NormedMoves {
  public:
    // For moves of at most so many units and columns; `held` units are held, one where the affine stage before hands it
    // on to all.
    NormedMoves(const StagePass<T>& base, Index held, Index units, Index columns)
        : base_(base), columns_(units), moves_(base.rows() * held * lanes<T>), furthest_(columns * lanes<T>),
          of_move_(columns * lanes<T>), of_normal_(columns * lanes<T>), far_(base.rows()) {}

    // Where the moves of the stage before lie: (rows, units, lanes).
    T* moves() const { return moves_.data(); }

    // Takes the moves of a range of the units of batch normalisation s, which are whole columns.
    void run(Index s, UnitRange range) {
        begin(s, range, range.count, lanes<T>);
        const Stage<T>& stage = base_.net().stages[s];
        const Index positions = stage.positions;
        const double elements = static_cast<double>(base_.rows() * positions);
        for (Index c = 0; c * positions < range.count; ++c) {
            Wide<T> total{}, with_normal{}, square{};
            Vec<T> furthest{};
            for_each_element(c, [&](T* move, T) { total += widen<T>(load(move)); });
            const Vec<T> mean = narrow<T>(total / elements);
            for_each_element(c, [&](T* move, T x) {
                const Vec<T> e = load(move) - mean;
                store(move, e);
                furthest = max<T>(absolute<T>(e), furthest);
                square += widen<T>(e) * widen<T>(e);
                with_normal += widen<T>(e) * static_cast<double>(x);
            });
            set(c, range.first / positions + c, 1, with_normal, square, furthest);
        }
    }

    // Takes the moves (rows, lanes) of one input of affine stage s - 1. Unit k moves by its weight w_k times them, so
    // that the sums of all units come from one product, of the normalised values and e.
    void run_behind_affine(Index s, Index input) {
        const Stage<T>& affine = base_.net().stages[s - 1];
        begin(s, {0, affine.outputs}, 1, 0);
        const T* const weight = affine.weight + input * affine.outputs;
        const Index rows = base_.rows(), stride = base_.stride(s);
        const double elements = static_cast<double>(rows);
        Wide<T> total{}, square{};
        for (Index i = 0; i < rows; ++i) {
            total += widen<T>(load(moves() + i * lanes<T>));
        }
        const Wide<T> mean = total / elements;
        Vec<T> furthest{};
        for (Index i = 0; i < rows; ++i) {
            const Wide<T> e = widen<T>(load(moves() + i * lanes<T>)) - mean;
            square += e * e;
            furthest = max<T>(absolute<T>(narrow<T>(e)), furthest);
            store(moves() + i * lanes<T>, narrow<T>(e));
        }
        for_each_sums<T>(affine.outputs, of_normal_.data(), lanes<T>, [&](Index first, auto& sums) {
            for (Index i = 0; i < rows; ++i) {
                add_products<T>(sums, load(moves() + i * lanes<T>), base_.kept(s) + i * stride + first);
            }
        });
        for (Index k = 0; k < affine.outputs; ++k) {
            const double w = static_cast<double>(weight[k]);
            set(k, k, w, w * widen<T>(load(of_normal_.data() + k * lanes<T>)), w * w * square, furthest);
        }
    }

    // Finds the rows in which a unit may move as far as its margin on the passage from here, after `run` for all units.
    void find_far_rows(const Passage<T>& passage) const {
        const Index rows = base_.rows();
        std::fill_n(far_.data(), rows, false);
        const T longest = // of a column's normalised values, whose squares have a mean of at most 1
            __builtin_sqrt(static_cast<T>(rows * base_.net().stages[stage_].positions));
        for (Index j = 0; j < range_.count; ++j) {
            const Index column = columns_[j] * lanes<T>;
            const Vec<T> move = absolute<T>(load(of_move_.data() + column) * load(furthest_.data() + column));
            const Vec<T> reach = T(1.01) * (move + longest * absolute<T>(load(of_normal_.data() + column)));
            if (any<T>(~(reach < passage.least_margin(j)))) { // NaN is not less
                const T* const margins = passage.margins(j);
                for (Index i = 0; i < rows; ++i) {
                    far_[i] |= any<T>(~(reach < margins[i]));
                }
            }
        }
    }
    bool is_far(Index row) const { return far_[row]; }

    // f(j, unit, move) for the moves of some units of one row behind the normalisation.
    template <class F> FASTNET_INLINE void row(Index i, Units units, F&& f) const {
        const T* const normal = base_.kept(stage_) + i * base_.stride(stage_);
        const T* const from = moves_.data() + i * held_ * lanes<T>;
        const Index first = range_.first;
        const auto make = [&](auto&& column_of, auto&& move_of) {
            const T *const of_move = of_move_.data(), *const of_normal = of_normal_.data();
            const std::int32_t* const numbers = units.numbers;
            for (Index j = 0; j < units.count; ++j) {
                const Index unit = numbers[j], column = column_of(unit - first) * lanes<T>;
                const Vec<T> e = move_of(unit - first);
                f(j, unit, e * load(of_move + column) + splat(normal[unit]) * load(of_normal + column));
            }
        };
        const auto own_column = [](Index unit) { return unit; };
        const auto own_move = [from](Index unit) { return load(from + unit * lanes<T>); };
        if (step_ == 0) {
            make(own_column, [e = load(from)](Index) { return e; });
        } else if (base_.net().stages[stage_].positions == 1) {
            make(own_column, own_move);
        } else {
            make([columns = columns_.data()](Index unit) { return columns[unit]; }, own_move);
        }
    }

  private:
    void begin(Index s, UnitRange range, Index held, Index step) {
        stage_ = s;
        range_ = range;
        held_ = held;
        step_ = step;
        const Index positions = base_.net().stages[s].positions;
        for (Index j = 0; j < range.count; ++j) {
            columns_[j] = static_cast<std::int32_t>(positions == 1 ? j : j / positions);
        }
    }

    // f(move, normalised value) for each element of column c of the range.
    template <class F> FASTNET_INLINE void for_each_element(Index c, F&& f) const {
        const Index positions = base_.net().stages[stage_].positions, first = c * positions;
        for (Index i = 0; i < base_.rows(); ++i) {
            T* const move = moves_.data() + (i * held_ + first) * lanes<T>;
            const T* const normal = base_.kept(stage_) + i * base_.stride(stage_) + range_.first + first;
            for (Index p = 0; p < positions; ++p) {
                f(move + p * lanes<T>, normal[p]);
            }
        }
    }

    // The two numbers of column c of the range, which is `column` of the stage, for moves that are `scale` times e;
    // from the sums of scale·e·x and (scale·e)². The greatest size of e is `furthest`.
    void set(Index c, Index column, double scale, Wide<T> with_normal, Wide<T> square, Vec<T> furthest) const {
        const Stage<T>& stage = base_.net().stages[stage_];
        const double gamma = static_cast<double>(stage.weight[column]), before = 1 / base_.inverses(stage_)[column];
        const double elements = static_cast<double>(base_.rows() * stage.positions);
        const Wide<T> grows = (2 * before * with_normal + square) / elements;
        Wide<T> after = before * before + grows;
        for (Index lane = 0; lane < lanes<T>; ++lane) {
            after[lane] = __builtin_sqrt(after[lane]);
        }
        const Wide<T> both = after + before, inverse = gamma / (after * both);
        store(furthest_.data() + c * lanes<T>, furthest);
        store(of_move_.data() + c * lanes<T>, narrow<T>(scale * both * inverse));
        store(of_normal_.data() + c * lanes<T>, narrow<T>(-grows * inverse));
    }

    const StagePass<T>& base_;
    const Array<std::int32_t> columns_; // of the range's units, from 0 on
    const Array<T> moves_, furthest_, of_move_, of_normal_;
    const Array<bool> far_;                 // (rows)
    Index stage_ = 0, held_ = 0, step_ = 0; // held_: units of a row of moves; step_: from one unit's to the next one's
    UnitRange range_{0, 0};
};

} // namespace fastnet::FASTNET_TARGET
