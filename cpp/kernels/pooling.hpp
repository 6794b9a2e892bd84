// Pooling of one image: the greatest element or the mean of each window; value and derivative.
//
// The border that `pad` adds never wins a maximum, and counts as zeros in a mean. NaN wins a maximum. Of equal elements
// the first one wins, in the order of rows.
#pragma once

#include <utility>

#include "core/stages.hpp"
#include "kernels/simd.hpp"

namespace fastnet::FASTNET_TARGET {

// f(position, offset of the channel's first element, first y, last y, first x, last x) for each window of an image, the
// border cut off.
template <class F> FASTNET_INLINE void for_each_window(const Windows& w, F&& f) {
    Index at = 0;
    for (Index c = 0; c < w.channels; ++c) {
        for (Index y = 0; y < w.out_height; ++y) {
            const Index top = y * w.stride_y - w.pad_y, bottom = top + w.window_height;
            for (Index x = 0; x < w.out_width; ++x, ++at) {
                const Index left = x * w.stride_x - w.pad_x, right = left + w.window_width;
                f(at, c * w.height * w.width, top > 0 ? top : 0, min_index(bottom, w.height), left > 0 ? left : 0,
                  min_index(right, w.width));
            }
        }
    }
}

// Whether windows are 2 x 2 and cover the image side by side, as in most networks: they go a vector at a time.
FASTNET_INLINE bool are_pairs(const Windows& w) {
    return w.window_height == 2 && w.window_width == 2 && w.stride_y == 2 && w.stride_x == 2 && w.pad_y == 0 &&
           w.pad_x == 0;
}

// The elements with even and those with odd numbers of two neighbouring vectors.
template <class T, Index... I>
FASTNET_INLINE void split_pairs(Vec<T> a, Vec<T> b, Vec<T>& even, Vec<T>& odd, std::integer_sequence<Index, I...>) {
    even = __builtin_shufflevector(a, b, (2 * I)...);
    odd = __builtin_shufflevector(a, b, (2 * I + 1)...);
}
template <class T> using LaneNumbers = std::make_integer_sequence<Index, lanes<T>>;

// The four elements of a vector of such windows, in the order of rows; `p` is the first one's place.
template <class T> struct PairWindows {
    Vec<T> element[4];

    FASTNET_INLINE PairWindows(const T* p, Index width) {
        split_pairs<T>(load(p), load(p + lanes<T>), element[0], element[1], LaneNumbers<T>{});
        split_pairs<T>(load(p + width), load(p + width + lanes<T>), element[2], element[3], LaneNumbers<T>{});
    }
};

// max_pool for a vector of 2 x 2 windows at (y, x) of the output; `at` is the first one's place there.
template <class T>
FASTNET_INLINE void max_pool_pairs(const Windows& w, const T* image, Index first, Index at, T* to,
                                   std::int32_t* winners) {
    const PairWindows<T> windows(image + first, w.width);
    Vec<T> best = windows.element[0];
    Vec<Bits<T>> winner{};
    for (int k = 1; k < 4; ++k) {
        const Vec<T> e = windows.element[k];
        const auto wins = (e > best) | ((e != e) & (best == best));
        best = wins ? e : best;
        winner = wins ? Vec<Bits<T>>{} + static_cast<Bits<T>>(k) : winner;
    }
    store(to + at, best);
    for (Index i = 0; i < lanes<T>; ++i) {
        const Index k = static_cast<Index>(winner[i]);
        winners[at + i] = static_cast<std::int32_t>(first + 2 * i + k / 2 * w.width + k % 2);
    }
}

// f(place of the first element, place in the output) for each vector of 2 x 2 windows; a row's last one may overlap the
// one before it. Returns whether the windows are such.
template <class T, class F> FASTNET_INLINE bool for_each_pair_windows(const Windows& w, F&& f) {
    if (!are_pairs(w) || w.out_width < lanes<T>) {
        return false;
    }
    Index at = 0;
    for (Index c = 0; c < w.channels; ++c) {
        for (Index y = 0; y < w.out_height; ++y, at += w.out_width) {
            const Index row = (c * w.height + 2 * y) * w.width;
            for (Index x = 0; x < w.out_width; x += lanes<T>) {
                const Index from = min_index(x, w.out_width - lanes<T>);
                f(row + 2 * from, at + from);
            }
        }
    }
    return true;
}

// image -> to (channels, positions), and the number of each window's greatest element in the image.
template <class T> void max_pool(const Windows& w, const T* image, T* to, std::int32_t* winners) {
    if (for_each_pair_windows<T>(w, [&](Index first, Index at) { max_pool_pairs(w, image, first, at, to, winners); })) {
        return;
    }
    for_each_window(w, [&](Index at, Index channel, Index top, Index bottom, Index left, Index right) {
        Index winner = channel + top * w.width + left;
        T best = image[winner];
        for (Index y = top; y < bottom; ++y) {
            for (Index x = left; x < right; ++x) {
                const Index i = channel + y * w.width + x;
                const bool wins = image[i] > best || (image[i] != image[i] && best == best);
                best = wins ? image[i] : best;
                winner = wins ? i : winner;
            }
        }
        to[at] = best;
        winners[at] = static_cast<std::int32_t>(winner);
    });
}

// d (channels, positions) -> d_image.
template <class T> void max_pool_backward(const Stage<T>& stage, const T* d, const std::int32_t* winners, T* d_image) {
    std::memset(d_image, 0, static_cast<std::size_t>(stage.inputs) * sizeof(T));
    for (Index i = 0; i < stage.outputs; ++i) {
        d_image[winners[i]] += d[i];
    }
}

// image -> to (channels, positions)
template <class T> void average_pool(const Windows& w, const T* image, T* to) {
    const T size = static_cast<T>(w.window_height * w.window_width);
    for_each_window(w, [&](Index at, Index channel, Index top, Index bottom, Index left, Index right) {
        T total = 0;
        for (Index y = top; y < bottom; ++y) {
            for (Index x = left; x < right; ++x) {
                total += image[channel + y * w.width + x];
            }
        }
        to[at] = total / size;
    });
}

// d (channels, positions) -> d_image.
template <class T> void average_pool_backward(const Stage<T>& stage, const T* d, T* d_image) {
    const Windows& w = stage.windows;
    const T size = static_cast<T>(w.window_height * w.window_width);
    std::memset(d_image, 0, static_cast<std::size_t>(stage.inputs) * sizeof(T));
    for_each_window(w, [&](Index at, Index channel, Index top, Index bottom, Index left, Index right) {
        const T share = d[at] / size;
        for (Index y = top; y < bottom; ++y) {
            for (Index x = left; x < right; ++x) {
                d_image[channel + y * w.width + x] += share;
            }
        }
    });
}

} // namespace fastnet::FASTNET_TARGET
