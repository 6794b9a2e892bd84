// A move of a unit's pre-activation: whose it is, where its effect goes, and the obstacles that it can meet.
#pragma once

#include "kernels/base_points.hpp"

namespace fastnet::FASTNET_TARGET {

// What a move can meet on its way to the loss, as bits.
namespace obstacle {
inline constexpr unsigned char kink = 1; // a unit crossed its kink
inline constexpr unsigned char far = 2;  // something smooth moved by more than about the distance in which it bends,
                                         // or across a jump of its second derivative
} // namespace obstacle

// Which units of a layer are meant, in one row.
struct UnitMask {
    enum Kind { all, none, some } kind;
    const bool* which = nullptr; // (outputs) for some

    // Whether any of the units [first, first + count) is meant.
    bool any(Index first, Index count) const {
        if (kind != some) {
            return kind == all;
        }
        for (Index j = first; j < first + count; ++j) {
            if (which[j]) {
                return true;
            }
        }
        return false;
    }
};

// A vector of layer l's units from unit j on, in one row of the chunk; the first `units` lanes are units.
struct UnitBlock {
    Index l, row, j, units;
};

// Moves d (count) of the pre-activations, the same for each unit of a layer.
template <class T> struct Moves {
    const T* d;
    Index count;
    T longest; // the greatest |d|
};

// Where the effects of the moves of a layer's units go.
template <class T> struct Results {
    T* effects; // (moves, stride): psi(d) - psi(-d), or psi(d) + psi(-d)
    Index stride;
    unsigned char* obstacles; // (outputs): what any of the unit's moves meets is added
};

// Adds an obstacle to those of the units whose lane of the mask is set.
template <class T> void record(unsigned char* obstacles, Index units, unsigned char what, Vec<Bits<T>> mask) {
    if (any<T>(mask)) {
        for (Index i = 0; i < units; ++i) {
            obstacles[i] |= mask[i] != 0 ? what : 0;
        }
    }
}

template <class T> bool bends_somewhere(const Network<T>& net) {
    bool bends = false;
    for (Index l = 0; l < net.depth; ++l) {
        bends |= with_activation(net.layers[l].activation, net.layers[l].constant,
                                 []<class Phi>(Phi) { return Phi::bends; });
    }
    return bends;
}

// Calls record_mask(obstacle, mask) for what moves d of the pre-activations at `point` meet in an activation further
// on. `smooth` is whether any activation of the network bends.
template <class Phi, class T, class Record>
FASTNET_INLINE void find_obstacles(const BasePoint<T>& point, Vec<T> d, bool smooth, Record&& record_mask) {
    if constexpr (Phi::kinked) {
        record_mask(obstacle::kink, changes_side<T>(point.a, d));
        if (smooth) { // A bent path may have crossed a kink and come back: coming near one is not safe either.
            record_mask(obstacle::far, changes_side<T>(point.a, 2 * d));
        }
    }
    if constexpr (Phi::seamed) {
        record_mask(obstacle::far, changes_side<T>(point.a, 2 * d));
    }
    if constexpr (Phi::bends) {
        record_mask(obstacle::far, absolute<T>(d) > 1);
    }
}

// Records what the moves of a block's units themselves meet at their own activation.
template <class Phi, class T>
void find_unit_obstacles(Phi, const BasePoint<T>& point, const UnitBlock& block, const Moves<T>& moves,
                         unsigned char* obstacles) {
    if constexpr (Phi::kinked || Phi::seamed) {
        for (Index v = 0; v < moves.count; ++v) {
            const T d = moves.d[v];
            record<T>(obstacles, block.units, Phi::kinked ? obstacle::kink : obstacle::far,
                      changes_side<T>(point.a, splat(d)) | changes_side<T>(point.a, splat(-d)));
        }
    }
    if (Phi::bends && moves.longest > 1) {
        record<T>(obstacles, block.units, obstacle::far, Vec<Bits<T>>{} == 0);
    }
}

// Makes the effects of units that are not wanted 0.
template <class T> void clear_others(UnitMask wanted, Index units, Index count, const Results<T>& results) {
    for (Index j = 0; j < units; ++j) {
        if (!wanted.which[j]) {
            for (Index v = 0; v < count; ++v) {
                results.effects[v * results.stride + j] = 0;
            }
        }
    }
}

// Makes what stands behind the columns of padded rows 0.
template <class T> void clear_padding(T* rows, Index count, Index columns) {
    const Index stride = padded<T>(columns), padding = stride - columns;
    if (padding > 0) {
        for (Index r = 0; r < count; ++r) {
            std::memset(rows + r * stride + columns, 0, static_cast<std::size_t>(padding) * sizeof(T));
        }
    }
}

} // namespace fastnet::FASTNET_TARGET
