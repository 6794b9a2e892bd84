// Differences through the stages of one row: from moves of a stage's units to the moves of the next stage's, exactly.
//
// Moves lie as (units, lanes): the lanes of a vector are as many perturbations, which go through together. They are
// moves of some of a stage's units; the others do not move.
#pragma once

#include "kernels/stage_pass.hpp"

namespace fastnet::FASTNET_TARGET {

// Neighbouring units of a row.
struct UnitRange {
    Index first, count;
};

// Any units of a row, in ascending order.
struct Units {
    const std::int32_t* numbers;
    Index count;
};

// The blocks of `size` units that hold a range.
FASTNET_INLINE UnitRange whole_blocks(UnitRange range, Index size) {
    const Index first = range.first / size * size;
    return {first, round_up(range.first + range.count, size) - first};
}

// The units that a stage takes together with those of a range: whole channels, or whole columns.
template <class T> UnitRange taken_with(const Stage<T>& stage, UnitRange range) {
    if (has_windows(stage)) {
        return whole_blocks(range, stage.windows.height * stage.windows.width);
    }
    return couples_rows(stage) ? whole_blocks(range, stage.positions) : range;
}

// The units that move behind a stage when those of a range, taken together, move before it.
template <class T> UnitRange moved_by(const Stage<T>& stage, UnitRange range) {
    if (stage.kind == StageKind::affine || stage.kind == StageKind::convolution) {
        return {0, stage.outputs};
    }
    if (pools(stage)) {
        const Index image = stage.windows.height * stage.windows.width, positions = stage.windows.positions();
        return {range.first / image * positions, range.count / image * positions};
    }
    return range;
}

// The same windows on `channels` channels alone.
inline Windows with_channels(Windows w, Index channels) {
    w.channels = channels;
    return w;
}

// The sums of f(j, k) over the j, for each k of n units: at most 12 of them at a time, in registers.
template <class T, class F> FASTNET_INLINE void for_each_sums(Index n, T* to, Index stride, F&& add) {
    for_each_group<12>(n, [&]<int K>(Index first) {
        Vec<T> sums[K] = {};
        add(first, sums);
        for (Index k = 0; k < K; ++k) {
            store(to + (first + k) * stride, sums[k]);
        }
    });
}

template <class T, int K> FASTNET_INLINE void add_products(Vec<T> (&sums)[K], Vec<T> d, const T* weight) {
    for (int k = 0; k < K; ++k) {
        sums[k] += d * splat(weight[k]);
    }
}

// The units whose moves d are not 0 in all lanes, as they are behind masks and ReLUs: their moves come first in d, and
// their numbers in `numbers`.
template <class T> Units moving_units(Units units, T* d, std::int32_t* numbers) {
    Index count = 0;
    for (Index j = 0; j < units.count; ++j) {
        const Vec<T> move = load(d + j * lanes<T>);
        store(d + count * lanes<T>, move);
        numbers[count] = units.numbers[j];
        count += nonzero_mask<T>(move) != 0;
    }
    return {numbers, count};
}

// Moves d of some inputs of an affine stage -> to (outputs, lanes).
template <class T> void differ_affine(const Stage<T>& stage, Units units, const T* d, T* to) {
    for_each_sums<T>(stage.outputs, to, lanes<T>, [&](Index first, auto& sums) {
        const T* const weight = stage.weight + first;
        for (Index k = 0; k < units.count; ++k) {
            add_products<T>(sums, load(d + k * lanes<T>), weight + units.numbers[k] * stage.outputs);
        }
    });
}

// Moves d of channels of an image, those of `w`, through the filters: to (filters, positions, lanes). `weight` holds
// those channels' part of the filters, (elements of a patch, filters).
template <class T> void differ_convolution(const Windows& w, Index filters, const T* weight, const T* d, T* to) {
    Index position = 0;
    for (Index y = 0; y < w.out_height; ++y) {
        const Index top = y * w.stride_y - w.pad_y;
        for (Index x = 0; x < w.out_width; ++x, ++position) {
            const Index left = x * w.stride_x - w.pad_x;
            const Index i_first = top < 0 ? -top : 0, i_last = min_index(w.window_height, w.height - top);
            const Index j_first = left < 0 ? -left : 0, j_last = min_index(w.window_width, w.width - left);
            for_each_sums<T>(filters, to + position * lanes<T>, w.positions() * lanes<T>, [&](Index first, auto& sums) {
                for (Index c = 0; c < w.channels; ++c) {
                    for (Index i = i_first; i < i_last; ++i) {
                        const T* const from = d + ((c * w.height + top + i) * w.width + left) * lanes<T>;
                        const T* const row = weight + (c * w.window_height + i) * w.window_width * filters + first;
                        for (Index j = j_first; j < j_last; ++j) {
                            add_products<T>(sums, load(from + j * lanes<T>), row + j * filters);
                        }
                    }
                }
            });
        }
    }
}

// f(map) with the difference of an activation, times the mask of the dropout behind it: map(unit, move). `kinks` tells
// the lanes in which a unit crossed a kink.
template <class T, class F>
void with_activation_difference(const StagePass<T>& base, Index s, Index row, const T* mask, Vec<Bits<T>>& kinks,
                                F&& f) {
    const Stage<T>& stage = base.net().stages[s];
    const PointRow<T> points = base.points(s, row);
    with_activation(stage.activation, stage.constant, [&]<class Phi>(Phi phi) {
        Vec<Bits<T>> crossed{};
        f([&, points, phi, mask](Index unit, Vec<T> move) {
            const BasePoint<T> point = points[unit];
            if constexpr (Phi::kinked) {
                crossed |= changes_side<T>(point.a, move);
            }
            return phi.template difference<false>(point, phi.template move<false>(move)) * splat(mask[unit]);
        });
        kinks |= crossed;
    });
}

// The same of a max pooling's image, (channels, height, width) -> to (channels, positions). Another element that wins
// is a kink.
template <class T>
void differ_max_pooling(const StagePass<T>& base, Index s, Index row, UnitRange range, const T* d, T* to,
                        Vec<Bits<T>>& kinks) {
    const Windows& all = base.net().stages[s].windows;
    const Index image = all.height * all.width;
    const Windows w = with_channels(all, range.count / image);
    const T* const units = base.input(s, row) + range.first;
    Vec<Bits<T>> changed{};
    const std::int32_t* const winners = base.winners(s, row) + range.first / image * all.positions();
    for_each_window(w, [&](Index at, Index channel, Index top, Index bottom, Index left, Index right) {
        const Index winner = winners[at] - range.first;
        const Vec<T> before = load(d + winner * lanes<T>);
        Vec<T> best = before;
        for (Index y = top; y < bottom; ++y) {
            for (Index x = left; x < right; ++x) {
                const Index i = channel + y * w.width + x;
                const Vec<T> change = splat(units[i] - units[winner]) + load(d + i * lanes<T>);
                best = ((change > best) | (change != change)) ? change : best;
            }
        }
        changed |= best != before;
        store(to + at * lanes<T>, best);
    });
    kinks |= changed;
}

template <class T> void differ_average_pooling(const Windows& all, UnitRange range, const T* d, T* to) {
    const Windows w = with_channels(all, range.count / (all.height * all.width));
    const T size = static_cast<T>(w.window_height * w.window_width);
    for_each_window(w, [&](Index at, Index channel, Index top, Index bottom, Index left, Index right) {
        Vec<T> total{};
        for (Index y = top; y < bottom; ++y) {
            for (Index x = left; x < right; ++x) {
                total += load(d + (channel + y * w.width + x) * lanes<T>);
            }
        }
        store(to + at * lanes<T>, total / size);
    });
}

// Moves d of dropout's units, in place: the mask is held fixed.
template <class T> void differ_dropout(const StagePass<T>& base, Index s, Index row, Units units, T* d) {
    const T* const mask = base.kept(s) + row * base.stride(s);
    for (Index j = 0; j < units.count; ++j) {
        store(d + j * lanes<T>, load(d + j * lanes<T>) * splat(mask[units.numbers[j]]));
    }
}

} // namespace fastnet::FASTNET_TARGET
