// The nonzeros of rows of a matrix: how they are found, packed, and kept for products.
#pragma once

#include <type_traits>

#include "core/dataset.hpp"
#include "kernels/tiles.hpp"

namespace fastnet::FASTNET_TARGET {

// f(i) for each bit i of the mask that is set, from the lowest on.
template <class F> FASTNET_INLINE void for_each_bit(std::uint64_t mask, F&& f) {
    for (; mask != 0; mask &= mask - 1) {
        f(static_cast<Index>(__builtin_ctzll(mask)));
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
        : groups(mask_groups(columns)), storage(kept), coded(of_codes),
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

} // namespace fastnet::FASTNET_TARGET
