// The product of two matrices.
//
// c = a . b is computed in tiles, whose sums stay in registers while the inner dimension runs over one block
// of at most block_inner; the sums of the blocks are then added up in c. An element is thus the same chain of
// multiply-adds wherever it stands and whoever computes it: its bits depend on nothing but its row of a and
// its column of b.
//
// b is packed into panels as wide as a tile. a is read where it lies, broadcast element by element: packing
// it too would only pay where the rows of a transposed float32 view are a large power of two apart (2048: a
// fifth).
#pragma once

#include <utility>

#include "kernels/workspace.hpp"

// Unrolls a loop early, so that an array which it indexes can become registers.
#ifdef __clang__
#    define FASTNET_UNROLL _Pragma("unroll")
#else
#    define FASTNET_UNROLL _Pragma("GCC unroll 8")
#endif

namespace fastnet::FASTNET_TARGET {

// Accumulators, one row of b and one element of a fill the vector registers: 24 + 3 + 1 of 32, 12 + 3 + 1 of
// 16, and 8 + 2 + 1 + a product of 16 where there is no fused multiply-add.
#if FASTNET_VECTOR_BYTES == 64
inline constexpr int tile_rows = 8, tile_vectors = 3;
#elif FASTNET_VECTOR_BYTES == 32
inline constexpr int tile_rows = 4, tile_vectors = 3;
#else
inline constexpr int tile_rows = 4, tile_vectors = 2;
#endif

// A tile's rows of a (tile_rows x block_inner) stay in the first-level cache while a block of b passes by: 2
// MiB of it, from the last-level cache where it does not fit a nearer one. Smaller blocks, 128 x 512 KiB to
// 512 x 1 MiB, are up to 3 % slower at 1500 x 1500 x 1500, because they read a and c more often.
inline constexpr Index block_inner = 256;
template <class T> inline constexpr Index tile_columns = tile_vectors * lanes<T>;
template <class T>
inline constexpr Index block_columns =
    (Index{2} << 20) / (block_inner * tile_columns<T> * static_cast<Index>(sizeof(T))) * tile_columns<T>;

// What the last panel is padded to. The 512-bit code ends it with half a vector where that suffices, which
// takes half the time on processors whose 512-bit operations are two 256-bit ones: 50 columns of float64
// are 6.5 vectors.
template <class T> inline constexpr Index end_lanes = FASTNET_VECTOR_BYTES == 64 ? lanes<T> / 2 : lanes<T>;
template <class T> struct EndVectorOf {
    typedef T type __attribute__((vector_size(end_lanes<T> * static_cast<Index>(sizeof(T)))));
};
template <class T> using EndVec = typename EndVectorOf<T>::type;

template <class T> FASTNET_INLINE Matrix<T> part(Matrix<T> m, Index row, Index rows, Index column, Index columns) {
    return {m.data + row * m.row_stride + column * m.column_stride, rows, columns, m.row_stride, m.column_stride};
}

// to (rows, n) = from (rows, n).
template <class T>
[[gnu::noinline]] void copy(Index rows, Index n, const T* from, Index from_stride, T* to, Index to_stride) {
    for (Index i = 0; i < rows; ++i, from += from_stride, to += to_stride) {
        Index j = 0;
        for (; j + lanes<T> <= n; j += lanes<T>) {
            store(to + j, load(from + j));
        }
        // memcpy of a size that is known here is one instruction
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
    for (Index i = 0; i < n; ++i) {
        if (!(i & S)) {
            swap_blocks<S>(rows[i], rows[i + S], std::make_integer_sequence<Index, n>{});
        }
    }
    if constexpr (S > 1) {
        transpose<n, S / 2>(rows);
    }
}

// to (k, width) row-major = b (k, n), zeros behind column n; width is a multiple of end_lanes.
template <class T> void pack_panel(Matrix<T> b, T* to, Index width) {
    constexpr Index L = end_lanes<T>;
    if (b.columns < width) { // by less than L
        for (Index k = 1; k <= b.rows; ++k) {
            std::memset(to + k * width - L, 0, L * sizeof(T));
        }
    }
    if (b.column_stride == 1) {
        copy(b.rows, b.columns, b.data, b.row_stride, to, width);
        return;
    }
    const Index whole = b.rows / L * L;
    for (Index j = 0; j < b.columns; j += L) {
        const Index used = min_index(L, b.columns - j);
        const T* from = b.data + j * b.column_stride;
        for (Index k = 0; k < whole; k += L) {
            EndVec<T> rows[L] = {};
            for (Index i = 0; i < L; ++i) {
                if (i < used) {
                    std::memcpy(&rows[i], from + i * b.column_stride + k, sizeof rows[i]);
                }
            }
            transpose<L>(rows);
            for (Index i = 0; i < L; ++i) {
                std::memcpy(to + (k + i) * width + j, &rows[i], sizeof rows[i]);
            }
        }
        for (Index k = whole; k < b.rows; ++k) {
            for (Index i = 0; i < used; ++i) {
                to[k * width + j + i] = from[i * b.column_stride + k];
            }
        }
    }
}

// Calls f(column, vectors, end) for each panel of n columns: `vectors` vectors and, if `end`, one of
// end_lanes. The panels are as even as they can be: 7 vectors are 3 + 2 + 2.
template <class T, class F> FASTNET_INLINE void for_each_panel(Index n, F&& f) {
    const Index rest = n % lanes<T>;
    const bool end = end_lanes<T> < lanes<T> && 0 < rest && rest <= end_lanes<T>;
    const Index vectors = n / lanes<T> + (rest > 0 && !end);
    const Index panels = (vectors + end + tile_vectors - 1) / tile_vectors;
    Index column = 0;
    for (Index p = 0; p < panels; ++p) {
        const Index width = vectors / panels + (p < vectors % panels);
        f(column, width, end && p + 1 == panels);
        column += width * lanes<T>;
    }
}

// to = b (k, n) in panels, one after the other.
template <class T> void pack_block(Matrix<T> b, T* to) {
    for_each_panel<T>(b.columns, [&](Index j, Index vectors, bool end) {
        const Index width = vectors * lanes<T> + end * end_lanes<T>;
        pack_panel(part(b, 0, b.rows, j, min_index(width, b.columns - j)), to + j * b.rows, width);
    });
}

// to = v, or += v.
template <class T, class V> FASTNET_INLINE void put(T* to, V v, bool accumulate) {
    if (accumulate) {
        V old;
        std::memcpy(&old, to, sizeof old);
        v += old;
    }
    std::memcpy(to, &v, sizeof v);
}

// c (R, n) = or += a (R, k) . b (k, V vectors and, if End, one of end_lanes); b is a packed panel.
template <class T, int R, int V, bool End>
[[gnu::noinline]] void multiply_tile(Matrix<T> a, const T* b, Index n, T* c, Index ldc, bool accumulate) {
    constexpr Index width = V * lanes<T> + End * end_lanes<T>;
    Vec<T> sums[R][V + 1];
    EndVec<T> end_sums[R];
    FASTNET_UNROLL
    for (int r = 0; r < R; ++r) {
        end_sums[r] = EndVec<T>{};
        FASTNET_UNROLL
        for (int v = 0; v < V; ++v) {
            sums[r][v] = Vec<T>{};
        }
    }
    const T* p = a.data;
    for (Index k = 0; k < a.columns; ++k, p += a.column_stride, b += width) {
        Vec<T> row[V + 1];
        EndVec<T> end_row;
        FASTNET_UNROLL
        for (int v = 0; v < V; ++v) {
            row[v] = load(b + v * lanes<T>);
        }
        if constexpr (End) {
            std::memcpy(&end_row, b + V * lanes<T>, sizeof end_row);
        }
        FASTNET_UNROLL
        for (int r = 0; r < R; ++r) {
            const T x = p[r * a.row_stride];
            FASTNET_UNROLL
            for (int v = 0; v < V; ++v) {
                sums[r][v] += x * row[v];
            }
            if constexpr (End) {
                end_sums[r] += x * end_row;
            }
        }
    }

    constexpr Index edge_width = End ? end_lanes<T> : lanes<T>, whole = width - edge_width;
    T edge[R * edge_width]; // the last vector of each row, where c has no room for all of it
    const bool ragged = n < width;
    T* const last = ragged ? edge : c + whole;
    const Index last_stride = ragged ? edge_width : ldc;
    if (ragged && accumulate) {
        copy<T>(R, n - whole, c + whole, ldc, edge, edge_width);
    }
    FASTNET_UNROLL
    for (int r = 0; r < R; ++r) {
        FASTNET_UNROLL
        for (int v = 0; v < V; ++v) {
            put(v * lanes<T> < whole ? c + r * ldc + v * lanes<T> : last + r * last_stride, sums[r][v], accumulate);
        }
        if constexpr (End) {
            put(last + r * last_stride, end_sums[r], accumulate);
        }
    }
    if (ragged) {
        copy<T>(R, n - whole, edge, edge_width, c + whole, ldc);
    }
}

// c (R, n) = or += a (R, k) . b (k, n), b packed.
template <class T, int R> void multiply_rows(Matrix<T> a, const T* b, Index n, T* c, Index ldc, bool accumulate) {
    for_each_panel<T>(n, [&](Index j, Index vectors, bool end) {
        const auto multiply = [&]<int V, bool End>() {
            constexpr Index width = V * lanes<T> + End * end_lanes<T>;
            multiply_tile<T, R, V, End>(a, b + j * a.columns, min_index(width, n - j), c + j, ldc, accumulate);
        };
        if constexpr (end_lanes<T> < lanes<T>) {
            if (end) {
                return vectors == 0   ? multiply.template operator()<0, true>()
                       : vectors == 1 ? multiply.template operator()<1, true>()
                                      : multiply.template operator()<2, true>();
            }
        }
        return vectors == 1   ? multiply.template operator()<1, false>()
               : vectors == 2 ? multiply.template operator()<2, false>()
                              : multiply.template operator()<tile_vectors, false>();
    });
}

// c (m, n) = or += a (m, k) . b (k, n), b packed: tiles of R rows, then the rest in tiles of half as many.
template <class T, int R = tile_rows>
[[gnu::noinline]] void multiply_block(Matrix<T> a, const T* b, Index n, T* c, Index ldc, bool accumulate) {
    Index i = 0;
    for (; i + R <= a.rows; i += R) {
        multiply_rows<T, R>(part(a, i, R, 0, a.columns), b, n, c + i * ldc, ldc, accumulate);
    }
    if constexpr (R > 1) {
        if (i < a.rows) {
            multiply_block<T, R / 2>(part(a, i, a.rows - i, 0, a.columns), b, n, c + i * ldc, ldc, accumulate);
        }
    }
}

// Calls f(column, columns, inner, inners) for each block of b (k, n); at least one per column, even if k = 0.
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

// For as few rows of a, reading b where it is costs less than packing it.
inline constexpr Index few_rows = 4;

// c (m, n) = or += a (m, k) . b (k, n), b row-major and not packed.
template <class T> void multiply_unpacked(Matrix<T> a, Matrix<T> b, T* c, Index ldc, bool accumulate) {
    for (Index i = 0; i < a.rows; ++i) {
        for_each_vector_group<T>(b.columns, [&]<int V>(Index j) {
            Index k = 0;
            do {
                Vec<T> sums[V] = {};
                const Index first = k, end = min_index(k + block_inner, b.rows);
                for (; k < end; ++k) {
                    const Vec<T> x = splat(a.data[i * a.row_stride + k * a.column_stride]);
                    const T* from = b.data + k * b.row_stride + j;
                    for (int v = 0; v < V; ++v) {
                        sums[v] += x * load(from + v * lanes<T>, min_index(lanes<T>, b.columns - j - v * lanes<T>));
                    }
                }
                for (int v = 0; v < V; ++v) {
                    T* to = c + i * ldc + j + v * lanes<T>;
                    const Index count = min_index(lanes<T>, b.columns - j - v * lanes<T>);
                    store(to, accumulate || first > 0 ? load(to, count) + sums[v] : sums[v], count);
                }
            } while (k < b.rows);
        });
    }
}

// c (m, n) = or += a (m, k) . b (k, n); one thread.
template <class T> void gemm(Matrix<T> a, Matrix<T> b, T* c, Index ldc, bool accumulate) {
    if (a.rows == 0 || b.columns == 0) {
        return;
    }
    if (a.rows <= few_rows && b.column_stride == 1) {
        return multiply_unpacked(a, b, c, ldc, accumulate);
    }
    const Array<T> packed(min_index(b.rows, block_inner) *
                          round_up(min_index(b.columns, block_columns<T>), end_lanes<T>));
    for_each_block<T>(b.rows, b.columns, [&](Index j, Index columns, Index k, Index inner) {
        pack_block(part(b, k, inner, j, columns), packed.data());
        multiply_block(part(a, 0, a.rows, k, inner), packed.data(), columns, c + j, ldc, accumulate || k > 0);
    });
}

// A right operand (k, n), packed once for many products.
template <class T> class PackedMatrix {
  public:
    explicit PackedMatrix(Matrix<T> b)
        : rows(b.rows), columns(b.columns), data_(rows * round_up(columns, end_lanes<T>)) {
        for_each_block<T>(rows, columns, [&](Index j, Index count, Index k, Index inner) {
            pack_block(part(b, k, inner, j, count), block(j, count, k));
        });
    }
    // The block that starts at row k and column j and has `count` columns.
    T* block(Index j, Index count, Index k) const {
        return data_.data() + j * rows + k * round_up(count, end_lanes<T>);
    }
    // The element (k, j) of b.
    T& at(Index k, Index j) const {
        const Index first_j = j / block_columns<T> * block_columns<T>;
        const Index first_k = k / block_inner * block_inner;
        const Index count = min_index(columns - first_j, block_columns<T>);
        const Index inner = min_index(rows - first_k, block_inner);
        T* found = nullptr;
        for_each_panel<T>(count, [&](Index panel, Index vectors, bool end) {
            if (panel <= j - first_j) {
                const Index width = vectors * lanes<T> + end * end_lanes<T>;
                found = block(first_j, count, first_k) + panel * inner + (k - first_k) * width + (j - first_j - panel);
            }
        });
        return *found;
    }

    const Index rows, columns;

  private:
    const Array<T> data_;
};

template <class T> void gemm(Matrix<T> a, const PackedMatrix<T>& b, T* c, Index ldc, bool accumulate) {
    for_each_block<T>(b.rows, b.columns, [&](Index j, Index columns, Index k, Index inner) {
        const T* block = b.block(j, columns, k);
        multiply_block(part(a, 0, a.rows, k, inner), block, columns, c + j, ldc, accumulate || k > 0);
    });
}

// c (m, n) = a (m, k) . b (k, n): the threads share out blocks of c.
template <class T> void matmul(Matrix<T> a, Matrix<T> b, T* c, Index ldc) {
    const double multiply_adds =
        static_cast<double>(a.rows) * static_cast<double>(b.columns) * static_cast<double>(b.rows);
    const int workers = workers_for(multiply_add * multiply_adds);
    // more than one turn, because an interrupt is only seen between two tasks
    const Index turns = 1 + static_cast<Index>(multiply_adds / workers / 4e9);
    const Index tasks = workers * turns;
    Index row_blocks = 1;
    for (Index blocks = 2; blocks <= tasks; ++blocks) { // the squarest blocks read the least of a and b
        const auto border = [&](Index r) { return a.rows / r + b.columns / (tasks / r); };
        if (tasks % blocks == 0 && border(blocks) < border(row_blocks)) {
            row_blocks = blocks;
        }
    }
    const Index column_blocks = tasks / row_blocks;
    const Index rows = (a.rows + row_blocks - 1) / row_blocks;
    const Index columns = round_up((b.columns + column_blocks - 1) / column_blocks, lanes<T>);
    parallel_for(tasks, workers, [&](Index task, int) {
        const Index i = min_index(task / column_blocks * rows, a.rows);
        const Index j = min_index(task % column_blocks * columns, b.columns);
        gemm(part(a, i, min_index(rows, a.rows - i), 0, a.columns),
             part(b, 0, b.rows, j, min_index(columns, b.columns - j)), c + i * ldc + j, ldc, false);
    });
}

} // namespace fastnet::FASTNET_TARGET
