// Rows that training draws its batches from, and that a network answers; where most of their elements are zeros, the
// others apart.
#pragma once

#include <optional>

#include "core/memory.hpp"
#include "core/network.hpp"

namespace fastnet {

// Columns that share a mask.
inline constexpr Index mask_columns = 64;

// A batch's rows are fetched from `x` when they are first read: row i of the batch is row order[i] there.
template <class T> struct Source {
    const T* x; // (rows of the data, columns)
    Index columns;
    const std::uint64_t* packed; // the rows without their zeros; null where zeros are few
    const Index* starts;         // (rows of the data): where each row is in `packed`: its masks, with a bit for each
                                 // nonzero, and behind them its nonzeros
    const std::int64_t* order;   // (rows of the batch, and of the next one), or null: the rows as they are
    Index next;                  // rows of the next batch
    T* to;                       // (rows of the batch, columns)
};

// Data x (rows, columns), which stays where it is. Random rows of it come from the main memory: the nonzeros of an
// image of a digit are a fifth of it.
template <class T> class Dataset {
  public:
    Dataset(const T* x, Index rows, Index columns);
    Source<T> source(const std::int64_t* order, Index next, T* to) const {
        return {x_, columns_, at<std::uint64_t>(packed_), at<Index>(starts_), order, next, to};
    }
    // All rows, as they are.
    Source<T> all() const { return source(nullptr, 0, nullptr); }
    const T* x() const { return x_; }
    Index rows() const { return rows_; }
    Index columns() const { return columns_; }

  private:
    template <class X> static X* at(const std::optional<Buffer>& buffer) {
        return buffer ? static_cast<X*>(buffer->data) : nullptr;
    }

    const T* x_;
    Index rows_, columns_;
    std::optional<Buffer> packed_, starts_; // or none
};

} // namespace fastnet
