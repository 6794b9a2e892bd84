#include "core/dataset.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <iterator>
#include <utility>
#include <vector>

#include "core/dispatch.hpp"
#include "core/threads.hpp"

namespace fastnet {
namespace {

constexpr Index share = 64; // rows: 200 KB of images stay in a core's cache between two passes over them

// f(first, end) for shares of the rows, which the threads take.
template <class F> void for_each_share(Index rows, F&& f) {
    struct Job {
        Index rows;
        F& f;
    } job{rows, f};
    parallel_for((rows + share - 1) / share, num_threads(),
                 [](void* context, Index task, int) {
                     const Job& work = *static_cast<Job*>(context);
                     work.f(task * share, std::min(work.rows, (task + 1) * share));
                 },
                 &job);
}

// f(value) for each nonzero of a row, whose masks are given.
template <class T, class F> void for_each_nonzero(const T* row, const std::uint64_t* masks, Index groups, F&& f) {
    for (Index g = 0; g < groups; ++g, row += mask_columns) {
        for (std::uint64_t mask = masks[g]; mask != 0; mask &= mask - 1) {
            f(row[std::countr_zero(mask)]);
        }
    }
}

// What rows that are spread over all look like.
template <class T> struct Sample {
    bool dense;                      // whether at least half of their elements are nonzeros
    std::unique_ptr<Codes<T>> codes; // for their nonzeros; null if these have too many values

    Sample(const T* x, Index rows, Index columns, Index groups) : codes(std::make_unique<Codes<T>>()) {
        const Index sampled = std::min<Index>(rows, 256);
        std::vector<std::uint64_t> masks(static_cast<std::size_t>(groups));
        Index found = 0;
        for (Index s = 0; s < sampled; ++s) {
            const T* const row = x + s * rows / sampled * columns;
            found += kernels<T>().find_nonzeros(row, columns, masks.data());
            for_each_nonzero(row, masks.data(), groups, [&](T value) {
                if (codes && !codes->add(value)) {
                    codes.reset();
                }
            });
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
    Sample<T> sample(x, rows, columns, groups());
    if (sample.dense) {
        return;
    }
    if (sample.codes && pack(sample.codes.get())) {
        codes_ = std::move(sample.codes);
    } else {
        pack(nullptr);
    }
}

// One pass over x: while a few rows are in the cache, their nonzeros are found, counted and copied. Where they go is
// decided by whoever is first, so the rows take no more memory than they need, and nobody waits for another's count.
template <class T> bool Dataset<T>::pack(const Codes<T>* codes) {
    constexpr Index unit = sizeof(std::uint64_t);
    const Index groups = this->groups(), most = (rows_ * columns_ - 1) / 2;
    const Index size = codes ? 1 : static_cast<Index>(sizeof(T)); // of what is kept of a nonzero
    starts_.emplace(static_cast<std::size_t>(rows_) * sizeof(Index));
    // Each row begins with a whole unit. What is not written takes no memory.
    packed_.emplace(static_cast<std::size_t>(rows_ * (groups + 1) * unit + most * size));
    std::atomic<Index> nonzeros{0}, taken{0};
    std::atomic<bool> fits{true}; // whether zeros are not too few, and each nonzero has a code
    for_each_share(rows_, [&](Index first, Index end) {
        const Buffer buffer(static_cast<std::size_t>(share * groups * unit));
        std::uint64_t* masks = static_cast<std::uint64_t*>(buffer.data);
        Index found = 0, needed = 0;
        for (Index row = first; row < end && fits; ++row, masks += groups) {
            const Index of_row = kernels<T>().find_nonzeros(x_ + row * columns_, columns_, masks);
            at<Index>(starts_)[row] = needed; // in the share
            found += of_row;
            needed += groups + (of_row * size + unit - 1) / unit;
        }
        if (!fits || nonzeros.fetch_add(found) + found > most) {
            fits = false;
            return;
        }
        const Index start = taken.fetch_add(needed);
        masks = static_cast<std::uint64_t*>(buffer.data);
        for (Index row = first; row < end; ++row, masks += groups) { // as many as were counted, even if x is changed
            std::uint64_t* const to = at<std::uint64_t>(packed_) + (at<Index>(starts_)[row] += start);
            std::copy(masks, masks + groups, to);
            if (codes) {
                auto* code = reinterpret_cast<std::uint8_t*>(to + groups);
                bool all = true;
                for_each_nonzero(x_ + row * columns_, masks, groups, [&](T value) {
                    *code = codes->find(value);
                    all &= *code++ != 0;
                });
                if (!all) {
                    fits = false;
                }
            } else {
                T* kept = reinterpret_cast<T*>(to + groups);
                for_each_nonzero(x_ + row * columns_, masks, groups, [&](T value) { *kept++ = value; });
            }
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
