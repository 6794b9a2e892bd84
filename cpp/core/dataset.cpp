#include "core/dataset.hpp"

#include <algorithm>
#include <atomic>
#include <iterator>
#include <utility>
#include <vector>

#include "core/dispatch.hpp"
#include "core/threads.hpp"

namespace fastnet {
namespace {

// f(first, end) for shares of the rows, each of so many bytes, which the threads take. A share stays in a core's cache.
template <class F> void for_each_share(Index rows, Index bytes, F&& f) {
    struct Job {
        Index rows, share;
        F& f;
    } job{rows, std::clamp<Index>((Index{256} << 10) / bytes, 1, 64), f};
    parallel_for((rows + job.share - 1) / job.share, num_threads(),
                 [](void* context, Index task, int) {
                     const Job& work = *static_cast<Job*>(context);
                     work.f(task * work.share, std::min(work.rows, (task + 1) * work.share));
                 },
                 &job);
}

// Rows without their zeros, one after the other, each with its masks.
template <class T> struct PackedRows {
    const Index groups; // of columns

    PackedRows(Index most, Index columns)
        : groups(mask_groups(columns)), counts(static_cast<std::size_t>(most)), columns_(columns),
          masks_(static_cast<std::size_t>(most * groups) * sizeof(std::uint64_t)),
          nonzeros_(static_cast<std::size_t>(most * columns + most_lanes) * sizeof(T)) {}

    void add(const T* x) {
        Index& count = counts[static_cast<std::size_t>(rows++)];
        count = kernels<T>().pack_row(x, columns_, masks(rows - 1), nonzeros() + size);
        size += count;
    }
    void clear() { rows = size = 0; }

    std::uint64_t* masks(Index row) { return static_cast<std::uint64_t*>(masks_.data) + row * groups; } // (groups)
    T* nonzeros() { return static_cast<T*>(nonzeros_.data); }                                           // (size)

    Index rows = 0, size = 0;  // how many rows and nonzeros there are
    std::vector<Index> counts; // (rows): of nonzeros

  private:
    static constexpr Index most_lanes = 64 / sizeof(T); // that are written behind the nonzeros

    const Index columns_;
    const Buffer masks_, nonzeros_;
};

// What rows that are spread over all look like.
template <class T> struct Sample {
    bool dense;                      // whether at least half of their elements are nonzeros
    std::unique_ptr<Codes<T>> codes; // for their nonzeros; null if these have too many values

    Sample(const T* x, Index rows, Index columns) : codes(std::make_unique<Codes<T>>()) {
        const Index sampled = std::min<Index>(rows, 256);
        PackedRows<T> packed(1, columns);
        Index found = 0;
        for (Index s = 0; s < sampled; ++s) {
            packed.clear();
            packed.add(x + s * rows / sampled * columns);
            found += packed.size;
            for (Index i = 0; codes && i < packed.size; ++i) {
                if (!codes->add(packed.nonzeros()[i])) {
                    codes.reset();
                }
            }
        }
        dense = 2 * found >= sampled * columns;
    }
};

} // namespace

template <class T> bool Codes<T>::add(T value) {
    if (find(value) != 0) {
        return true;
    }
    if (count_ == std::size(values_)) {
        return false;
    }
    std::size_t slot = slot_of(value);
    while (slots_[slot] != 0) {
        slot = (slot + 1) % std::size(slots_);
    }
    values_[count_] = value;
    slots_[slot] = static_cast<std::uint8_t>(count_++);
    return true;
}

template <class T> std::uint8_t Codes<T>::find_behind(T value) const {
    for (std::size_t slot = slot_of(value); slots_[slot] != 0; slot = (slot + 1) % std::size(slots_)) {
        if (same(values_[slots_[slot]], value)) {
            return slots_[slot];
        }
    }
    return 0;
}

template <class T> Dataset<T>::Dataset(const T* x, Index rows, Index columns) : x_(x), rows_(rows), columns_(columns) {
    Sample<T> sample(x, rows, columns);
    if (sample.dense) {
        return;
    }
    if (sample.codes && pack(sample.codes.get())) {
        codes_ = std::move(sample.codes);
    } else {
        pack(nullptr);
    }
}

// One pass over x: a few rows are packed, and then copied to their place. It is decided by whoever is first, so the
// rows take no more memory than they need, and nobody waits for another's count.
template <class T> bool Dataset<T>::pack(const Codes<T>* codes) {
    constexpr Index unit = sizeof(std::uint64_t);
    const Index groups = mask_groups(columns_), most = (rows_ * columns_ - 1) / 2;
    const Index size = codes ? 1 : static_cast<Index>(sizeof(T)); // of what is kept of a nonzero
    const auto units = [&](Index nonzeros) { return groups + (nonzeros * size + unit - 1) / unit; }; // of a row
    starts_.emplace(static_cast<std::size_t>(rows_) * sizeof(Index));
    // Each row begins with a whole unit. What is not written takes no memory.
    packed_.emplace(static_cast<std::size_t>(rows_ * (groups + 1) * unit + most * size));
    std::atomic<Index> nonzeros{0}, taken{0};
    std::atomic<bool> fits{true}; // whether zeros are not too few, and each nonzero has a code
    for_each_share(rows_, columns_ * static_cast<Index>(sizeof(T)), [&](Index first, Index end) {
        if (!fits) {
            return;
        }
        PackedRows<T> packed(end - first, columns_);
        for (Index row = first; row < end; ++row) {
            packed.add(x_ + row * columns_);
        }
        Index needed = 0;
        for (const Index count : packed.counts) {
            needed += units(count);
        }
        if (nonzeros.fetch_add(packed.size) + packed.size > most) {
            fits = false;
            return;
        }
        Index start = taken.fetch_add(needed);
        const T* value = packed.nonzeros();
        bool all = true; // whether each has a code
        for (Index row = 0; row < packed.rows; ++row) {
            const Index count = packed.counts[static_cast<std::size_t>(row)];
            std::uint64_t* const to = std::copy_n(packed.masks(row), groups, at<std::uint64_t>(packed_) + start);
            at<Index>(starts_)[first + row] = start;
            start += units(count);
            if (codes) {
                std::transform(value, value + count, reinterpret_cast<std::uint8_t*>(to), [&](T v) {
                    const std::uint8_t code = codes->find(v);
                    all &= code != 0;
                    return code;
                });
            } else {
                std::copy_n(value, count, reinterpret_cast<T*>(to));
            }
            value += count;
        }
        if (!all) {
            fits = false;
        }
    });
    if (!fits) {
        starts_.reset();
        packed_.reset();
    }
    return fits;
}

template class Dataset<float>;
template class Dataset<double>;

} // namespace fastnet
