// Products that skip the zeros of a matrix: four fifths of a handwritten digit are zeros.
//
// Each result is the same chain of multiply-adds as `gemm`'s, without those that add zero: skipping zeros changes no
// bit of it as long as the other factor is finite.
#pragma once

#include "kernels/matmul.hpp"
#include "kernels/nonzeros.hpp"

namespace fastnet::FASTNET_TARGET {

template <class T> bool all_finite(const T* x, Index n) {
    Vec<T> zeros{}; // 0 x every element: NaN where one is not finite
    for_each_vector<T>(n, [&](Index i, Index count) { zeros += load(x + i, count) * T(0); });
    return sum<T>(zeros) == 0;
}

// m[i] bit j -> m[j] bit i of a 64 x 64 matrix: quadrants are exchanged, then theirs, down to single bits.
template <int Size = 32,
          std::uint64_t Low = 0x00000000ffffffff> // Low: the columns that stay, in quadrants of this size
FASTNET_INLINE void transpose_bits(std::uint64_t (&m)[64]) {
    for (int first = 0; first < 64; first += 2 * Size) {
        for (int row = first; row < first + Size; ++row) {
            const std::uint64_t exchanged = ((m[row] >> Size) ^ m[row + Size]) & Low;
            m[row] ^= exchanged << Size;
            m[row + Size] ^= exchanged;
        }
    }
    if constexpr (Size > 1) {
        transpose_bits<Size / 2, Low ^ (Low << Size / 2)>(m);
    }
}

// A matrix in rows of whole, aligned vectors, zeros behind the columns; the memory belongs to the caller.
template <class T> struct PaddedMatrix {
    static Index size(Index rows, Index columns) { return rows * spread<T>(columns); }

    // To be filled by `copy_rows`.
    PaddedMatrix(Index columns, T* to)
        : data(to), width(round_up(columns, lanes<T>)), stride(spread<T>(columns)), finite(true) {}
    // Copies the matrix `from` (rows, columns) to `to`.
    PaddedMatrix(const T* from, Index rows, Index columns, T* to) : PaddedMatrix(columns, to) {
        finite = copy_rows(from, 0, rows, columns);
    }
    // Copies the rows [first, first + rows) of the matrix `from`. Returns whether they are finite.
    bool copy_rows(const T* from, Index first, Index rows, Index columns) const {
        Vec<T> zeros{}; // 0 x every element: NaN where one is not finite
        for (Index i = first; i < first + rows; ++i) {
            for_each_vector<T>(columns, [&](Index j, Index count) {
                const Vec<T> v = load(from + i * columns + j, count);
                zeros += v * T(0);
                store(row(i) + j, v);
            });
        }
        return sum<T>(zeros) == 0;
    }
    T* row(Index i) const { return data + i * stride; }

    T* data;
    Index width, stride; // of a row: its vectors' elements, and the way to the next one
    bool finite;
};

// A padded matrix with its own memory.
template <class T> struct PaddedCopy {
    PaddedCopy(const T* from, Index rows, Index columns)
        : memory(PaddedMatrix<T>::size(rows, columns)), matrix(from, rows, columns, memory.data()) {}

    const Array<T> memory;
    const PaddedMatrix<T> matrix;
};

// c (rows, whole vectors) = x . b, over the nonzeros of the rows of x, which are kept from the given slot on.
template <class T>
void multiply_nonzeros(const NonZeros<T>& nonzeros, Index slot, Index rows, const PaddedMatrix<T>& b, T* c) {
    constexpr Index group = NonZeros<T>::group, groups_per_block = block_inner / group;
    const Index width = b.width, stride = b.stride, size = rows * width, groups = nonzeros.groups;
    const Array<T> later(groups > groups_per_block ? size : 0);
    // One chain per block of the inner dimension, as in gemm. The chain goes on from group to group in `to`, because a
    // group's rows of b stay in the first-level cache while the rows of x pass by.
    for (Index first = 0; first < groups; first += groups_per_block) {
        T* const to = first == 0 ? c : later.data();
        const Index end = min_index(first + groups_per_block, groups);
        const auto add_groups = [&]<Storage S, bool Expands>() {
            for_each_vector_group<T>(width, [&, slot, width, stride, to, first, end]<int V>(Index j) {
                const T* const coded = nonzeros.coded;
                for (Index g = first; g < end; ++g) {
                    const T* const row = b.row(g * group) + j;
                    for (Index i = 0; i < rows; ++i) {
                        const std::uint64_t mask = nonzeros.mask(slot + i, g);
                        if (mask == 0 && g > first) {
                            continue;
                        }
                        const Kept<T, S>* kept = nonzeros.template kept<S>(slot + i, g);
                        if (S != Storage::whole && i + 2 < rows) {
                            __builtin_prefetch(nonzeros.template kept<S>(slot + i + 2, g));
                        }
                        T* const sums_of_row = to + i * width + j;
                        Vec<T> sums[V];
                        for (int v = 0; v < V; ++v) {
                            sums[v] = g == first ? Vec<T>{} : load(sums_of_row + v * lanes<T>);
                        }
                        T* const expanded = Expands ? nonzeros.expanded(slot + i, g) : nullptr;
                        for (Index k = 0; Expands && k < group; k += lanes<T>) {
                            store(expanded + k, Vec<T>{});
                        }
                        for_each_bit(mask, [&](Index k) {
                            const T value = S == Storage::whole ? decoded(kept[k], coded) : decoded(*kept++, coded);
                            if (Expands) {
                                expanded[k] = value;
                            }
                            for (int v = 0; v < V; ++v) {
                                sums[v] += value * load(row + k * stride + v * lanes<T>);
                            }
                        });
                        for (int v = 0; v < V; ++v) {
                            store(sums_of_row + v * lanes<T>, sums[v]);
                        }
                    }
                }
            });
        };
        nonzeros.with_storage([&]<Storage S>() {
            if constexpr (S != Storage::whole) {
                if (nonzeros.expands) {
                    return add_groups.template operator()<S, true>();
                }
            }
            add_groups.template operator()<S, false>();
        });
        if (first > 0) {
            for (Index i = 0; i < size; i += lanes<T>) {
                store(c + i, load(c + i) + load(later.data() + i));
            }
        }
    }
}

// How many of the rows, each of so many bytes, stay in the first-level cache: all, whole blocks of 64, or a part of
// one. It has 32 KiB, where there is AVX-512 48, and a third more costs less than another part of them.
FASTNET_INLINE Index rows_in_cache(Index rows, Index bytes) {
    constexpr Index cache = Index{FASTNET_VECTOR_BYTES == 64 ? 64 : 32} << 10;
    const Index most = cache / bytes;
    return rows <= most ? rows : most >= 64 ? most / 64 * 64 : most >= 32 ? 32 : 16;
}

// Where a product c (rows, n) goes: to memory, or added to what is there.
template <class T> struct StoreOrAdd {
    T* c;
    Index n;
    bool accumulate;
    // The first `count` lanes of a sum are the elements from (i, j) on.
    FASTNET_INLINE void operator()(Index i, Index j, Vec<T> sum, Index count) const {
        T* const to = c + i * n + j;
        store(to, accumulate ? load(to, count) + sum : sum, count);
    }
};

// The transposed columns of x's group `g` times a matrix with rows of n elements in whole vectors, which put(column, j,
// sum, count) takes, over the nonzeros of the rows of x, which are kept from row 0 on: term(sum, value, i) is `sum`
// plus the nonzero `value` times the vector of the matrix at element i, or of each of so many `matrices` with the same
// `stride`. `columns` is how many the group has. rows <= block_inner: one chain, as in gemm. At most `Vectors` of c
// stay in registers. Unless `Whole`, the rows need not be whole: what is kept of them serves, too.
//
// Where a column of c has few vectors, up to `Columns` of x go together, as many as hide the latency of a multiply-add:
// neighbours have their nonzeros in about the same rows, and where only one of them has, the other one adds a zero, so
// the matrix must be finite. Packed nonzeros go one by one, unless the product has expanded them.
//
// What is read of the matrices for some rows stays in the first-level cache while the group's columns pass by; the
// chains wait meanwhile.
template <int Vectors, int Columns, bool Whole, class T, class Put, class Term>
void multiply_transposed_nonzeros(const NonZeros<T>& nonzeros, Index rows, Index g, Index columns, Index n,
                                  Index matrices, Index stride, Put put, Term term) {
    constexpr Index most_blocks = block_inner / 64;
    std::uint64_t masks[most_blocks][64]; // by block of 64 rows and column: its rows
    const Index blocks = (rows + 63) / 64;
    for (Index block = 0; block < blocks; ++block) {
        for (Index i = 0; i < 64; ++i) {
            const Index row = block * 64 + i;
            masks[block][i] = row < rows ? nonzeros.mask(row, g) : 0;
        }
        transpose_bits(masks[block]);
    }
    const auto multiply = [&]<Storage S>() {
        constexpr bool in_columns = S == Storage::whole;
        const Kept<T, S>* starts[block_inner]; // by row: its values in the group's columns, or its nonzeros
        for (Index row = 0; row < rows; ++row) {
            if constexpr (in_columns) {
                starts[row] = !Whole && nonzeros.expands ? nonzeros.expanded(row, g)
                                                         : nonzeros.template kept<Storage::whole>(row, g);
            } else {
                starts[row] = nonzeros.template kept<S>(row, g);
            }
        }
        for_each_vector_group<T, Vectors>(n, [&, n, stride, put, term, blocks, columns]<int V>(Index j) {
            const T* const coded = nonzeros.coded;
            const Kept<T, S>* next[block_inner]; // by row: its next nonzero
            if (!in_columns) {
                std::memcpy(next, starts, static_cast<std::size_t>(rows) * sizeof *next);
            }
            Vec<T> chains[64][V]; // by column, between two parts of the rows
            // Adds the terms of the rows [first, end), all or a `Part`: the bits `of_part` of its blocks' masks.
            const auto add_rows = [&, n, stride, put, term, blocks, columns, rows,
                                   j]<bool Part>(Index first, Index end, std::uint64_t of_part) {
                for_each_group<(in_columns && V * Columns <= most_vectors ? Columns : 1)>(columns, [&]<int K>(Index k) {
                    Vec<T> sums[K][V];
                    FASTNET_UNROLL
                    for (int r = 0; r < K; ++r) {
                        FASTNET_UNROLL
                        for (int v = 0; v < V; ++v) { // one by one: GCC would clear the array in memory
                            sums[r][v] = Part && first > 0 ? chains[k + r][v] : Vec<T>{};
                        }
                    }
                    for (Index block = Part ? first / 64 : 0; block < (Part ? (end + 63) / 64 : blocks); ++block) {
                        std::uint64_t mask = masks[block][k];
                        for (int r = 1; r < K; ++r) {
                            mask |= masks[block][k + r];
                        }
                        for_each_bit(Part ? mask & of_part : mask, [&](Index i) {
                            const Index row = block * 64 + i;
                            T values[K];
                            FASTNET_UNROLL
                            for (int r = 0; r < K; ++r) {
                                values[r] = decoded(in_columns ? starts[row][k + r] : *next[row]++, coded);
                            }
                            const Index at = row * stride + j;
                            FASTNET_UNROLL
                            for (int r = 0; r < K; ++r) {
                                FASTNET_UNROLL
                                for (int v = 0; v < V; ++v) {
                                    sums[r][v] = term(sums[r][v], values[r], at + v * lanes<T>);
                                }
                            }
                        });
                    }
                    FASTNET_UNROLL
                    for (int r = 0; r < K; ++r) {
                        FASTNET_UNROLL
                        for (int v = 0; v < V; ++v) {
                            if (Part && end < rows) {
                                chains[k + r][v] = sums[r][v];
                                continue;
                            }
                            put(k + r, j + v * lanes<T>, sums[r][v],
                                v + 1 < V ? lanes<T> : min_index(lanes<T>, n - j - v * lanes<T>));
                        }
                    }
                });
            };
            const Index part = rows_in_cache(rows, matrices * V * static_cast<Index>(sizeof(Vec<T>)));
            if (part == rows) {
                return add_rows.template operator()<false>(0, rows, 0);
            }
            for (Index first = 0; first < rows; first += part) {
                const std::uint64_t of_part = part < 64 ? ((std::uint64_t{1} << part) - 1) << first % 64 : ~0ull;
                add_rows.template operator()<true>(first, min_index(first + part, rows), of_part);
            }
        });
    };
    if constexpr (!Whole) {
        if (!nonzeros.expands) {
            return nonzeros.with_storage(multiply);
        }
    }
    multiply.template operator()<Storage::whole>();
}

// The same for the product itself with a matrix d (rows, n; stride), which is finite.
template <class T, class Put>
void multiply_transposed_nonzeros(const NonZeros<T>& nonzeros, Index rows, Index g, Index columns, const T* d,
                                  Index stride, Index n, Put put) {
    multiply_transposed_nonzeros<most_vectors, 2, false>(
        nonzeros, rows, g, columns, n, 1, stride, put,
        [d](Vec<T> total, T x, Index i) { return total + x * load(d + i); });
}

// Compiled once for all kernels, in shared.cpp.
extern template void multiply_nonzeros(const NonZeros<float>&, Index, Index, const PaddedMatrix<float>&, float*);
extern template void multiply_nonzeros(const NonZeros<double>&, Index, Index, const PaddedMatrix<double>&, double*);
extern template void multiply_transposed_nonzeros(const NonZeros<float>&, Index, Index, Index, const float*, Index,
                                                  Index, StoreOrAdd<float>);
extern template void multiply_transposed_nonzeros(const NonZeros<double>&, Index, Index, Index, const double*, Index,
                                                  Index, StoreOrAdd<double>);

} // namespace fastnet::FASTNET_TARGET
