#include "core/dataset.hpp"

#include <algorithm>
#include <bit>
#include <utility>

#include "core/threads.hpp"

namespace fastnet {
namespace {

// f(row) for every row, shared out among the threads.
template <class F> void for_each_row(Index rows, F&& f) {
    constexpr Index share = 256;
    struct Job {
        Index rows;
        F& f;
    } job{rows, f};
    parallel_for((rows + share - 1) / share, num_threads(),
                 [](void* context, Index task, int) {
                     const Job& work = *static_cast<Job*>(context);
                     for (Index row = task * share; row < std::min(work.rows, (task + 1) * share); ++row) {
                         work.f(row);
                     }
                 },
                 &job);
}

} // namespace

template <class T> Dataset<T>::Dataset(const T* x, Index rows, Index columns) : x_(x), rows_(rows), columns_(columns) {
    const Index groups = (columns + mask_columns - 1) / mask_columns;
    masks_.emplace(static_cast<std::size_t>(rows * groups) * sizeof(std::uint64_t));
    starts_.emplace(static_cast<std::size_t>(rows) * sizeof(Index));
    auto* masks = at<std::uint64_t>(masks_);
    auto* starts = at<Index>(starts_);
    for_each_row(rows, [&](Index row) {
        Index found = 0;
        for (Index g = 0; g < groups; ++g) {
            const T* values = x + row * columns + g * mask_columns;
            std::uint64_t mask = 0;
            for (Index i = 0; i < std::min(mask_columns, columns - g * mask_columns); ++i) {
                mask |= static_cast<std::uint64_t>(values[i] != 0) << i;
            }
            masks[row * groups + g] = mask;
            found += std::popcount(mask);
        }
        starts[row] = found;
    });
    Index total = 0;
    for (Index row = 0; row < rows; ++row) {
        total += std::exchange(starts[row], total);
    }
    if (2 * total >= rows * columns) {
        masks_.reset();
        return;
    }
    values_.emplace(static_cast<std::size_t>(total) * sizeof(T));
    for_each_row(rows, [&](Index row) { // as many as were counted, even if x is changed meanwhile
        T* to = at<T>(values_) + starts[row];
        for (Index g = 0; g < groups; ++g) {
            const T* const values = x + row * columns + g * mask_columns;
            for (std::uint64_t mask = masks[row * groups + g]; mask != 0; mask &= mask - 1) {
                *to++ = values[std::countr_zero(mask)];
            }
        }
    });
}

template class Dataset<float>;
template class Dataset<double>;

} // namespace fastnet
