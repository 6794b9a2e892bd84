// Activations: value, derivative and difference of each, side by side.
//
// The difference phi(a + d) - phi(a) is computed without subtracting two values of phi: it keeps its digits however
// small d is. No derivative enters it.
#pragma once

#include "kernels/elementary.hpp"

namespace fastnet::FASTNET_TARGET {

template <class T> FASTNET_INLINE Vec<T> absolute(Vec<T> x) {
    return x < 0 ? -x : x;
}

// `value` where `x` is a number, NaN where it is not.
template <class T> FASTNET_INLINE Vec<T> unless_nan(Vec<T> x, Vec<T> value) {
    return x == x ? value : x;
}

template <class T> FASTNET_INLINE bool any(Vec<Bits<T>> mask) {
    return nonzero_mask<T>(mask ? splat(T(1)) : splat(T(0))) != 0;
}

// The pre-activation a that a difference starts from. For the sigmoid there are also s = sigma(a) and c = sigma(-a),
// because neither can be computed from the other in its tail. For tanh both are taken at 2a.
template <class T> struct BasePoint {
    Vec<T> a, s, c;
};

// The move d of a pre-activation, and u = expm1(|d|) (for tanh expm1(|2d|)) where the activation needs it.
template <class T> struct Move {
    Vec<T> d, u;
};

// A call is `Small` where all its |d| are at most this: series then replace exponentials and divisions, to the same
// accuracy (the sixth power of 2|d| is below rounding).
template <class T> inline constexpr T small_move = sizeof(T) == 8 ? T(5e-4) : T(0.02);

// Each activation has
//   value(a), derivative(a);
//   base_point(a) and move<Small>(d), for difference<Small>(base_point, move), which is phi(a + d) - phi(a);
//   kinked: whether its derivative jumps at a = 0; bends: whether it is curved elsewhere;
//   steepest: the greatest slope, which bounds a difference relative to its move; infinite where the value jumps.
template <class T> struct Identity {
    using V = Vec<T>;
    static constexpr bool kinked = false, bends = false;
    T steepest() const { return 1; }
    V value(V a) const { return a; }
    V derivative(V) const { return splat(T(1)); }
    BasePoint<T> base_point(V a) const { return {a, a, a}; }
    template <bool> Move<T> move(V d) const { return {d, d}; }
    template <bool> V difference(const BasePoint<T>&, const Move<T>& move) const { return move.d; }
};

template <class T> struct Step {
    using V = Vec<T>;
    static constexpr bool kinked = true, bends = false;
    T steepest() const { return __builtin_huge_val(); }
    V value(V a) const { return unless_nan<T>(a, a > 0 ? splat(T(1)) : splat(T(0))); }
    V derivative(V a) const { return unless_nan<T>(a, splat(T(0))); }
    BasePoint<T> base_point(V a) const { return {a, a, a}; }
    template <bool> Move<T> move(V d) const { return {d, d}; }
    template <bool> V difference(const BasePoint<T>& at, const Move<T>& move) const {
        return value(at.a + move.d) - value(at.a);
    }
};

template <class T> struct Sigmoid {
    using V = Vec<T>;
    static constexpr bool kinked = false, bends = true;
    T steepest() const { return T(0.25); }
    // 1 / (1 + e^-a), through e^-|a| <= 1: no overflow, and both tails keep their digits.
    V value(V a) const {
        const V e = exp<T>(-absolute<T>(a));
        return (a < 0 ? e : splat(T(1))) / (1 + e);
    }
    V derivative(V a) const {
        const V e = exp<T>(-absolute<T>(a));
        const V reciprocal = 1 / (1 + e);
        return e * reciprocal * reciprocal;
    }
    BasePoint<T> base_point(V a) const {
        const V e = exp<T>(-absolute<T>(a));
        const V near = 1 / (1 + e), far = e * near;
        return {a, a < 0 ? far : near, a < 0 ? near : far};
    }
    template <bool Small> Move<T> move(V d) const {
        const V size = absolute<T>(d);
        return {d, Small ? short_expm1<T, 4>(size) : expm1<T>(size > longest ? splat(longest) : size)};
    }
    // For d > 0: s c u / (1 + s u); for d < 0 the same with a and d mirrored. 1 + s u > 1: nothing cancels.
    template <bool Small> V difference(const BasePoint<T>& at, const Move<T>& move) const {
        const V w = move.d > 0 ? at.s : at.c;
        const V rise = at.s * at.c * move.u;
        const V size = Small ? rise * short_reciprocal1p<T, 5>(w * move.u) : rise / (1 + w * move.u);
        const V exact = move.d > 0 ? size : -size;
        if constexpr (Small) {
            return exact;
        }
        const auto far = absolute<T>(move.d) > longest;
        return any<T>(far) ? (far ? plain(at, move.d) : exact) : exact;
    }

  private:
    static constexpr T longest = 30;
    // The subtraction of two values, from the side where they are small: for moves so long that nothing cancels.
    V plain(const BasePoint<T>& at, V d) const {
        const V b = at.a + d;
        const auto right = (at.a > 0) & (b > 0);
        const V after = value(right ? -b : b);
        return right ? at.c - after : after - at.s;
    }
};

// tanh a = 2 sigma(2a) - 1.
template <class T> struct Tanh {
    using V = Vec<T>;
    static constexpr bool kinked = false, bends = true;
    T steepest() const { return 1; }
    // -expm1(-2|a|) / (2 + expm1(-2|a|)), with the sign of a.
    V value(V a) const {
        const V u = expm1<T>(-2 * absolute<T>(a));
        const V t = u / (2 + u); // minus the result's size
        return a < 0 ? t : -t;
    }
    V derivative(V a) const { return 4 * Sigmoid<T>{}.derivative(2 * a); }
    BasePoint<T> base_point(V a) const { return Sigmoid<T>{}.base_point(2 * a); }
    template <bool Small> Move<T> move(V d) const { return Sigmoid<T>{}.template move<Small>(2 * d); }
    template <bool Small> V difference(const BasePoint<T>& at, const Move<T>& move) const {
        return 2 * Sigmoid<T>{}.template difference<Small>(at, move);
    }
};

template <class T> struct LeakyRelu {
    using V = Vec<T>;
    static constexpr bool kinked = true, bends = false;
    T slope;
    T steepest() const { return slope > 1 ? slope : slope < -1 ? -slope : T(1); }
    V value(V a) const { return a > 0 ? a : slope * a; }
    V derivative(V a) const { return unless_nan<T>(a, a > 0 ? splat(T(1)) : splat(slope)); }
    BasePoint<T> base_point(V a) const { return {a, a, a}; }
    template <bool> Move<T> move(V d) const { return {d, d}; }
    // Linear on either side; across the kink each side's part, where |a| <= |d|, so that nothing cancels.
    template <bool> V difference(const BasePoint<T>& at, const Move<T>& move) const {
        const V b = at.a + move.d;
        const V same = at.a > 0 ? move.d : slope * move.d;
        const V across = at.a > 0 ? slope * b - at.a : b - slope * at.a;
        return (at.a > 0) == (b > 0) ? same : across;
    }
};

template <class T> struct Relu : LeakyRelu<T> {
    Relu() : LeakyRelu<T>{T(0)} {}
    // 0 for -inf, where slope * a is NaN.
    Vec<T> value(Vec<T> a) const { return a < 0 ? splat(T(0)) : a; }
};

// Whether a move d from a crosses the kink at 0.
template <class T> FASTNET_INLINE Vec<Bits<T>> changes_side(Vec<T> a, Vec<T> d) {
    return (a > 0) != (a + d > 0);
}

// f(phi) with the activation as a type, so that the choice is made once and not per element. `constant` is that of
// `Layer`.
template <class T, class F> FASTNET_INLINE decltype(auto) with_activation(Activation kind, T constant, F&& f) {
    switch (kind) {
    case Activation::step:
        return f(Step<T>{});
    case Activation::sigmoid:
        return f(Sigmoid<T>{});
    case Activation::tanh:
        return f(Tanh<T>{});
    case Activation::relu:
        return f(Relu<T>{});
    case Activation::leaky_relu:
        return f(LeakyRelu<T>{constant});
    case Activation::identity:
        break;
    }
    return f(Identity<T>{});
}

} // namespace fastnet::FASTNET_TARGET
