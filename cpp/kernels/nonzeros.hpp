// Products that skip the zeros of a matrix: four fifths of a handwritten digit are zeros.
//
// Each result is the same chain of multiply-adds as `gemm`'s, without those that add zero: skipping zeros changes no
// bit of it as long as the other factor is finite.
#pragma once

#include "core/dataset.hpp"
#include "kernels/matmul.hpp"

namespace fastnet::FASTNET_TARGET {

template <class T> bool all_finite(const T* x, Index n) {
    Vec<T> zeros{}; // 0 x every element: NaN where one is not finite
    for_each_vector<T>(n, [&](Index i, Index count) { zeros += load(x + i, count) * T(0); });
    return sum<T>(zeros) == 0;
}

// f(i) for each bit i of the mask that is set, from the lowest on.
template <class F> FASTNET_INLINE void for_each_bit(std::uint64_t mask, F&& f) {
    for (; mask != 0; mask &= mask - 1) {
        f(static_cast<Index>(__builtin_ctzll(mask)));
    }
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

// Which elements of the rows of a matrix are not zero, a bit for each; 64 columns are a group.
template <class T> class NonZeros {
  public:
    static constexpr Index group = mask_columns;

    const Index groups; // of columns

    NonZeros(Index rows, Index columns)
        : groups((columns + group - 1) / group), columns_(columns), masks_(rows * groups) {}

    // Finds the nonzeros of x (columns), and keeps them as the given row.
    void find(const T* x, Index row) {
        for (Index g = 0; g < groups; ++g) {
            std::uint64_t mask = 0;
            const Index first = g * group, count = min_index(group, columns_ - first);
            for_each_vector<T>(count, [&](Index j, Index n) {
                mask |= static_cast<std::uint64_t>(nonzero_mask<T>(load(x + first + j, n))) << j;
            });
            masks_[row * groups + g] = mask;
        }
    }

    // Fetches row `i` of the batch from the data, and keeps its nonzeros as the given row.
    void fetch(const Source<T>& from, Index i, Index row) {
        T* to = from.to + i * columns_;
        const std::uint64_t* masks = from.masks + from.order[i] * groups;
        const T* values = from.values + from.starts[from.order[i]];
        for (Index g = 0; g < groups; ++g) {
            const std::uint64_t mask = masks[g];
            for_each_vector<T>(min_index(group, columns_ - g * group), [&](Index j, Index count) {
                const auto part = static_cast<unsigned>(mask >> j) & ((1u << lanes<T>)-1);
                store(to + g * group + j, expand(part, values), count);
                values += __builtin_popcount(part);
            });
            masks_[row * groups + g] = mask;
        }
    }

    std::uint64_t mask(Index row, Index g) const { return masks_[row * groups + g]; }

  private:
    const Index columns_;
    const Array<std::uint64_t> masks_; // (rows, groups)
};

// Whether it pays to skip the zeros of x (rows, columns): judged by at most 16 rows, spread over all. For a few rows it
// does not, because every weight is read once anyway.
template <class T> bool worth_skipping_zeros(const T* x, Index rows, Index columns) {
    if (rows <= few_rows) {
        return false;
    }
    const Index sampled = min_index(rows, 16);
    Index found = 0;
    for (Index s = 0; s < sampled; ++s) {
        const T* row = x + s * rows / sampled * columns;
        for_each_vector<T>(
            columns, [&](Index j, Index count) { found += __builtin_popcount(nonzero_mask<T>(load(row + j, count))); });
    }
    return found * 2 < sampled * columns;
}

// A matrix in rows of whole, aligned vectors, zeros behind the columns; the memory belongs to the caller.
template <class T> struct PaddedMatrix {
    static Index size(Index rows, Index columns) { return rows * round_up(columns, lanes<T>); }

    // Copies the matrix `from` (rows, columns) to `to`.
    PaddedMatrix(const T* from, Index rows, Index columns, T* to) : data(to), stride(round_up(columns, lanes<T>)) {
        Vec<T> zeros{}; // 0 x every element: NaN where one is not finite
        for (Index i = 0; i < rows; ++i) {
            for_each_vector<T>(columns, [&](Index j, Index count) {
                const Vec<T> v = load(from + i * columns + j, count);
                zeros += v * T(0);
                store(row(i) + j, v);
            });
        }
        finite = sum<T>(zeros) == 0;
    }
    T* row(Index i) const { return data + i * stride; }

    T* data;
    Index stride;
    bool finite;
};

// A padded matrix with its own memory.
template <class T> struct PaddedCopy {
    PaddedCopy(const T* from, Index rows, Index columns)
        : memory(PaddedMatrix<T>::size(rows, columns)), matrix(from, rows, columns, memory.data()) {}

    const Array<T> memory;
    const PaddedMatrix<T> matrix;
};

// c (rows, whole vectors) = x (rows, ldx) . b, over the nonzeros of x, which are kept from the given slot on.
template <class T>
void multiply_nonzeros(const T* x, Index ldx, Index rows, const NonZeros<T>& nonzeros, Index slot,
                       const PaddedMatrix<T>& b, T* c) {
    constexpr Index group = NonZeros<T>::group, groups_per_block = block_inner / group;
    const Index stride = b.stride, size = rows * stride, groups = nonzeros.groups;
    const Array<T> later(groups > groups_per_block ? size : 0);
    // One chain per block of the inner dimension, as in gemm. The chain goes on from group to group in `to`, because a
    // group's rows of b stay in the first-level cache while the rows of x pass by.
    for (Index first = 0; first < groups; first += groups_per_block) {
        T* const to = first == 0 ? c : later.data();
        const Index end = min_index(first + groups_per_block, groups);
        for_each_vector_group<T>(stride, [&, x, ldx, slot, stride, to, first, end]<int V>(Index j) {
            for (Index g = first; g < end; ++g) {
                const T* const row = b.row(g * group) + j;
                for (Index i = 0; i < rows; ++i) {
                    const std::uint64_t mask = nonzeros.mask(slot + i, g);
                    if (mask == 0 && g > first) {
                        continue;
                    }
                    const T* const values = x + i * ldx + g * group;
                    T* const sums_of_row = to + i * stride + j;
                    Vec<T> sums[V];
                    for (int v = 0; v < V; ++v) {
                        sums[v] = g == first ? Vec<T>{} : load(sums_of_row + v * lanes<T>);
                    }
                    for_each_bit(mask, [&](Index k) {
                        for (int v = 0; v < V; ++v) {
                            sums[v] += values[k] * load(row + k * stride + v * lanes<T>);
                        }
                    });
                    for (int v = 0; v < V; ++v) {
                        store(sums_of_row + v * lanes<T>, sums[v]);
                    }
                }
            }
        });
        if (first > 0) {
            for (Index i = 0; i < size; i += lanes<T>) {
                store(c + i, load(c + i) + load(later.data() + i));
            }
        }
    }
}

// c (columns of x's group `g`, n) = or += the transposed of those columns of x (rows, ldx) times a matrix with rows of
// whole vectors, over the nonzeros of x, which are kept from row 0 on: term(sum, value, row, j) is `sum` plus the
// nonzero `value` times the vector of the matrix at (row, j). rows <= block_inner: one chain, as in gemm.
template <class T, class Term>
void multiply_transposed_nonzeros(const T* x, Index ldx, const NonZeros<T>& nonzeros, Index rows, Index g, T* c,
                                  Index n, bool accumulate, Term term) {
    constexpr Index group = NonZeros<T>::group, most_blocks = block_inner / 64;
    std::uint64_t masks[most_blocks][64]; // by block of 64 rows and column: its rows
    const Index blocks = (rows + 63) / 64, columns = min_index(group, ldx - g * group);
    for (Index block = 0; block < blocks; ++block) {
        for (Index i = 0; i < 64; ++i) {
            masks[block][i] = block * 64 + i < rows ? nonzeros.mask(block * 64 + i, g) : 0;
        }
        transpose_bits(masks[block]);
    }
    for_each_vector_group<T>(n, [&, x, ldx, g, c, n, accumulate, term, blocks, columns]<int V>(Index j) {
        for (Index k = 0; k < columns; ++k) {
            const T* const values = x + g * group + k;
            Vec<T> sums[V] = {};
            for (Index block = 0; block < blocks; ++block) {
                for_each_bit(masks[block][k], [&](Index i) {
                    const Index row = block * 64 + i;
                    for (int v = 0; v < V; ++v) {
                        sums[v] = term(sums[v], values[row * ldx], row, j + v * lanes<T>);
                    }
                });
            }
            for (int v = 0; v < V; ++v) {
                T* to = c + k * n + j + v * lanes<T>;
                const Index count = min_index(lanes<T>, n - j - v * lanes<T>);
                store(to, accumulate ? load(to, count) + sums[v] : sums[v], count);
            }
        }
    });
}

} // namespace fastnet::FASTNET_TARGET
