// Where differences through stages begin: the units that a parameter moves, and how far.
//
// A parameter moves one column of its stage's units: a unit, a filter's positions, or a batch normalisation's column.
#pragma once

#include <algorithm>

#include "kernels/stage_moves.hpp"

namespace fastnet::FASTNET_TARGET {

// The units of one column of a stage with parameters.
template <class T> Index column_units(const Stage<T>& stage) {
    return stage.kind == StageKind::convolution  ? stage.windows.positions()
           : stage.kind == StageKind::batch_norm ? stage.positions
                                                 : 1;
}

template <class T> Index columns_of(const Stage<T>& stage) {
    return stage.weight ? stage.outputs / column_units(stage) : 0;
}

// The weights that move one column; its bias comes after them.
template <class T> Index weights_of_column(const Stage<T>& stage) {
    return stage.kind == StageKind::affine        ? stage.inputs
           : stage.kind == StageKind::convolution ? patch_size(stage.windows)
                                                  : 1;
}

// Moves of one unit by nodes[k] * furthest[row], a lane for each node.
template <class T> struct UnitMoves {
    Vec<T> nodes;
    const T* furthest;

    void row(Index i, T* to) const { store(to, nodes * furthest[i]); }
};

// The units of every row that are left by the masks behind stage s, up to an affine stage that mixes them; the moves of
// others never get there. Without such a stage nothing is known of a row.
template <class T> class LiveUnits {
  public:
    LiveUnits(const StagePass<T>& base, Index s)
        : units_(base.net().stages[s].outputs), known_(mixer(base.net(), s) > 0),
          numbers_(known_ ? base.rows() * units_ : 0), counts_(known_ ? base.rows() : 0) {
        for (Index i = 0; known_ && i < base.rows(); ++i) {
            std::int32_t* const numbers = numbers_.data() + i * units_;
            Index count = 0;
            for (Index j = 0; j < units_; ++j) {
                bool live = true;
                for (Index later = s + 1; later < mixer(base.net(), s); ++later) {
                    const bool masked = base.net().stages[later].kind == StageKind::dropout;
                    live &= !masked || base.kept(later)[i * base.stride(later) + j] != 0;
                }
                numbers[count] = static_cast<std::int32_t>(j);
                count += live;
            }
            counts_[i] = count;
        }
    }
    bool known() const { return known_; }
    Units operator[](Index row) const { return {numbers_.data() + row * units_, counts_[row]}; }

  private:
    // The affine stage that mixes stage s's units; 0 if another kind of stage needs them before.
    static Index mixer(const StageNetwork<T>& net, Index s) {
        for (Index later = s + 1; later < net.depth; ++later) {
            const StageKind kind = net.stages[later].kind;
            if (kind != StageKind::activation && kind != StageKind::dropout) {
                return kind == StageKind::affine ? later : 0;
            }
        }
        return 0;
    }

    const Index units_;
    const bool known_;
    const Array<std::int32_t> numbers_; // (rows, units)
    const Array<Index> counts_;         // (rows)
};

// The inputs that all columns of a stage share.
template <class T> class ColumnInputs {
  public:
    ColumnInputs(const StagePass<T>& base, Index s)
        : rows_(base.rows()), affine_(base.net().stages[s].kind == StageKind::affine),
          idle_(weights_of_column(base.net().stages[s])), values_(affine_ ? base.net().stages[s].inputs * rows_ : 0) {
        const Stage<T>& stage = base.net().stages[s];
        const Index count = weights_of_column(stage), units = column_units(stage);
        const Array<T> patch(units);
        std::fill_n(idle_.data(), count, affine_ || stage.kind == StageKind::convolution);
        for (Index i = 0; i < rows_; ++i) {
            const T* const input = base.input(s, i);
            for (Index k = 0; k < count; ++k) {
                if (affine_) {
                    values_[k * rows_ + i] = input[k];
                    idle_[k] &= input[k] == 0;
                } else if (idle_[k]) {
                    patch_row(stage.windows, k, input, patch.data());
                    idle_[k] = std::all_of(patch.data(), patch.data() + units, [](T x) { return x == 0; });
                }
            }
        }
    }
    // Whether weight k of each column meets nothing but zeros in all rows: it moves nothing.
    bool idle(Index k) const { return idle_[k]; }
    // Input k of an affine stage (rows).
    const T* at(Index k) const { return values_.data() + k * rows_; }

  private:
    const Index rows_;
    const bool affine_;
    const Array<bool> idle_;
    const Array<T> values_;
};

// Moves of a column by steps h and -h of some of its parameters, two lanes for each.
template <class T> struct ParameterMoves {
    static constexpr Index most = lanes<T> / 2;

    const StagePass<T>& base;
    const ColumnInputs<T>& inputs;
    const Index stage, column;
    const T h;
    T* const patch;           // a workspace of a filter's positions
    Index parameters[most]{}; // of the column
    Index count = 0;

    // to (units of the column, lanes) = the moves in one row.
    void row(Index i, T* to) const {
        const Stage<T>& s = base.net().stages[stage];
        const Index units = column_units(s), weights = weights_of_column(s);
        std::fill_n(to, units * lanes<T>, T(0));
        for (Index g = 0; g < count; ++g) {
            const Index k = parameters[g];
            const T* moved = patch; // by a parameter of size 1
            if (k == weights) {
                std::fill_n(patch, units, T(1));
            } else if (s.kind == StageKind::affine) {
                moved = inputs.at(k) + i;
            } else if (s.kind == StageKind::convolution) {
                patch_row(s.windows, k, base.input(stage, i), patch);
            } else {
                moved = base.kept(stage) + i * base.stride(stage) + column * units;
            }
            for (Index j = 0; j < units; ++j) {
                to[j * lanes<T> + 2 * g] = h * moved[j];
                to[j * lanes<T> + 2 * g + 1] = -h * moved[j];
            }
        }
    }
};

} // namespace fastnet::FASTNET_TARGET
