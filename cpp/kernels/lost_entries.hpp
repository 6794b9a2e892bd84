// Entries of a gradient that exact differences leave open: they are NaN where a move loses digits, or where something
// on its way overflows, although the loss is finite. The loop, which is the definition, gives them.
#pragma once

#include "kernels/workspace.hpp"

namespace fastnet::FASTNET_TARGET {

// Replaces the entries of a gradient that are not finite. for_each_array(f) calls f(array, size) for each of its
// arrays, evaluate(entries, count, differences) gives what belongs in the entries with these flat numbers.
template <class T, class Arrays, class Evaluate>
void replace_lost_entries(Arrays&& for_each_array, Evaluate&& evaluate) {
    const auto for_each_lost = [&](auto&& f) {
        Index first = 0;
        for_each_array([&](T* array, Index size) {
            for (Index i = 0; i < size; ++i) {
                if (!__builtin_isfinite(array[i])) {
                    f(array[i], first + i);
                }
            }
            first += size;
        });
    };
    Index count = 0;
    for_each_lost([&](T&, Index) { ++count; });
    if (count == 0) {
        return;
    }
    const Array<std::int64_t> entries(count);
    const Array<T> differences(count);
    Index next = 0;
    for_each_lost([&](T&, Index entry) { entries[next++] = entry; });
    evaluate(entries.data(), count, differences.data());
    next = 0;
    for_each_lost([&](T& lost, Index) { lost = differences[next++]; });
}

} // namespace fastnet::FASTNET_TARGET
