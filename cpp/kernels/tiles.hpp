// How a product is cut up: tiles, panels and blocks, and the views of matrices that they are.
//
// A product c (m, n) = a (m, k) . b (k, n) is computed tile by tile. A tile's sums stay in registers while the inner
// dimension runs over one block. b is packed into panels as wide as a tile.
#pragma once

#include "kernels/workspace.hpp"

namespace fastnet::FASTNET_TARGET {

// A tile's accumulators, one row of b and one element of a fill the vector registers: 24 + 3 + 1 of 32, 12 + 3 + 1 of
// 16, and 8 + 2 + 1 + a product of 16 where there is no fused multiply-add.
#if FASTNET_VECTOR_BYTES == 64
inline constexpr int tile_rows = 8, tile_vectors = 3;
#elif FASTNET_VECTOR_BYTES == 32
inline constexpr int tile_rows = 4, tile_vectors = 3;
#else
inline constexpr int tile_rows = 4, tile_vectors = 2;
#endif

// A tile's rows of a (tile_rows x block_inner) stay in the first-level cache while a block of b passes by. The block is
// 2 MiB, and comes from the last-level cache where it does not fit a nearer one. Smaller blocks, 128 x 512 KiB to
// 512 x 1 MiB, are up to 3 % slower at 1500 x 1500 x 1500, because they read a and c more often.
inline constexpr Index block_inner = 256;
template <class T> inline constexpr Index tile_columns = tile_vectors * lanes<T>;
template <class T>
inline constexpr Index block_columns =
    (Index{2} << 20) / (block_inner * tile_columns<T> * static_cast<Index>(sizeof(T))) * tile_columns<T>;

// The last panel is padded to a multiple of this. The 512-bit code ends the panel with half a vector where that
// suffices, which takes half the time on processors whose 512-bit operations are two 256-bit ones: 50 columns of
// float64 are 6.5 vectors.
template <class T> inline constexpr Index end_lanes = FASTNET_VECTOR_BYTES == 64 ? lanes<T> / 2 : lanes<T>;
template <class T> struct EndVectorOf {
    typedef T type __attribute__((vector_size(end_lanes<T> * static_cast<Index>(sizeof(T)))));
};
template <class T> using EndVec = typename EndVectorOf<T>::type;

// For as few rows of a, reading b where it is costs less than packing it.
inline constexpr Index few_rows = 4;

// A row-major matrix with its stride, as a view.
template <class T> FASTNET_INLINE Matrix<T> rows_of(const T* data, Index rows, Index columns, Index stride) {
    return {data, rows, columns, stride, 1};
}

template <class T> FASTNET_INLINE Matrix<T> transposed(Matrix<T> m) {
    return {m.data, m.columns, m.rows, m.column_stride, m.row_stride};
}

template <class T> FASTNET_INLINE Matrix<T> submatrix(Matrix<T> m, Index row, Index rows, Index column, Index columns) {
    return {m.data + row * m.row_stride + column * m.column_stride, rows, columns, m.row_stride, m.column_stride};
}

// One panel of a block: `vectors` whole vectors from `column` on and, if `end`, one of end_lanes.
template <class T> struct Panel {
    Index column, vectors;
    bool end;
    FASTNET_INLINE Index width() const { return vectors * lanes<T> + end * end_lanes<T>; }
};

// The panels of n columns, as even as they can be: 7 vectors are 3 + 2 + 2.
template <class T> struct Panels {
    FASTNET_INLINE explicit Panels(Index n) {
        const Index rest = n % lanes<T>;
        end = end_lanes<T> < lanes<T> && 0 < rest && rest <= end_lanes<T>;
        vectors = n / lanes<T> + (rest > 0 && !end);
        count = (vectors + end + tile_vectors - 1) / tile_vectors;
    }
    FASTNET_INLINE Panel<T> operator[](Index p) const {
        const Index shortest = vectors / count, longer = vectors % count;
        return {(p * shortest + min_index(p, longer)) * lanes<T>, shortest + (p < longer), end && p + 1 == count};
    }
    // The panel that contains column j.
    Panel<T> containing(Index j) const {
        Index p = 0;
        while (p + 1 < count && (*this)[p + 1].column <= j) {
            ++p;
        }
        return (*this)[p];
    }

    Index vectors, count;
    bool end;
};

// Calls f(panel) for each panel of n columns.
template <class T, class F> FASTNET_INLINE void for_each_panel(Index n, F&& f) {
    const Panels<T> panels(n);
    for (Index p = 0; p < panels.count; ++p) {
        f(panels[p]);
    }
}

// Calls f(column, columns, inner, inners) for each block of b (k, n): at least one per column, even if k = 0.
template <class T, class F> FASTNET_INLINE void for_each_block(Index k, Index n, F&& f) {
    for (Index j = 0; j < n; j += block_columns<T>) {
        Index i = 0;
        do {
            checkpoint(); // a block takes a few milliseconds
            f(j, min_index(n - j, block_columns<T>), i, min_index(k - i, block_inner));
            i += block_inner;
        } while (i < k);
    }
}

} // namespace fastnet::FASTNET_TARGET
