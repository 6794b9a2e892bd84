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

// The most units that a stage has.
template <class T> Index most_units(const StageNetwork<T>& net) {
    Index most = 1;
    for (Index s = 0; s < net.depth; ++s) {
        most = net.stages[s].outputs > most ? net.stages[s].outputs : most;
    }
    return most;
}

// Adds a convolution's filters as (elements of a patch, filters) to a list; of another stage nothing.
template <class T> void transpose_filters(const Stage<T>& stage, FixedList<Array<T>>& list) {
    const bool convolves = stage.kind == StageKind::convolution;
    const Index size = convolves ? patch_size(stage.windows) : 0, filters = convolves ? columns_of(stage) : 0;
    T* const to = list.add(size * filters).data();
    for (Index f = 0; f < filters; ++f) {
        for (Index k = 0; k < size; ++k) {
            to[k * filters + f] = stage.weight[f * size + k];
        }
    }
}

// Moves of one unit by nodes[k] * furthest[row], a lane for each node.
template <class T> struct UnitMoves {
    Vec<T> nodes;
    const T* furthest;

    void row(Index i, T* to) const { store(to, nodes * furthest[i]); }
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
template <class T> class ParameterMoves {
  public:
    static constexpr Index most = lanes<T> / 2;

    // Of column c of stage s. `patch` is a workspace of a filter's positions; `ones` holds at least as many ones.
    ParameterMoves(const StagePass<T>& base, const ColumnInputs<T>& inputs, Index s, Index c, T h, T* patch,
                   const T* ones)
        : stage(s), column(c), units(column_units(base.net().stages[s])), base_(base), inputs_(inputs), h_(h),
          patch_(patch), ones_(ones) {}

    // Adds parameter k of the column. Returns whether there is room for more.
    bool add(Index k) {
        const Stage<T>& s = base_.net().stages[stage];
        parameters[count] = k;
        if (k == weights_of_column(s)) {
            moved_[count] = {ones_, 0};
        } else if (s.kind == StageKind::affine) {
            moved_[count] = {inputs_.at(k), 1};
        } else if (s.kind == StageKind::batch_norm) {
            moved_[count] = {base_.kept(stage) + column * units, base_.stride(stage)};
        } else {
            moved_[count] = {nullptr, 0};
        }
        return ++count < most;
    }

    // to (units, lanes) = the moves in one row.
    void row(Index i, T* to) const {
        std::fill_n(to, units * lanes<T>, T(0));
        for (Index g = 0; g < count; ++g) {
            const T* moved = moved_[g].first + i * moved_[g].stride;
            if (!moved_[g].first) {
                patch_row(base_.net().stages[stage].windows, parameters[g], base_.input(stage, i), patch_);
                moved = patch_;
            }
            for (Index j = 0; j < units; ++j) {
                to[j * lanes<T> + 2 * g] = h_ * moved[j];
                to[j * lanes<T> + 2 * g + 1] = -h_ * moved[j];
            }
        }
    }

    const Index stage, column, units; // units: of the column
    Index parameters[most]{};         // of the column
    Index count = 0;

  private:
    // By how much a parameter of size 1 moves the column: in row i, `units` values from first + i * stride on. Null for
    // a filter's weight.
    struct Moved {
        const T* first;
        Index stride;
    };

    const StagePass<T>& base_;
    const ColumnInputs<T>& inputs_;
    const T h_;
    T* const patch_;
    const T* const ones_;
    Moved moved_[most]{};
};

} // namespace fastnet::FASTNET_TARGET
