// Activations: value, derivative and difference of each, side by side.
//
// The difference phi(a + d) - phi(a) is computed without subtracting two values of phi: it keeps its digits however
// small d is. No derivative enters it.
#pragma once

#include "kernels/elementary.hpp"

namespace fastnet::FASTNET_TARGET {

// The bit that is a number's sign.
template <class T> inline constexpr Bits<T> sign_bit = std::numeric_limits<Bits<T>>::min();

template <class T> FASTNET_INLINE Vec<T> absolute(Vec<T> x) {
    return from_bits<T>(as_bits<T>(x) & ~sign_bit<T>);
}

template <class T> FASTNET_INLINE Vec<T> negative_absolute(Vec<T> x) {
    return from_bits<T>(as_bits<T>(x) | sign_bit<T>);
}

// |size| with the sign of x.
template <class T> FASTNET_INLINE Vec<T> with_sign_of(Vec<T> x, Vec<T> size) {
    return from_bits<T>((as_bits<T>(size) & ~sign_bit<T>) | (as_bits<T>(x) & sign_bit<T>));
}

// `value` where `x` is a number, NaN where it is not.
template <class T> FASTNET_INLINE Vec<T> unless_nan(Vec<T> x, Vec<T> value) {
    return x == x ? value : x;
}

template <class T> FASTNET_INLINE bool any(Vec<Bits<T>> mask) {
    return nonzero_mask<T>(mask ? splat(T(1)) : splat(T(0))) != 0;
}

template <class T> T greatest_size(const T* x, Index n) {
    Vec<T> sizes{};
    for_each_vector<T>(n, [&](Index i, Index count) { sizes = max<T>(absolute<T>(load(x + i, count)), sizes); });
    return greatest<T>(sizes);
}

// The pre-activation a that a difference starts from. For the sigmoid there are also s = sigma(a) and c = sigma(-a),
// because neither can be computed from the other in its tail. For tanh both are taken at 2a. The other activations say
// what they keep there.
template <class T> struct BasePoint {
    Vec<T> a, s, c;
};

// The move d of a pre-activation, and u = expm1(|d|) (for tanh expm1(|2d|), for softplus and ELU expm1(d)) where the
// activation needs it.
template <class T> struct Move {
    Vec<T> d, u;
};

// A call is `Small` where all its |d| are at most this: series then replace exponentials and divisions, to the same
// accuracy (the sixth power of 2|d| is below rounding).
template <class T> inline constexpr T small_move = sizeof(T) == 8 ? T(5e-4) : T(0.02);

// Each activation has
//   value(a), derivative(a);
//   base_point(a) and move<Small>(d), for difference<Small>(base_point, move), which is phi(a + d) - phi(a);
//   kinked: whether its derivative jumps at a = 0; seamed: whether only its second derivative does; bends: whether it
//   is curved elsewhere;
//   steepest: the greatest slope, which bounds a difference relative to its move; infinite where the value jumps.
template <class T> struct Identity {
    using V = Vec<T>;
    static constexpr bool kinked = false, seamed = false, bends = false;
    T steepest() const { return 1; }
    V value(V a) const { return a; }
    V derivative(V) const { return splat(T(1)); }
    BasePoint<T> base_point(V a) const { return {a, a, a}; }
    template <bool> Move<T> move(V d) const { return {d, d}; }
    template <bool> V difference(const BasePoint<T>&, const Move<T>& move) const { return move.d; }
};

template <class T> struct Step {
    using V = Vec<T>;
    static constexpr bool kinked = true, seamed = false, bends = false;
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
    static constexpr bool kinked = false, seamed = false, bends = true;
    T steepest() const { return T(0.25); }
    // 1 / (1 + e^-a), through e^-|a| <= 1: no overflow, and both tails keep their digits.
    V value(V a) const {
        const V e = exp_negative<T>(negative_absolute<T>(a));
        return (a < 0 ? e : splat(T(1))) / (1 + e);
    }
    V derivative(V a) const {
        const V e = exp_negative<T>(negative_absolute<T>(a));
        const V reciprocal = 1 / (1 + e);
        return e * reciprocal * reciprocal;
    }
    BasePoint<T> base_point(V a) const {
        const V e = exp_negative<T>(negative_absolute<T>(a));
        const V near = 1 / (1 + e), far = e * near;
        return {a, a < 0 ? far : near, a < 0 ? near : far};
    }
    template <bool Small> Move<T> move(V d) const {
        const V size = absolute<T>(d);
        return {d, Small ? short_expm1<T, 4>(size) : expm1<T>(at_most<T>(size, longest))};
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

    static constexpr T longest = 30; // beyond it, values are subtracted

  private:
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
    static constexpr bool kinked = false, seamed = false, bends = true;
    T steepest() const { return 1; }
    // (1 - e) / (1 + e) for e = e^-2|a|, with the sign of a.
    V value(V a) const {
        const ReducedExp<T> x = exponent(a);
        return with_sign_of<T>(a, expm1_of_negative(x) / (1 + exp_of_negative(x)));
    }
    // 4 sigma'(2a); where both are wanted, the compiler takes the exponential that the value has.
    V derivative(V a) const {
        const ReducedExp<T> x = exponent(a);
        const V reciprocal = 1 / (1 + exp_of_negative(x));
        return exp_of_negative(x, T(4)) * reciprocal * reciprocal;
    }
    BasePoint<T> base_point(V a) const { return Sigmoid<T>{}.base_point(2 * a); }
    template <bool Small> Move<T> move(V d) const { return Sigmoid<T>{}.template move<Small>(2 * d); }
    template <bool Small> V difference(const BasePoint<T>& at, const Move<T>& move) const {
        return 2 * Sigmoid<T>{}.template difference<Small>(at, move);
    }

  private:
    // That of e^-2|a|: doubled by an addition, because the multipliers are busy.
    static ReducedExp<T> exponent(V a) {
        const V size = negative_absolute<T>(a);
        return reduce_exp_negative<T>(size + size);
    }
};

template <class T> struct LeakyRelu {
    using V = Vec<T>;
    static constexpr bool kinked = true, seamed = false, bends = false;
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
    // The move, or less of it: down to 0 from the right, and from 0 on from the left.
    template <bool> Vec<T> difference(const BasePoint<T>& at, const Move<T>& move) const {
        const auto right = at.a > 0;
        const Vec<T> d = right ? move.d : at.a + move.d, least = right ? -at.a : splat(T(0));
        return d < least ? least : d; // NaN is not less
    }
};

// log(1 + e^a)
template <class T> struct Softplus {
    using V = Vec<T>;
    static constexpr bool kinked = false, seamed = false, bends = true;
    T steepest() const { return 1; }
    V value(V a) const { return ramp(a) + log1p<T>(exp_negative<T>(negative_absolute<T>(a))); }
    V derivative(V a) const { return Sigmoid<T>{}.value(a); }
    BasePoint<T> base_point(V a) const { return Sigmoid<T>{}.base_point(a); }
    template <bool Small> Move<T> move(V d) const {
        return {d, Small ? short_expm1<T, 4>(d) : expm1<T>(at_most<T>(d, longest))};
    }
    // log1p(s u); where that cancels, log(c + s e^d), whose terms are positive.
    template <bool Small> V difference(const BasePoint<T>& at, const Move<T>& move) const {
        const V x = at.s * move.u;
        if constexpr (Small) {
            return short_log1p<T, 4>(x);
        }
        V change = log1p<T>(x);
        const auto falls = x < T(-0.5);
        if (any<T>(falls)) {
            change = falls ? log_of_sum<T>(at.c + at.s * exp<T>(move.d), V{}) : change;
        }
        const auto far = absolute<T>(move.d) > longest;
        return any<T>(far) ? (far ? plain(at.a, move.d) : change) : change;
    }

  private:
    static constexpr T longest = Sigmoid<T>::longest;
    static V ramp(V a) { return a > 0 ? a : splat(T(0)); }
    static V plain(V a, V d) {
        const V b = a + d;
        const V ramps = ((a > 0) & (b > 0)) ? d : ramp(b) - ramp(a);
        return ramps + (log1p<T>(exp_negative<T>(negative_absolute<T>(b))) -
                        log1p<T>(exp_negative<T>(negative_absolute<T>(a))));
    }
};

// a sigma(a)
template <class T> struct Silu {
    using V = Vec<T>;
    static constexpr bool kinked = false, seamed = false, bends = true;
    T steepest() const { return T(1.1); }
    V value(V a) const {
        const V x = at_least<T>(a, -zero);
        return x * Sigmoid<T>{}.value(x);
    }
    // s (1 + a c)
    V derivative(V a) const {
        const V x = clamped<T>(a, -zero, zero);
        const BasePoint<T> at = Sigmoid<T>{}.base_point(x);
        return at.s * (1 + x * at.c);
    }
    BasePoint<T> base_point(V a) const { return Sigmoid<T>{}.base_point(a); }
    template <bool Small> Move<T> move(V d) const { return Sigmoid<T>{}.template move<Small>(d); }
    // d sigma(a + d) + a (sigma(a + d) - sigma(a))
    template <bool Small> V difference(const BasePoint<T>& at, const Move<T>& move) const {
        const V rise = Sigmoid<T>{}.template difference<Small>(at, move);
        return move.d * after<Small>(at, move, rise) + at.a * rise;
    }

  private:
    static constexpr T zero = 800; // sigma(-zero) is 0
    // sigma(a + d): s (1 + u) / (1 + s u) for d > 0, s / (1 + c u) for d < 0.
    template <bool Small> static V after(const BasePoint<T>& at, const Move<T>& move, V rise) {
        if constexpr (Small) {
            return at.s + rise;
        }
        const V near = move.d > 0 ? at.s * (1 + move.u) / (1 + at.s * move.u) : at.s / (1 + at.c * move.u);
        const auto far = absolute<T>(move.d) > Sigmoid<T>::longest;
        return any<T>(far) ? (far ? Sigmoid<T>{}.value(at.a + move.d) : near) : near;
    }
};

// a Phi(a), with the normal distribution Phi itself.
template <class T> struct Gelu {
    using V = Vec<T>;
    static constexpr bool kinked = false, seamed = false, bends = true;
    T steepest() const { return T(1.13); }
    V value(V a) const {
        const V x = a < -zero ? splat(-zero) : a;
        return x * distribution(x, normal<T>(x).tail);
    }
    V derivative(V a) const {
        const V x = clamped<T>(a, -zero, zero);
        const Normal<T> at = normal<T>(x);
        return distribution(x, at.tail) + x * at.density;
    }
    // s is Phi(a) and c the density there.
    BasePoint<T> base_point(V a) const {
        const Normal<T> at = normal<T>(a);
        return {a, distribution(a, at.tail), at.density};
    }
    template <bool> Move<T> move(V d) const { return {d, d}; }
    // d Phi(a + d) + a (Phi(a + d) - Phi(a))
    template <bool Small> V difference(const BasePoint<T>& at, const Move<T>& move) const {
        const V d = move.d, x = clamped<T>(at.a, -zero, zero);
        V rise = d * at.c * mean_density<Small>(x, d), after = at.s + rise;
        if constexpr (!Small) {
            const auto far = !(absolute<T>(d) * max<T>(absolute<T>(at.a), splat(T(1))) <= T(0.5));
            if (any<T>(far)) {
                const V b = at.a + d, tail = normal<T>(b).tail;
                const V plain = ((at.a > 0) & (b > 0)) ? normal<T>(at.a).tail - tail : distribution(b, tail) - at.s;
                rise = far ? plain : rise;
                after = far ? distribution(b, tail) : after;
            }
        }
        return d * after + at.a * rise;
    }

  private:
    static constexpr T zero = 40; // Phi(-zero) and the density there are 0
    static V distribution(V a, V tail) { return a > 0 ? 1 - tail : tail; }
    // The mean of the density from a to a + d over that at a, e^(-s (a + s/2)) for s from 0 to d, by Gauss-Legendre
    // quadrature: three nodes if all moves are small, seven for |d| max(|a|, 1) <= 1/2.
    template <bool Small> static V mean_density(V a, V d) {
        const auto exponent = [&](T node) {
            const V s = d * node;
            return -s * (a + s * T(0.5));
        };
        if constexpr (Small) {
            constexpr T half_width = T(0.38729833462074168852);
            V mean = T(4.0 / 9) * short_expm1<T, 6>(exponent(T(0.5)));
            for (const T sign : {T(1), T(-1)}) {
                mean += T(2.5 / 9) * short_expm1<T, 6>(exponent(T(0.5) + sign * half_width));
            }
            return 1 + mean;
        } else {
            constexpr T half_widths[] = {T(0.20292257568869858345), T(0.37076559279969722249),
                                         T(0.47455395617137927623)};
            constexpr T weights[] = {T(0.19091502525255947248), T(0.13985269574463833395), T(0.064742483084434846635)};
            V mean = T(0.20897959183673469388) * exp<T>(exponent(T(0.5)));
            for (int i = 0; i < 3; ++i) {
                mean += weights[i] *
                        (exp<T>(exponent(T(0.5) + half_widths[i])) + exp<T>(exponent(T(0.5) - half_widths[i])));
            }
            return mean;
        }
    }
};

// a for a > 0, alpha (e^a - 1) elsewhere: a kink at 0 unless alpha is 1.
template <class T, bool Kinked> struct Elu {
    using V = Vec<T>;
    static constexpr bool kinked = Kinked, seamed = !Kinked, bends = true;
    T alpha;
    T steepest() const { return alpha > 1 ? alpha : alpha < -1 ? -alpha : T(1); }
    V value(V a) const { return a > 0 ? a : alpha * expm1<T>(a); }
    V derivative(V a) const { return a > 0 ? splat(T(1)) : alpha * exp<T>(a); }
    // s is alpha e^a and c the value, for a <= 0.
    BasePoint<T> base_point(V a) const {
        const V x = a > 0 ? splat(T(0)) : a;
        return {a, alpha * exp<T>(x), alpha * expm1<T>(x)};
    }
    template <bool Small> Move<T> move(V d) const {
        return {d, Small ? short_expm1<T, 4>(d) : expm1<T>(at_most<T>(d, longest))};
    }
    // d to the right of 0 and s u to the left; across 0 each side's part, where |a| <= |d|, so that nothing cancels.
    template <bool Small> V difference(const BasePoint<T>& at, const Move<T>& move) const {
        const V b = at.a + move.d;
        V left = at.s * move.u;
        if constexpr (!Small) {
            const auto far = absolute<T>(move.d) > longest;
            left = any<T>(far) ? (far ? alpha * exp<T>(b) - at.s : left) : left;
        }
        const V same = at.a > 0 ? move.d : left;
        const auto crosses = (at.a > 0) != (b > 0);
        if (!any<T>(crosses)) {
            return same;
        }
        const V across = at.a > 0 ? alpha * (Small ? short_expm1<T, 4>(b) : expm1<T>(b)) - at.a : b - at.c;
        return crosses ? across : same;
    }

  private:
    static constexpr T longest = 30;
};

// Whether a move d from a crosses the kink at 0.
template <class T> FASTNET_INLINE Vec<Bits<T>> changes_side(Vec<T> a, Vec<T> d) {
    return (a > 0) != (a + d > 0);
}

// A sum of which a plain evaluation may keep more digits: a move d takes `a`, far from 0, back so near to 0 that what
// is left of a + d has the rounding of a.
template <class T> inline constexpr T far_from_zero = 512;
template <class T> FASTNET_INLINE Vec<Bits<T>> loses_digits(Vec<T> a, Vec<T> d) {
    return (absolute<T>(a) > far_from_zero<T>)&(64 * absolute<T>(a + d) < absolute<T>(a));
}
// NaN, which tells that a difference is to be evaluated plainly, where the mask is set, and `value` elsewhere.
template <class T> FASTNET_INLINE Vec<T> unless_lost(Vec<Bits<T>> lost, Vec<T> value) {
    return lost ? splat(static_cast<T>(__builtin_nan(""))) : value;
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
    case Activation::softplus:
        return f(Softplus<T>{});
    case Activation::silu:
        return f(Silu<T>{});
    case Activation::gelu:
        return f(Gelu<T>{});
    case Activation::elu:
        return constant == 1 ? f(Elu<T, false>{constant}) : f(Elu<T, true>{constant});
    case Activation::identity:
        break;
    }
    return f(Identity<T>{});
}

} // namespace fastnet::FASTNET_TARGET
