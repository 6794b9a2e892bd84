// The distinct values of an array, found with a hash table.
#pragma once

#include "kernels/simd.hpp"

namespace fastnet::FASTNET_TARGET {

// The distinct values of an array but 0, and which of them each element is.
template <class T> class DistinctValues {
  public:
    explicit DistinctValues(Index most) : capacity_(1) {
        while (capacity_ < 2 * most) {
            capacity_ *= 2;
        }
    }
    Index workspace() const { return capacity_; }

    // x (n) -> values (count; n + 1 at most), with `one` the first of which is 1; which (n) is the element's number in
    // them, or -1 for 0. `slots` (workspace) holds anything. Returns count.
    Index find(const T* x, Index n, bool one, T* values, std::int32_t* which, std::int32_t* slots) const {
        std::memset(slots, 0xff, static_cast<std::size_t>(capacity_) * sizeof *slots);
        Index count = 0;
        if (one) {
            number_of(T(1), values, count, slots);
        }
        for (Index i = 0; i < n; ++i) {
            which[i] = x[i] == 0 ? -1 : number_of(x[i], values, count, slots);
        }
        return count;
    }

  private:
    std::int32_t number_of(T value, T* values, Index& count, std::int32_t* slots) const {
        Bits<T> bits;
        std::memcpy(&bits, &value, sizeof bits);
        const auto mixed = static_cast<std::uint64_t>(bits) * 0x9e3779b97f4a7c15;
        for (Index slot = static_cast<Index>(mixed >> 32) & (capacity_ - 1);; slot = (slot + 1) & (capacity_ - 1)) {
            if (slots[slot] < 0) {
                slots[slot] = static_cast<std::int32_t>(count);
                values[count] = value;
                return static_cast<std::int32_t>(count++);
            }
            if (std::memcmp(&values[slots[slot]], &value, sizeof value) == 0) {
                return slots[slot];
            }
        }
    }

    Index capacity_;
};

} // namespace fastnet::FASTNET_TARGET
