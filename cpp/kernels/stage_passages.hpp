// The way of a row's moves through activations and masks, from a stage to the affine stage that mixes its units.
//
// Activations that are linear on either side of a kink multiply a move by a number, as masks do, as long as it stays on
// its side. So a unit has one factor all the way, and a margin: moves that are shorter meet no kink.
#pragma once

#include "kernels/stage_moves.hpp"

namespace fastnet::FASTNET_TARGET {

template <class T> class Passage {
  public:
    // From batch normalisation s of a pass. Nothing is known without such an affine stage, and of other stages.
    Passage(const StagePass<T>& base, Index s)
        : end_(mixer(base.net(), s)), linear_(end_ > 0 && all_linear(base.net(), s, end_)),
          units_(base.net().stages[s].outputs), rows_(base.rows()), live_(end_ > 0 ? rows_ : 0, units_),
          passing_(linear_ ? rows_ : 0, units_), factors_(linear_ ? rows_ * units_ : 0),
          margins_(linear_ ? rows_ * units_ : 0), least_(linear_ ? units_ : 0) {
        std::fill_n(least_.data(), linear_ ? units_ : 0, furthest);
        for (Index i = 0; end_ > 0 && i < rows_; ++i) {
            for (Index j = 0; j < units_; ++j) {
                const Way way = way_of(base, s, i, j);
                if (linear_) {
                    margins_[j * rows_ + i] = way.margin;
                    least_[j] = way.margin < least_[j] ? way.margin : least_[j];
                    factors_[i * units_ + passing_.counts[i]] = way.factor;
                    passing_.add(i, j, way.factor != 0);
                }
                live_.add(i, j, way.open);
            }
        }
    }

    bool known() const { return end_ > 0; }
    // The affine stage.
    Index end() const { return end_; }
    // The units of a row that masks leave.
    Units live(Index row) const { return live_[row]; }

    // Whether each unit has a factor and a margin.
    bool linear() const { return linear_; }
    // The units of a row whose factor is not 0, and their factors.
    Units passing(Index row) const { return passing_[row]; }
    const T* factors(Index row) const { return factors_.data() + row * units_; }
    // A unit's margins (rows), and the least of them.
    const T* margins(Index unit) const { return margins_.data() + unit * rows_; }
    T least_margin(Index unit) const { return least_[unit]; }

  private:
    static constexpr T furthest = static_cast<T>(__builtin_huge_val());

    // Some units of each row.
    struct Lists {
        Lists(Index rows, Index most) : units(most), numbers(rows * most), counts(rows) { counts.zeroed(); }
        void add(Index row, Index unit, bool wanted) const {
            numbers[row * units + counts[row]] = static_cast<std::int32_t>(unit);
            counts[row] += wanted;
        }
        Units operator[](Index row) const { return {numbers.data() + row * units, counts[row]}; }

        const Index units;
        const Array<std::int32_t> numbers; // (rows, units)
        const Array<Index> counts;         // (rows)
    };

    struct Way {
        bool open = true; // for the masks
        T factor = 1, margin = furthest;
    };

    // The affine stage that mixes the units; 0 if another kind of stage needs them before.
    static Index mixer(const StageNetwork<T>& net, Index s) {
        for (Index later = s + 1; couples_rows(net.stages[s]) && later < net.depth; ++later) {
            if (!couples_nothing(net.stages[later])) {
                return net.stages[later].kind == StageKind::affine ? later : 0;
            }
        }
        return 0;
    }

    static bool all_linear(const StageNetwork<T>& net, Index s, Index end) {
        bool linear = true;
        for (Index later = s + 1; later < end; ++later) {
            const Stage<T>& stage = net.stages[later];
            if (stage.kind == StageKind::activation) {
                with_activation(stage.activation, stage.constant,
                                [&]<class Phi>(Phi) { linear &= !Phi::bends && !Phi::seamed; });
            }
        }
        return linear;
    }

    // Unit j's way in row i.
    Way way_of(const StagePass<T>& base, Index s, Index i, Index j) const {
        Way way;
        for (Index later = s + 1; later < end_; ++later) {
            const Stage<T>& stage = base.net().stages[later];
            if (stage.kind == StageKind::dropout) {
                const T mask = base.kept(later)[i * base.stride(later) + j];
                way.open &= mask != 0;
                way.factor *= mask;
            } else if (linear_ && way.factor != 0) {
                with_activation(stage.activation, stage.constant,
                                [&](auto phi) { pass(phi, base.points(later, i)[j].a[0], way); });
            }
        }
        return way;
    }

    // Takes a unit on through an activation, from its pre-activation a.
    template <class Phi> static void pass(Phi phi, T a, Way& way) {
        if constexpr (Phi::kinked) {
            const T margin = (a < 0 ? -a : a) / (way.factor < 0 ? -way.factor : way.factor);
            way.margin = margin >= way.margin ? way.margin : margin > 0 ? margin : T(0); // 0 for NaN
        }
        // What becomes of a move of 1 that stays on this side.
        const BasePoint<T> side = phi.base_point(splat(a > 0 ? T(2) : T(-2)));
        way.factor *= phi.template difference<false>(side, phi.template move<false>(splat(T(1))))[0];
    }

    const Index end_;
    const bool linear_;
    const Index units_, rows_;
    const Lists live_, passing_;
    const Array<T> factors_; // (rows, units), of the passing ones
    const Array<T> margins_; // (units, rows)
    const Array<T> least_;   // (units)
};

} // namespace fastnet::FASTNET_TARGET
