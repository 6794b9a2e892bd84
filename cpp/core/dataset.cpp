#include "core/dataset.hpp"

#include <algorithm>
#include <atomic>
#include <bit>
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
// decided by whoever is first, so the rows take no more memory than they need, and nobody waits for another's count.
template <class T> Dataset<T>::Dataset(const T* x, Index rows, Index columns) : x_(x), rows_(rows), columns_(columns) {
    constexpr Index unit = sizeof(std::uint64_t), size = sizeof(T);
    const Index groups = (columns + mask_columns - 1) / mask_columns, most = (rows * columns - 1) / 2;
    if (looks_dense(x, rows, columns, groups)) {
        return;
    }
    starts_.emplace(static_cast<std::size_t>(rows) * sizeof(Index));
    // Each row begins with a whole unit. What is not written takes no memory.
    packed_.emplace(static_cast<std::size_t>(rows * (groups + 1) * unit + most * size));
    std::atomic<Index> nonzeros{0}, taken{0};
    for_each_share(rows, [&](Index first, Index end) {
        const Buffer buffer(static_cast<std::size_t>(share * groups * unit));
        std::uint64_t* masks = static_cast<std::uint64_t*>(buffer.data);
        Index found = 0, needed = 0;
        for (Index row = first; row < end; ++row, masks += groups) {
            const Index of_row = kernels<T>().find_nonzeros(x + row * columns, columns, masks);
            at<Index>(starts_)[row] = needed; // in the share
            found += of_row;
            needed += groups + (of_row * size + unit - 1) / unit;
        }
        if (nonzeros.fetch_add(found) + found > most) {
            return;
        }
        const Index start = taken.fetch_add(needed);
        masks = static_cast<std::uint64_t*>(buffer.data);
        for (Index row = first; row < end; ++row, masks += groups) { // as many as were counted, even if x is changed
            std::uint64_t* const to = at<std::uint64_t>(packed_) + (at<Index>(starts_)[row] += start);
            std::copy(masks, masks + groups, to);
            T* value = reinterpret_cast<T*>(to + groups);
            for (Index g = 0; g < groups; ++g) {
                const T* const values = x + row * columns + g * mask_columns;
                for (std::uint64_t mask = masks[g]; mask != 0; mask &= mask - 1) {
                    *value++ = values[std::countr_zero(mask)];
                }
            }
        }
    });
    if (nonzeros > most) {
        starts_.reset();
        packed_.reset();
    }
}

template class Dataset<float>;
template class Dataset<double>;

} // namespace fastnet
