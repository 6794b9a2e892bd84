// Products that skip the zeros of a matrix: four fifths of a handwritten digit are zeros.
//
// Each result is the same chain of multiply-adds as `gemm`'s, without those that add zero: skipping zeros changes no
// bit of it as long as the other factor is finite.
#pragma once

#include <type_traits>

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

// x (columns) -> masks: a bit for each nonzero, for each group of 64 columns. see(v, mask) is called for each vector.
template <class T, class F>
FASTNET_INLINE void find_nonzeros(const T* x, Index columns, std::uint64_t* masks, F&& see) {
    for (Index first = 0; first < columns; first += mask_columns, ++masks) {
        std::uint64_t mask = 0;
        for_each_vector<T>(min_index(mask_columns, columns - first), [&](Index j, Index count) {
            const Vec<T> v = load(x + first + j, count);
            const unsigned found = nonzero_mask<T>(v);
            mask |= static_cast<std::uint64_t>(found) << j;
            see(v, found);
        });
        *masks = mask;
    }
}

#if FASTNET_VECTOR_BYTES == 32 && defined(__AVX2__)
// For each mask of lanes: where their 4-byte parts are in the vector, one after the other.
template <class T> struct CompressedPlaces {
    std::uint8_t of_mask[1 << lanes<T>][8] = {};

    constexpr CompressedPlaces() {
        constexpr int parts = sizeof(T) / 4;
        for (int mask = 0; mask < 1 << lanes<T>; ++mask) {
            int next = 0;
            for (int part = 0; part < 8; ++part) {
                if (mask >> (part / parts) & 1) {
                    of_mask[mask][next++] = static_cast<std::uint8_t>(part);
                }
            }
        }
    }
};
template <class T> inline constexpr CompressedPlaces<T> compressed_places{};
#endif

// The lanes of v that the mask has, one after the other, to `to`. Up to a whole vector is written there.
template <class T> FASTNET_INLINE void compress(Vec<T> v, unsigned mask, T* to) {
#if FASTNET_VECTOR_BYTES == 64
    if constexpr (sizeof(T) == 4) {
        store(to, (Vec<T>)_mm512_maskz_compress_ps(static_cast<__mmask16>(mask), (__m512)v));
    } else {
        store(to, (Vec<T>)_mm512_maskz_compress_pd(static_cast<__mmask8>(mask), (__m512d)v));
    }
#elif defined(__AVX2__)
    const auto places = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(compressed_places<T>.of_mask[mask]));
    store(to, (Vec<T>)_mm256_permutevar8x32_ps((__m256)v, _mm256_cvtepu8_epi32(places)));
#else
    for_each_bit(mask, [&](Index i) { *to++ = v[i]; });
#endif
}

// x (columns) -> masks, as find_nonzeros, and the nonzeros, one after the other; up to a vector is written behind them.
// Returns how many there are.
template <class T> Index pack_row(const T* x, Index columns, std::uint64_t* masks, T* nonzeros) {
    T* to = nonzeros;
    find_nonzeros(x, columns, masks, [&](Vec<T> v, unsigned mask) {
        compress<T>(v, mask, to);
        to += __builtin_popcount(mask);
    });
    return to - nonzeros;
}

// Where the values of a row's nonzeros are: in the whole row, or one after the other; these as they are, or as codes,
// the numbers of values.
enum class Storage { whole, packed, coded };

template <class T, Storage S> using Kept = std::conditional_t<S == Storage::coded, std::uint8_t, T>;

template <class T> FASTNET_INLINE T decoded(T value, const T*) {
    return value;
}
template <class T> FASTNET_INLINE T decoded(std::uint8_t code, const T* values) {
    return values[code];
}

// The nonzeros of rows of a matrix: a mask of bits for each group of 64 columns, and where their values are. The
// product with packed or coded ones can also expand them for the transposed product to come, which finds the value in a
// column sooner there.
template <class T> class NonZeros {
  public:
    static constexpr Index group = mask_columns;

    const Index groups; // of columns
    const Storage storage;
    const T* const coded; // the value of each code
    const bool expands;

    NonZeros(Index rows, Index columns, const T* of_codes = nullptr, Storage kept = Storage::whole,
             bool may_expand = false)
        : groups((columns + group - 1) / group), storage(kept), coded(of_codes),
          expands(kept != Storage::whole && may_expand && rows * groups * group <= most_expanded), columns_(columns),
          rows_(rows), masks_(rows * groups), starts_(kept == Storage::whole ? 0 : rows * groups), values_(rows),
          whole_(rows), expanded_(expands ? rows * groups * group : 0) {}

    // Finds the nonzeros of x (columns), and keeps them as the given row.
    void find(const T* x, Index row) {
        for (Index g = 0; g < groups; ++g) {
            find_nonzeros(x + g * group, min_index(group, columns_ - g * group), &masks_[g * rows_ + row],
                          [](Vec<T>, unsigned) {});
        }
        set_whole(row, x);
    }

    // Keeps a row whose nonzeros have been found: its masks, and behind them its values or their codes.
    void keep(const std::uint64_t* packed_row, Index row) {
        std::int32_t start = 0;
        for (Index g = 0; g < groups; ++g) {
            masks_[g * rows_ + row] = packed_row[g];
            starts_[g * rows_ + row] = start;
            start += __builtin_popcountll(packed_row[g]);
        }
        values_[row] = packed_row + groups;
    }

    // Fills `to` (columns) with a row that has been kept, which is its whole row from then on, and the expanded row if
    // there is one.
    void expand(Index row, T* to) {
        with_storage([&]<Storage S>() {
            std::memset(to, 0, static_cast<std::size_t>(columns_) * sizeof(T));
            const Kept<T, S>* next = kept<S>(row, 0);
            for (Index g = 0; g < groups; ++g) {
                for_each_bit(mask(row, g), [&](Index k) { to[g * group + k] = decoded(*next++, coded); });
                if (expands) {
                    const Index count = min_index(group, columns_ - g * group);
                    std::memcpy(expanded(row, g), to + g * group, static_cast<std::size_t>(count) * sizeof(T));
                }
            }
        });
        set_whole(row, to);
    }
    void set_whole(Index row, const T* x) { whole_[row] = x; }

    std::uint64_t mask(Index row, Index g) const { return masks_[g * rows_ + row]; }
    // What is kept of a group of columns: all of them if the rows are whole, else its nonzeros or their codes.
    template <Storage S> const Kept<T, S>* kept(Index row, Index g) const {
        if constexpr (S == Storage::whole) {
            return whole_[row] + g * group;
        } else {
            return static_cast<const Kept<T, S>*>(values_[row]) + starts_[g * rows_ + row];
        }
    }
    // Where `expands`: the values of all of a group's columns, zeros included, from the product on. They are filled
    // where the row has a nonzero in the group.
    T* expanded(Index row, Index g) const { return expanded_.data() + (g * rows_ + row) * group; }

    template <class F> FASTNET_INLINE void with_storage(F&& f) const {
        storage == Storage::whole    ? f.template operator()<Storage::whole>()
        : storage == Storage::packed ? f.template operator()<Storage::packed>()
                                     : f.template operator()<Storage::coded>();
    }

  private:
    static constexpr Index most_expanded = (Index{512} << 10) / static_cast<Index>(sizeof(T)); // half of a core's cache

    const Index columns_, rows_;
    const Array<std::uint64_t> masks_; // (groups, rows)
    const Array<std::int32_t> starts_; // (groups, rows): of a group's values among its row's, where they are packed
    const Array<const void*> values_;  // (rows): where they are packed
    const Array<const T*> whole_;      // (rows): where there are whole rows
    const Array<T> expanded_;          // (groups, rows, columns of a group)
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

    // To be filled by `copy_rows`.
    PaddedMatrix(Index columns, T* to) : data(to), stride(round_up(columns, lanes<T>)), finite(true) {}
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

// c (rows, whole vectors) = x . b, over the nonzeros of the rows of x, which are kept from the given slot on.
template <class T>
void multiply_nonzeros(const NonZeros<T>& nonzeros, Index slot, Index rows, const PaddedMatrix<T>& b, T* c) {
    constexpr Index group = NonZeros<T>::group, groups_per_block = block_inner / group;
    const Index stride = b.stride, size = rows * stride, groups = nonzeros.groups;
    const Array<T> later(groups > groups_per_block ? size : 0);
    // One chain per block of the inner dimension, as in gemm. The chain goes on from group to group in `to`, because a
    // group's rows of b stay in the first-level cache while the rows of x pass by.
    for (Index first = 0; first < groups; first += groups_per_block) {
        T* const to = first == 0 ? c : later.data();
        const Index end = min_index(first + groups_per_block, groups);
        const auto add_groups = [&]<Storage S, bool Expands>() {
            for_each_vector_group<T>(stride, [&, slot, stride, to, first, end]<int V>(Index j) {
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
                        T* const sums_of_row = to + i * stride + j;
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
