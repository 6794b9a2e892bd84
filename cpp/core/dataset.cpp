#include "core/dataset.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
#include <vector>

#include "core/dispatch.hpp"
#include "core/threads.hpp"

namespace fastnet {
namespace {

// f(first, end) for shares of the rows, which the threads take.
template <class F> void for_each_share(Index rows, F&& f) {
    constexpr Index share = 64; // rows: 200 KB of images stay in a core's cache between two passes over them
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

// Whether at least half of the elements of some rows, spread over all, are nonzeros.
template <class T> bool looks_dense(const T* x, Index rows, Index columns, Index groups) {
    const Index sampled = std::min<Index>(rows, 256);
    std::vector<std::uint64_t> masks(static_cast<std::size_t>(groups));
    Index found = 0;
    for (Index s = 0; s < sampled; ++s) {
        found += kernels<T>().find_nonzeros(x + s * rows / sampled * columns, columns, masks.data());
    }
    return 2 * found >= sampled * columns;
}

} // namespace

// One pass over x: while a few rows are in the cache, their nonzeros are found, counted and copied. Where they go is
// decided by whoever is first, so the values are as many as they are, and nobody waits for another's count.
template <class T> Dataset<T>::Dataset(const T* x, Index rows, Index columns) : x_(x), rows_(rows), columns_(columns) {
    const Index groups = (columns + mask_columns - 1) / mask_columns, most = (rows * columns - 1) / 2;
    if (looks_dense(x, rows, columns, groups)) {
        return;
    }
    masks_.emplace(static_cast<std::size_t>(rows * groups) * sizeof(std::uint64_t));
    starts_.emplace(static_cast<std::size_t>(rows) * sizeof(Index));
    values_.emplace(static_cast<std::size_t>(most) * sizeof(T)); // what is not written takes no memory
    std::atomic<Index> taken{0};
    for_each_share(rows, [&](Index first, Index end) {
        Index found = 0;
        for (Index row = first; row < end; ++row) {
            at<Index>(starts_)[row] = found; // in the share
            found += kernels<T>().find_nonzeros(x + row * columns, columns, at<std::uint64_t>(masks_) + row * groups);
        }
        const Index start = taken.fetch_add(found);
        if (start + found > most) {
            return;
        }
        for (Index row = first; row < end; ++row) { // as many as were counted, even if x is changed meanwhile
            T* to = at<T>(values_) + (at<Index>(starts_)[row] += start);
            for (Index g = 0; g < groups; ++g) {
                const T* const values = x + row * columns + g * mask_columns;
                for (std::uint64_t mask = at<std::uint64_t>(masks_)[row * groups + g]; mask != 0; mask &= mask - 1) {
                    *to++ = values[std::countr_zero(mask)];
                }
            }
        }
    });
    if (taken > most) {
        masks_.reset();
        starts_.reset();
        values_.reset();
    }
}

template class Dataset<float>;
template class Dataset<double>;

} // namespace fastnet
