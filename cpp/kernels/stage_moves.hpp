// Differences through stages: from moves of a stage's units to the moves of the next stage's, exactly.
//
// The moves of one perturbation are either those of some neighbouring units (rows, padded units), as long as no stage
// mixes them with others, or those of all units.
#pragma once

#include "kernels/stage_pass.hpp"

namespace fastnet::FASTNET_TARGET {

// Which units of a stage moves are of: `units` neighbouring ones from `first` on, and how far rows of moves are apart.
struct Moved {
    Index first, units, stride;
};

// Moves of an activation's units, in place. Returns whether a unit crossed a kink.
template <class T> bool differ_activation(const StagePass<T>& base, Index s, const Moved& moved, T* moves) {
    const Stage<T>& stage = base.net().stages[s];
    Vec<Bits<T>> kinks{};
    with_activation(stage.activation, stage.constant, [&]<class Phi>(Phi phi) {
        for (Index i = 0; i < base.rows(); ++i) {
            for_each_vector<T>(moved.units, [&](Index j, Index n) {
                T* const at = moves + i * moved.stride + j;
                const Vec<T> d = load(at, n);
                if constexpr (Phi::kinked) {
                    kinks |= changes_side<T>(base.point(s, i, moved.first + j, n).a, d);
                }
                store(at,
                      phi.template difference<false>(base.point(s, i, moved.first + j, n), phi.template move<false>(d)),
                      n);
            });
        }
    });
    return any<T>(kinks);
}

// Moves of dropout's units, in place: the mask is held fixed.
template <class T> void differ_dropout(const StagePass<T>& base, Index s, const Moved& moved, T* moves) {
    for (Index i = 0; i < base.rows(); ++i) {
        const T* const mask = base.kept(s) + i * base.stride(s) + moved.first;
        T* const row = moves + i * moved.stride;
        for_each_vector<T>(moved.units,
                           [&](Index j, Index n) { store(row + j, load(row + j, n) * load(mask + j, n), n); });
    }
}

// Moves d of a batch normalisation's columns, in place. With x the normalised values, e the moves less their mean, s
// the deviation and s' the new one, the normalised values move by e/s' - x·(s'² - s²)/(s'·(s + s')), where s'² - s² is
// the mean of 2·s·x·e + e². Nothing cancels.
template <class T> void differ_batch_norm(const StagePass<T>& base, Index s, const Moved& moved, T* moves) {
    const Stage<T>& stage = base.net().stages[s];
    const Index positions = stage.positions, columns = moved.units / positions, first = moved.first / positions;
    const bool single = positions == 1;
    const ColumnBlock<T> d{moves, base.rows(), moved.stride, 0, moved.units, positions};
    const ColumnBlock<T> normal{
        const_cast<T*>(base.kept(s)), base.rows(), base.stride(s), moved.first, moved.units, positions};
    const Array<double> memory(3 * columns);
    double *const mean = memory.data(), *const of_move = mean + columns, *const of_normal = of_move + columns;
    sum_columns(d, mean, [&](Index i, Index j, Index n, Index) { return widen<T>(load(d.at(i, j), n)); });
    for (Index c = 0; c < columns; ++c) {
        mean[c] /= d.count();
    }
    double* const change = of_normal; // of the variance
    const auto rest = [&](Index i, Index j, Index n, Index c) {
        return widen<T>(load(d.at(i, j), n)) - of_columns<T>(mean, c, n, single);
    };
    sum_columns(d, of_move, [&](Index i, Index j, Index n, Index c) { // sum of e·x
        return rest(i, j, n, c) * widen<T>(load(normal.at(i, j), n));
    });
    sum_columns(d, change, [&](Index i, Index j, Index n, Index c) { // sum of e²
        Wide<T> e = rest(i, j, n, c);
        for (Index k = n; k < lanes<T>; ++k) {
            e[k] = 0; // behind the column
        }
        return e * e;
    });
    for (Index c = 0; c < columns; ++c) {
        const double inverse = base.inverses(s)[first + c], deviation = 1 / inverse;
        const double grows = (2 * deviation * of_move[c] + change[c]) / d.count();
        const double after = __builtin_sqrt(deviation * deviation + grows);
        of_move[c] = 1 / after;
        of_normal[c] = grows / (after * (after + deviation));
    }
    for_each_column_vector(d, [&](Index j, Index n, Index c) {
        const Wide<T> centre = of_columns<T>(mean, c, n, single), m = of_columns<T>(of_move, c, n, single);
        const Wide<T> x = of_columns<T>(of_normal, c, n, single);
        const Vec<T> gamma = single ? load(stage.weight + first + c, n) : splat(stage.weight[first + c]);
        for (Index i = 0; i < d.rows; ++i) {
            const Wide<T> e = widen<T>(load(d.at(i, j), n)) - centre;
            store(d.at(i, j), gamma * narrow<T>(e * m - widen<T>(load(normal.at(i, j), n)) * x), n);
        }
    });
}

// Moves u (rows) of one input of affine stage s through it and the batch normalisation after it: to (rows, padded
// units). The moves of unit k are u·w_k, so that all sums of `differ_batch_norm` come from one product, of the
// normalised values and e, the moves less their mean.
template <class T>
Moved differ_normed_affine(const StagePass<T>& base, Index s, const Moved& moved, const T* moves, T* to) {
    const Stage<T>&affine = base.net().stages[s], &norm = base.net().stages[s + 1];
    const Index units = norm.outputs, rows = base.rows(), stride = padded<T>(units);
    const T *const normal = base.kept(s + 1), *const weight = affine.weight + moved.first * units;
    const Array<T> memory(rows + 2 * stride);
    T *const e = memory.data(), *const of_move = e + rows, *const of_normal = of_move + stride;
    double total = 0, square = 0;
    for (Index i = 0; i < rows; ++i) {
        total += static_cast<double>(moves[i * moved.stride]);
    }
    const double count = static_cast<double>(rows), mean = total / count;
    for (Index i = 0; i < rows; ++i) {
        const double rest = static_cast<double>(moves[i * moved.stride]) - mean;
        e[i] = static_cast<T>(rest);
        square += rest * rest;
    }
    for_each_vector_group<T>(units, [&]<int V>(Index j) {
        Vec<T> sums[V] = {};
        for (Index i = 0; i < rows; ++i) {
            const Vec<T> x = splat(e[i]);
            for (int v = 0; v < V; ++v) {
                sums[v] += x * load(normal + i * stride + j + v * lanes<T>);
            }
        }
        for (int v = 0; v < V; ++v) {
            store(of_normal + j + v * lanes<T>, sums[v]);
        }
    });
    for (Index k = 0; k < units; ++k) {
        const double w = static_cast<double>(weight[k]), gamma = static_cast<double>(norm.weight[k]);
        const double deviation = 1 / base.inverses(s + 1)[k];
        const double grows = w * (2 * deviation * static_cast<double>(of_normal[k]) + w * square) / count;
        const double after = __builtin_sqrt(deviation * deviation + grows);
        of_move[k] = static_cast<T>(gamma * w / after);
        of_normal[k] = static_cast<T>(-gamma * grows / (after * (after + deviation)));
    }
    for (Index i = 0; i < rows; ++i) {
        const Vec<T> x = splat(e[i]);
        for (Index j = 0; j < stride; j += lanes<T>) { // the padding is nobody's
            store(to + i * stride + j, x * load(of_move + j) + load(normal + i * stride + j) * load(of_normal + j));
        }
    }
    return {0, units, stride};
}

// Moves d (channels of the windows, height, width) of an image -> those of its windows' greatest elements. Returns
// whether another element wins in a window.
template <class T> bool differ_max_pool(const Windows& w, const T* image, const T* d, T* to) {
    Vec<Bits<T>> changed{};
    const bool done = for_each_pair_windows<T>(w, [&](Index first, Index at) {
        const PairWindows<T> before(image + first, w.width), moves(d + first, w.width);
        const Vec<T>* const e = before.element;
        const Vec<T> greatest = max<T>(max<T>(e[0], e[1]), max<T>(e[2], e[3]));
        Vec<T> best = e[0] - greatest + moves.element[0];
        Vec<T> winner = moves.element[3];
        for (int k = 1; k < 4; ++k) {
            const Vec<T> change = e[k] - greatest + moves.element[k];
            best = (change > best) | (change != change) ? change : best;
            winner = e[3 - k] == greatest ? moves.element[3 - k] : winner; // the first one, in the end
        }
        changed |= best != winner;
        store(to + at, best);
    });
    if (done) {
        return any<T>(changed);
    }
    bool other = false;
    for_each_window(w, [&](Index at, Index channel, Index top, Index bottom, Index left, Index right) {
        Index winner = channel + top * w.width + left;
        for (Index y = top; y < bottom; ++y) {
            for (Index x = left; x < right; ++x) {
                const Index i = channel + y * w.width + x;
                winner = image[i] > image[winner] ? i : winner;
            }
        }
        const T before = d[winner];
        T best = before;
        for (Index y = top; y < bottom; ++y) {
            for (Index x = left; x < right; ++x) {
                const Index i = channel + y * w.width + x;
                const T change = image[i] - image[winner] + d[i];
                best = change > best || change != change ? change : best;
            }
        }
        other |= best != before;
        to[at] = best;
    });
    return other;
}

// The same windows on `channels` channels alone.
inline Windows with_channels(Windows w, Index channels) {
    w.channels = channels;
    return w;
}

// Moves of the image units of a pooling -> those of its windows. Returns which units they are of; `kinked` is set where
// another element wins.
template <class T>
Moved differ_pooling(const StagePass<T>& base, Index s, const Moved& moved, const T* moves, T* to, bool& kinked) {
    const Stage<T>& stage = base.net().stages[s];
    const Index image = stage.windows.height * stage.windows.width, channels = moved.units / image;
    const Windows w = with_channels(stage.windows, channels);
    const Index to_stride = padded<T>(channels * w.positions());
    for (Index i = 0; i < base.rows(); ++i) {
        if (stage.kind == StageKind::max_pooling) {
            kinked |= differ_max_pool(w, base.input(s, i) + moved.first, moves + i * moved.stride, to + i * to_stride);
        } else {
            average_pool(w, moves + i * moved.stride, to + i * to_stride);
        }
    }
    return {moved.first / image * w.positions(), channels * w.positions(), to_stride};
}

} // namespace fastnet::FASTNET_TARGET
