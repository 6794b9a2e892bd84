// The random bits of dropout's masks: Philox4x64-10, element by element the numbers of NumPy's generator of that name.
//
// J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, Parallel random numbers: as easy as 1, 2, 3, SC 2011. Block b of
// a mask is a function of the key, the mask's number and b alone, so that threads share out a mask.
#pragma once

#include "kernels/simd.hpp"

namespace fastnet::FASTNET_TARGET {

struct Philox {
    std::uint64_t key[2];
    std::uint64_t number; // of the mask

    static constexpr Index block = 4;

    // Four random numbers of 64 bits.
    FASTNET_INLINE void fill(Index b, std::uint64_t* to) const {
        __extension__ using Wide = unsigned __int128;
        std::uint64_t c0 = static_cast<std::uint64_t>(b) + 1, c1 = 0, c2 = number,
                      c3 = 0; // NumPy counts before it draws
        std::uint64_t k0 = key[0], k1 = key[1];
        for (int round = 0; round < 10; ++round) {
            const Wide p0 = static_cast<Wide>(0xD2E7470EE14C6C93) * c0, p1 = static_cast<Wide>(0xCA5A826395121157) * c2;
            c0 = static_cast<std::uint64_t>(p1 >> 64) ^ c1 ^ k0;
            c2 = static_cast<std::uint64_t>(p0 >> 64) ^ c3 ^ k1;
            c1 = static_cast<std::uint64_t>(p1);
            c3 = static_cast<std::uint64_t>(p0);
            k0 += 0x9E3779B97F4A7C15;
            k1 += 0xBB67AE8584CAA73B;
        }
        to[0] = c0;
        to[1] = c1;
        to[2] = c2;
        to[3] = c3;
    }
};

// mask (n) = elements [first, first + n) of a mask: 0 with probability `ratio`, 1 / (1 - ratio) else.
template <class T> void fill_mask(const Philox& random, double ratio, Index first, Index n, T* mask) {
    const T kept = static_cast<T>(1 / (1 - ratio));
    constexpr double unit = 1.0 / 9007199254740992.0; // 2^-53
    std::uint64_t bits[Philox::block];
    for (Index i = 0; i < n;) {
        const Index skipped = (first + i) % Philox::block, count = min_index(Philox::block - skipped, n - i);
        random.fill((first + i) / Philox::block, bits);
        for (Index k = 0; k < count; ++k) {
            mask[i + k] = static_cast<double>(bits[skipped + k] >> 11) * unit >= ratio ? kept : T(0);
        }
        i += count;
    }
}

} // namespace fastnet::FASTNET_TARGET
