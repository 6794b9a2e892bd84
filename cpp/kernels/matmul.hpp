// The product of two matrices.
//
// The sums of the blocks of the inner dimension are added up in c. An element is thus the same chain of multiply-adds
// wherever it stands and whoever computes it: its bits depend on nothing but its row of a and its column of b.
//
// a is read where it lies, broadcast element by element: packing it too would only pay where the rows of a transposed
// float32 view are a large power of two apart (2048: a fifth).
#pragma once

#include "kernels/packing.hpp"

namespace fastnet::FASTNET_TARGET {

// to (n) = the first n lanes of v, fewer than 2 Size: Size of them, then half as many, …
template <Index Size, class T, class V, Index... I>
FASTNET_INLINE void store_pieces(T* to, V v, Index n, std::integer_sequence<Index, I...> all) {
    if (n & Size) {
        std::memcpy(to, &v, Size * sizeof(T));
        to += Size;
        v = __builtin_shufflevector(v, v, ((I + Size) % sizeof...(I))...);
    }
    if constexpr (Size > 1) {
        store_pieces<Size / 2>(to, v, n, all);
    }
}

// What a product does to the array that it goes to.
enum class Into { set, add, scale };

template <class V> FASTNET_INLINE V combined(V v, V old, Into how) {
    return how == Into::add ? old + v : old * v;
}

// Sets `to` to v, adds v to it, or multiplies it by v.
template <class T, class V> FASTNET_INLINE void put(T* to, V v, Into how) {
    if (how != Into::set) {
        V old;
        std::memcpy(&old, to, sizeof old);
        v = combined(v, old, how);
    }
    std::memcpy(to, &v, sizeof v);
}

// The same for the first n lanes, all of them or fewer. No loops: they would keep the tile's sums from the registers.
template <class T, class V> FASTNET_INLINE void put(T* to, V v, Index n, Into how) {
    constexpr Index all = static_cast<Index>(sizeof v / sizeof(T));
    if (n == all) {
        return put(to, v, how);
    }
    if (how != Into::set) {
        const Vec<T> old = load(to, n);
        V first;
        std::memcpy(&first, &old, sizeof first);
        v = combined(v, first, how);
    }
    if constexpr (FASTNET_VECTOR_BYTES == 64 && all == lanes<T>) {
        store<T>(to, v, n);
    } else { // a masked store of a few lanes takes as long as two stores where the whole vector crosses a cache line
        store_pieces<all / 2>(to, v, n, std::make_integer_sequence<Index, all>{});
    }
}

// a (rows, k) . b (k, V vectors and, if End, one of end_lanes) into c (rows, n), R rows at a time, of which rows is a
// multiple; b is a panel whose rows are ldb apart.
template <class T, int R, int V, bool End>
[[gnu::noinline]] void multiply_panel(Matrix<T> a, const T* b, Index ldb, Index n, T* c, Index ldc, Into how) {
    constexpr Index width = V * lanes<T> + End * end_lanes<T>;
    constexpr Index whole = width - (End ? end_lanes<T> : lanes<T>);
    const Index last = n - whole; // columns of the last vector
    for (Index i = 0; i < a.rows; i += R, c += R * ldc) {
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
        const T* p = a.data + i * a.row_stride;
        const T* q = b;
        for (Index k = 0; k < a.columns; ++k, p += a.column_stride, q += ldb) {
            Vec<T> row[V + 1];
            EndVec<T> end_row;
            FASTNET_UNROLL
            for (int v = 0; v < V; ++v) {
                row[v] = load(q + v * lanes<T>);
            }
            if constexpr (End) {
                std::memcpy(&end_row, q + V * lanes<T>, sizeof end_row);
            }
            FASTNET_UNROLL
            for (int r = 0; r < R; ++r) {
                const Vec<T> x = splat(p[r * a.row_stride]);
                FASTNET_UNROLL
                for (int v = 0; v < V; ++v) {
                    sums[r][v] += x * row[v];
                }
                if constexpr (End) { // by the same register: another element is another load
                    EndVec<T> end_x;
                    std::memcpy(&end_x, &x, sizeof end_x);
                    end_sums[r] += end_x * end_row;
                }
            }
        }

        FASTNET_UNROLL
        for (int r = 0; r < R; ++r) {
            T* const to = c + r * ldc;
            FASTNET_UNROLL
            for (int v = 0; v < V; ++v) {
                put<T>(to + v * lanes<T>, sums[r][v], v * lanes<T> < whole ? lanes<T> : last, how);
            }
            if constexpr (End) {
                put<T>(to + whole, end_sums[r], last, how);
            }
        }
    }
}

// As many multiply-adds are under way at a time: two in each of the four cycles that one takes.
inline constexpr int fewest_chains = 8;

// c (m, n) = or += a (m, k) . b (k, n), b packed; m is a multiple of R. Where n is one vector, tiles have more rows.
template <class T, int R> void multiply_rows(Matrix<T> a, const T* b, Index n, T* c, Index ldc, bool accumulate) {
    for_each_panel<T>(n, [&](Panel<T> panel) {
        const Index j = panel.column, vectors = panel.vectors;
        const auto multiply = [&]<int V, bool End>() {
            constexpr Index width = V * lanes<T> + End * end_lanes<T>;
            Index first = 0;
            const auto multiply_tiles = [&]<int Rows>() {
                const Index rows = (a.rows - first) / Rows * Rows;
                multiply_panel<T, Rows, V, End>(submatrix(a, first, rows, 0, a.columns), b + j * a.columns, width,
                                                min_index(width, n - j), c + first * ldc + j, ldc,
                                                accumulate ? Into::add : Into::set);
                first += rows;
            };
            if constexpr (V == 1 && !End && R == tile_rows && R < fewest_chains) {
                multiply_tiles.template operator()<fewest_chains>();
            }
            multiply_tiles.template operator()<R>();
        };
        if constexpr (end_lanes<T> < lanes<T>) {
            if (panel.end) {
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

// c (m, n) = or += a (m, k) . b (k, n), b packed: tiles of R rows, then the rest in tiles of half as many. Where rows
// are short, several tiles of them share a call, and stay in the first-level cache while the panels of b pass by.
template <class T, int R = tile_rows>
[[gnu::noinline]] void multiply_block(Matrix<T> a, const T* b, Index n, T* c, Index ldc, bool accumulate) {
    constexpr Index elements = 2048; // of a, which share a call
    const Index whole = a.rows / R * R, most = R + elements / (a.columns + 1) / R * R;
    for (Index i = 0; i < whole; i += most) {
        const Index rows = min_index(most, whole - i);
        multiply_rows<T, R>(submatrix(a, i, rows, 0, a.columns), b, n, c + i * ldc, ldc, accumulate);
    }
    if constexpr (R > 1) {
        if (whole < a.rows) {
            multiply_block<T, R / 2>(submatrix(a, whole, a.rows - whole, 0, a.columns), b, n, c + whole * ldc, ldc,
                                     accumulate);
        }
    }
}

// a (m, k) . b (k, n) into c (m, n): n is whole vectors, and b is read where it lies.
template <class T, int R = tile_rows>
void multiply_in_place(Matrix<T> a, const T* b, Index ldb, Index n, T* c, Index ldc, Into how) {
    const Index whole = a.rows / R * R;
    for_each_panel<T>(n, [&](Panel<T> panel) {
        with_count<tile_vectors>(panel.vectors, [&]<int V>() {
            multiply_panel<T, R, V, false>(submatrix(a, 0, whole, 0, a.columns), b + panel.column, ldb, panel.width(),
                                           c + panel.column, ldc, how);
        });
    });
    if constexpr (R > 1) {
        if (whole < a.rows) {
            multiply_in_place<T, R / 2>(submatrix(a, whole, a.rows - whole, 0, a.columns), b, ldb, n, c + whole * ldc,
                                        ldc, how);
        }
    }
}

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

// Compiled once for all kernels, in shared.cpp.
extern template void multiply_block<float, tile_rows>(Matrix<float>, const float*, Index, float*, Index, bool);
extern template void multiply_block<double, tile_rows>(Matrix<double>, const double*, Index, double*, Index, bool);
extern template void multiply_unpacked(Matrix<float>, Matrix<float>, float*, Index, bool);
extern template void multiply_unpacked(Matrix<double>, Matrix<double>, double*, Index, bool);

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
        pack_block(submatrix(b, k, inner, j, columns), packed.data());
        multiply_block(submatrix(a, 0, a.rows, k, inner), packed.data(), columns, c + j, ldc, accumulate || k > 0);
    });
}

template <class T> void gemm(Matrix<T> a, const PackedMatrix<T>& b, T* c, Index ldc, bool accumulate) {
    for_each_block<T>(b.rows, b.columns, [&](Index j, Index columns, Index k, Index inner) {
        const T* block = b.block(j, columns, k);
        multiply_block(submatrix(a, 0, a.rows, k, inner), block, columns, c + j, ldc, accumulate || k > 0);
    });
}

// c (m, n) = a (m, k) . b (k, n): the threads share out blocks of c.
template <class T> void matmul(Matrix<T> a, Matrix<T> b, T* c, Index ldc) {
    const double multiply_adds =
        static_cast<double>(a.rows) * static_cast<double>(b.columns) * static_cast<double>(b.rows);
    const int workers = workers_for(multiply_add * multiply_adds);
    // There is more than one turn because an interrupt is only seen between two tasks.
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
        gemm(submatrix(a, i, min_index(rows, a.rows - i), 0, a.columns),
             submatrix(b, 0, b.rows, j, min_index(columns, b.columns - j)), c + i * ldc + j, ldc, false);
    });
}

} // namespace fastnet::FASTNET_TARGET
