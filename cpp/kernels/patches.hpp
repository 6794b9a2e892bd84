// The patches of an image that a filter sees, as the columns of a matrix, and the way back.
#pragma once

#include "core/stages.hpp"
#include "kernels/matmul.hpp"

namespace fastnet::FASTNET_TARGET {

// The elements of a patch: channels * window_height * window_width.
FASTNET_INLINE Index patch_size(const Windows& w) {
    return w.channels * w.window_height * w.window_width;
}

// The positions [first, last) along one side whose element `offset` of the window lies inside the image of `size`.
struct Inside {
    Index first, last;
};
FASTNET_INLINE Inside inside(Index offset, Index pad, Index stride, Index size, Index positions) {
    const Index shift = pad - offset; // position p sees element p * stride - shift
    const Index first = shift > 0 ? (shift + stride - 1) / stride : 0;
    const Index beyond = size + shift; // p * stride < beyond
    const Index last = beyond > 0 ? min_index((beyond + stride - 1) / stride, positions) : 0;
    return {min_index(first, last), last};
}

// f(row of the patch matrix, channel, y offset, x offset, inside in y, inside in x) for each element of a patch.
template <class F> FASTNET_INLINE void for_each_patch_element(const Windows& w, F&& f) {
    Index k = 0;
    for (Index c = 0; c < w.channels; ++c) {
        for (Index i = 0; i < w.window_height; ++i) {
            const Inside rows = inside(i, w.pad_y, w.stride_y, w.height, w.out_height);
            for (Index j = 0; j < w.window_width; ++j, ++k) {
                f(k, c, i, j, rows, inside(j, w.pad_x, w.stride_x, w.width, w.out_width));
            }
        }
    }
}

// Element (channel c, y offset i, x offset j) of every patch: to (positions), 0 in the border.
template <class T>
void gather_element(const Windows& w, const T* image, Index c, Index i, Index j, Inside rows, Inside columns, T* to) {
    const Index n = columns.last - columns.first;
    for (Index y = 0; y < w.out_height; ++y, to += w.out_width) {
        if (y < rows.first || y >= rows.last || n == 0) {
            std::memset(to, 0, static_cast<std::size_t>(w.out_width) * sizeof(T));
            continue;
        }
        const T* from = image + (c * w.height + y * w.stride_y + i - w.pad_y) * w.width + j - w.pad_x;
        for (Index x = 0; x < columns.first; ++x) {
            to[x] = 0;
        }
        if (w.stride_x == 1) {
            std::memcpy(to + columns.first, from + columns.first, static_cast<std::size_t>(n) * sizeof(T));
        } else {
            for (Index x = columns.first; x < columns.last; ++x) {
                to[x] = from[x * w.stride_x];
            }
        }
        for (Index x = columns.last; x < w.out_width; ++x) {
            to[x] = 0;
        }
    }
}

// image (channels, height, width) -> patches (patch_size, positions): a column for each position, 0 in the border.
template <class T> void gather_patches(const Windows& w, const T* image, T* patches) {
    for_each_patch_element(w, [&](Index k, Index c, Index i, Index j, Inside rows, Inside columns) {
        gather_element(w, image, c, i, j, rows, columns, patches + k * w.positions());
    });
}

// Row k of the patches alone.
template <class T> void patch_row(const Windows& w, Index k, const T* image, T* to) {
    const Index x = k % w.window_width, y = k / w.window_width % w.window_height;
    gather_element(w, image, k / (w.window_width * w.window_height), y, x,
                   inside(y, w.pad_y, w.stride_y, w.height, w.out_height),
                   inside(x, w.pad_x, w.stride_x, w.width, w.out_width), to);
}

// Adds patches (patch_size, positions) to the elements of the image that they came from.
template <class T> void scatter_patches(const Windows& w, const T* patches, T* image) {
    for_each_patch_element(w, [&](Index k, Index c, Index i, Index j, Inside rows, Inside columns) {
        for (Index y = rows.first; y < rows.last; ++y) {
            const T* from = patches + k * w.positions() + y * w.out_width;
            T* to = image + (c * w.height + y * w.stride_y + i - w.pad_y) * w.width + j - w.pad_x;
            if (w.stride_x == 1) {
                for_each_vector<T>(columns.last - columns.first, [&](Index x, Index n) {
                    T* at = to + columns.first + x;
                    store(at, load(at, n) + load(from + columns.first + x, n), n);
                });
            } else {
                for (Index x = columns.first; x < columns.last; ++x) {
                    to[x * w.stride_x] += from[x];
                }
            }
        }
    });
}

// One image through the filters: (channels, height, width) -> (filters, positions). `patches` is a workspace of
// patch_size * positions elements, which holds the patches afterwards.
template <class T> void convolve(const Stage<T>& stage, const T* image, T* patches, T* to) {
    const Windows& w = stage.windows;
    const Index positions = w.positions(), filters = stage.outputs / positions, size = patch_size(w);
    gather_patches(w, image, patches);
    gemm(rows_of(stage.weight, filters, size, size), rows_of(patches, size, positions, positions), to, positions,
         false);
    if (stage.bias) {
        for (Index f = 0; f < filters; ++f) {
            const Vec<T> b = splat(stage.bias[f]);
            for_each_vector<T>(positions, [&](Index j, Index n) {
                T* at = to + f * positions + j;
                store(at, load(at, n) + b, n);
            });
        }
    }
}

// The way back of one image from d (filters, positions): adds to the filters' gradient (filters, patch_size) and to the
// biases' (filters), and, where `d_image` is not null, fills the derivative with respect to the image.
template <class T>
void convolve_backward(const Stage<T>& stage, const T* image, const T* d, T* patches, T* weight, T* bias, T* d_image) {
    const Windows& w = stage.windows;
    const Index positions = w.positions(), filters = stage.outputs / positions, size = patch_size(w);
    gather_patches(w, image, patches);
    gemm(rows_of(d, filters, positions, positions), transposed(rows_of(patches, size, positions, positions)), weight,
         size, true);
    if (bias) {
        for (Index f = 0; f < filters; ++f) {
            Vec<T> total{};
            for_each_vector<T>(positions, [&](Index j, Index n) { total += load(d + f * positions + j, n); });
            bias[f] += sum<T>(total);
        }
    }
    if (d_image) {
        gemm(transposed(rows_of(stage.weight, filters, size, size)), rows_of(d, filters, positions, positions), patches,
             positions, false);
        std::memset(d_image, 0, static_cast<std::size_t>(stage.inputs) * sizeof(T));
        scatter_patches(w, patches, d_image);
    }
}

} // namespace fastnet::FASTNET_TARGET
