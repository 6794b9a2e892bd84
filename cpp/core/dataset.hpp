// Rows that training draws its batches from, and that a network answers; where most of their elements are zeros, the
// others apart.
#pragma once

#include <cstdint>
#include <cstring>
#include <memory>
#include <optional>
#include <type_traits>

#include "core/memory.hpp"
#include "core/network.hpp"

namespace fastnet {

// Columns that share a mask.
inline constexpr Index mask_columns = 64;
inline constexpr Index mask_groups(Index columns) {
    return (columns + mask_columns - 1) / mask_columns;
}

// A batch's rows are fetched from `x` when they are first read: row i of the batch is row order[i] there.
template <class T> struct Source {
    const T* x; // (rows of the data, columns)
    Index columns;
    const std::uint64_t* packed; // the rows without their zeros; null where zeros are few
    const Index* starts;         // (rows of the data): where each row is in `packed`: its masks, with a bit for each
                                 // nonzero, and behind them its nonzeros, or a byte for each, its code
    const T* coded;              // the value of each code; null where `packed` holds the nonzeros themselves
    const std::int64_t* order;   // (rows of the batch, and of the next one), or null: the rows as they are
    Index next;                  // rows of the next batch
    T* to;                       // (rows of the batch, columns)
};

// Codes of a byte for the distinct values of the data but 0, where these are few, as are those of an image.
template <class T> class Codes {
  public:
    // Gives the value a code if it has none. Returns whether there was one left.
    bool add(T value);
    // The value's code, or 0 if it has none.
    std::uint8_t find(T value) const {
        const std::uint8_t code = slots_[slot_of(value)];
        return same(values_[code], value) ? code : find_behind(value); // nearly always the first one
    }
    const T* values() const { return values_; }

  private:
    static constexpr int slot_bits = 14; // so many slots for 255 values that few of them share one

    static bool same(T a, T b) { return std::memcmp(&a, &b, sizeof a) == 0; }
    static std::size_t slot_of(T value) {
        std::conditional_t<sizeof(T) == 4, std::uint32_t, std::uint64_t> bits;
        std::memcpy(&bits, &value, sizeof bits);
        return static_cast<std::size_t>(bits * std::uint64_t{0x9e3779b97f4a7c15} >> (64 - slot_bits));
    }
    std::uint8_t find_behind(T value) const;

    T values_[256] = {}; // that of code 0 is 0
    std::size_t count_ = 1;
    std::uint8_t slots_[std::size_t{1} << slot_bits] = {}; // a hash table: codes, or 0
};

// Data x (rows, columns), which stays where it is. Random rows of it come from the main memory: the nonzeros of an
// image of a digit are a fifth of it, and their codes a quarter of these.
template <class T> class Dataset {
  public:
    Dataset(const T* x, Index rows, Index columns);
    Source<T> source(const std::int64_t* order, Index next, T* to) const {
        const T* const coded = codes_ ? codes_->values() : nullptr;
        return {x_, columns_, at<std::uint64_t>(packed_), at<Index>(starts_), coded, order, next, to};
    }
    // All rows, as they are.
    Source<T> all() const { return source(nullptr, 0, nullptr); }
    const T* x() const { return x_; }
    Index rows() const { return rows_; }
    Index columns() const { return columns_; }

  private:
    // Finds the nonzeros of all rows and keeps them, or their codes. Without success nothing is kept.
    bool pack(const Codes<T>* codes);

    template <class X> static X* at(const std::optional<Buffer>& buffer) {
        return buffer ? static_cast<X*>(buffer->data) : nullptr;
    }

    const T* x_;
    Index rows_, columns_;
    std::optional<Buffer> packed_, starts_; // or none
    std::unique_ptr<const Codes<T>> codes_; // or none
};

} // namespace fastnet
