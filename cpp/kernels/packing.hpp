// Matrices packed into panels, from either order of their elements.
#pragma once

#include <utility>

#include "kernels/tiles.hpp"

namespace fastnet::FASTNET_TARGET {

// to (rows, n) = from (rows, n).
template <class T>
[[gnu::noinline]] void copy(Index rows, Index n, const T* from, Index from_stride, T* to, Index to_stride) {
    for (Index i = 0; i < rows; ++i, from += from_stride, to += to_stride) {
        Index j = 0;
        for (; j + lanes<T> <= n; j += lanes<T>) {
            store(to + j, load(from + j));
        }
        // A memcpy whose size is known here is one instruction.
        FASTNET_UNROLL
        for (Index size = lanes<T> / 2; size > 0; size /= 2) {
            if (n & size) {
                std::memcpy(to + j, from + j, static_cast<std::size_t>(size) * sizeof(T));
                j += size;
            }
        }
    }
}

// Swaps the off-diagonal S x S blocks of each 2S x 2S block of rows a and b.
template <Index S, class V, Index... I>
FASTNET_INLINE void swap_blocks(V& a, V& b, std::integer_sequence<Index, I...>) {
    constexpr Index n = sizeof...(I);
    const V first = __builtin_shufflevector(a, b, (I & S ? n + I - S : I)...);
    b = __builtin_shufflevector(a, b, (I & S ? n + I : I + S)...);
    a = first;
}

// Transposes the matrix of n rows of n lanes.
template <Index n, Index S = n / 2, class V> FASTNET_INLINE void transpose(V* rows) {
    FASTNET_UNROLL
    for (Index i = 0; i < n; ++i) {
        if (!(i & S)) {
            swap_blocks<S>(rows[i], rows[i + S], std::make_integer_sequence<Index, n>{});
        }
    }
    if constexpr (S > 1) {
        transpose<n, S / 2>(rows);
    }
}

// The first n lanes from p, zeros behind them; n <= end_lanes.
template <class T> FASTNET_INLINE EndVec<T> load_end(const T* p, Index n) {
    const Vec<T> v = load(p, n);
    EndVec<T> first;
    std::memcpy(&first, &v, sizeof first);
    return first;
}

// to (n, end_lanes) = the transpose of `rows` rows of n elements, at most end_lanes of each; zeros behind column
// `rows`. row(i) is where row i is.
template <class T, class Row>
FASTNET_INLINE void transpose_block(Index rows, Index n, Row&& row, T* to, Index to_stride) {
    constexpr Index L = end_lanes<T>;
    EndVec<T> block[L];
    FASTNET_UNROLL
    for (Index i = 0; i < L; ++i) { // without a loop, or an array set to zeros, they are registers
        block[i] = EndVec<T>{};
        if (i < rows && n == L) {
            std::memcpy(&block[i], row(i), sizeof block[i]);
        } else if (i < rows) {
            block[i] = load_end<T>(row(i), n);
        }
    }
    transpose<L>(block);
    FASTNET_UNROLL
    for (Index i = 0; i < L; ++i) {
        if (i < n) {
            std::memcpy(to + i * to_stride, &block[i], sizeof block[i]);
        }
    }
}

// to (k, width) row-major = b (k, n), zeros behind column n; width is a multiple of end_lanes.
template <class T> void pack_panel(Matrix<T> b, T* to, Index width) {
    constexpr Index L = end_lanes<T>;
    if (b.columns < width) { // by fewer than L columns
        for (Index k = 1; k <= b.rows; ++k) {
            std::memset(to + k * width - L, 0, L * sizeof(T));
        }
    }
    if (b.column_stride == 1) {
        copy(b.rows, b.columns, b.data, b.row_stride, to, width);
        return;
    }
    for (Index j = 0; j < b.columns; j += L) {
        for (Index k = 0; k < b.rows; k += L) {
            transpose_block<T>(
                min_index(L, b.columns - j), min_index(L, b.rows - k),
                [&](Index i) { return b.data + (j + i) * b.column_stride + k; }, to + k * width + j, width);
        }
    }
}

// b (k, n) in panels, one after the other, as the rows [first, first + k) of a block of `rows` rows at `to`.
template <class T> void pack_rows(Matrix<T> b, Index first, Index rows, T* to) {
    for_each_panel<T>(b.columns, [&](Panel<T> panel) {
        const Index j = panel.column, width = panel.width();
        pack_panel(submatrix(b, 0, b.rows, j, min_index(width, b.columns - j)), to + j * rows + first * width, width);
    });
}

// to = b (k, n) in panels.
template <class T> void pack_block(Matrix<T> b, T* to) {
    pack_rows(b, 0, b.rows, to);
}

// A right operand (k, n), packed once for many products.
template <class T> class PackedMatrix {
  public:
    // To be filled by `pack_rows`.
    PackedMatrix(Index most_rows, Index n)
        : rows(most_rows), columns(n), data_(most_rows * round_up(n, end_lanes<T>)) {}
    explicit PackedMatrix(Matrix<T> b) : PackedMatrix(b.rows, b.columns) {
        for_each_block<T>(rows, columns, [&](Index j, Index count, Index k, Index inner) {
            pack_block(submatrix(b, k, inner, j, count), block(j, count, k));
        });
    }
    // Packs b as the rows [first, first + b.rows), which lie in one block of the inner dimension.
    void pack_rows(Matrix<T> b, Index first) const {
        const Index k = first / block_inner * block_inner, inner = min_index(rows - k, block_inner);
        for (Index j = 0; j < columns; j += block_columns<T>) {
            const Index count = min_index(columns - j, block_columns<T>);
            FASTNET_TARGET::pack_rows(submatrix(b, 0, b.rows, j, count), first - k, inner, block(j, count, k));
        }
    }
    // The block that starts at row k and column j and has `count` columns.
    T* block(Index j, Index count, Index k) const {
        return data_.data() + j * rows + k * round_up(count, end_lanes<T>);
    }
    // The element (k, j) of b.
    T& at(Index k, Index j) const {
        const Index block_j = j / block_columns<T> * block_columns<T>, block_k = k / block_inner * block_inner;
        const Index count = min_index(columns - block_j, block_columns<T>);
        const Index inner = min_index(rows - block_k, block_inner);
        const Panel<T> panel = Panels<T>(count).containing(j - block_j);
        T* const row = block(block_j, count, block_k) + panel.column * inner + (k - block_k) * panel.width();
        return row[j - block_j - panel.column];
    }

    Index rows; // at most those it was made for
    const Index columns;

  private:
    const Array<T> data_;
};

} // namespace fastnet::FASTNET_TARGET
