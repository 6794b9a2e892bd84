// Second differences of the activations: what two moves in opposite directions change together.
//
// A `Pair` stands for two changes, even + odd and even - odd. Where the odd part is of the order of a step h, the even
// part is of the order of h^2, and the sum of the two changes would leave few of its digits. Here the even part has a
// formula of its own for each activation. As in `activations.hpp`, nothing that is nearly equal is subtracted, and no
// derivative enters.
#pragma once

#include "kernels/activations.hpp"

namespace fastnet::FASTNET_TARGET {

// Half the sum and half the difference of two changes.
template <class T> struct Pair {
    Vec<T> even, odd;
};

// tau = e^q + e^-q - 2 = 4 sinh^2(q/2), and sinh q; for |q| at most some hundred (float: 40).
template <class T> struct Hyperbolic {
    Vec<T> tau, sinh;
};

template <class T> FASTNET_INLINE Hyperbolic<T> hyperbolic(Vec<T> q) {
    const Vec<T> u = expm1<T>(absolute<T>(q)), v = u / (1 + u); // v = 1 - e^-|q|
    const Vec<T> sinh = T(0.5) * (u + v);
    return {u * v, q < 0 ? -sinh : sinh};
}

// e^x - 1 - x: by a series for |x| < 1/2, where the subtraction would cancel.
template <class T> FASTNET_INLINE Vec<T> expm1_less_x(Vec<T> x) {
    constexpr int terms = sizeof(T) == 8 ? 15 : 9;
    Vec<T> p = splat(T(1));
    for (int i = terms; i > 2; --i) {
        p = 1 + x * (T(1) / T(i)) * p;
    }
    return absolute<T>(x) < T(0.5) ? T(0.5) * x * x * p : expm1<T>(x) - x;
}

// The pre-activation that a base point belongs to.
template <class T, class Phi> FASTNET_INLINE Vec<T> preactivation(Phi, const BasePoint<T>& at) {
    return at.a;
}
template <class T> FASTNET_INLINE Vec<T> preactivation(Tanh<T>, const BasePoint<T>& at) {
    return at.a / 2;
}

// (phi(a + q) + phi(a - q)) / 2 - phi(a) and (phi(a + q) - phi(a - q)) / 2, by two differences: for moves so long that
// nothing cancels in the sum, or whose even part is not smaller than the odd one.
template <class T, class Phi> FASTNET_INLINE Pair<T> plain_pair(Phi phi, const BasePoint<T>& at, Vec<T> q) {
    const Vec<T> up = phi.template difference<false>(at, phi.template move<false>(q));
    const Vec<T> down = phi.template difference<false>(at, phi.template move<false>(-q));
    return {T(0.5) * (up + down), T(0.5) * (up - down)};
}

// `near`, but plain_pair where the mask is set.
template <class T, class Phi>
FASTNET_INLINE Pair<T> unless_far(Phi phi, const BasePoint<T>& at, Vec<T> q, Vec<Bits<T>> far, Pair<T> near) {
    if (!any<T>(far)) {
        return near;
    }
    const Pair<T> plain = plain_pair(phi, at, q);
    return {far ? plain.even : near.even, far ? plain.odd : near.odd};
}

// Moves q and -q of the pre-activation at a base point -> the pair of the changes of phi.
template <class T> FASTNET_INLINE Pair<T> symmetric_pair(Identity<T>, const BasePoint<T>&, Vec<T> q) {
    return {Vec<T>{}, q};
}

template <class T> FASTNET_INLINE Pair<T> symmetric_pair(Step<T> phi, const BasePoint<T>& at, Vec<T> q) {
    return plain_pair(phi, at, q);
}

// With v = s c tau: (1 + s expm1(q)) (1 + s expm1(-q)) = 1 + v. The odd part is s c sinh q / (1 + v), the even part
// v (c - s) / 2 / (1 + v), where c - s = -tanh(a / 2).
template <class T> FASTNET_INLINE Pair<T> symmetric_pair(Sigmoid<T> phi, const BasePoint<T>& at, Vec<T> q) {
    const auto far = absolute<T>(q) > phi.longest;
    const Hyperbolic<T> h = hyperbolic<T>(far ? Vec<T>{} : q);
    const Vec<T> slope = at.s * at.c, v = slope * h.tau, reciprocal = 1 / (1 + v);
    const Vec<T> lean = T(-0.5) * Tanh<T>{}.value(T(0.5) * at.a);
    return unless_far(phi, at, q, far, Pair<T>{lean * v * reciprocal, slope * h.sinh * reciprocal});
}

template <class T> FASTNET_INLINE Pair<T> symmetric_pair(Tanh<T>, const BasePoint<T>& at, Vec<T> q) {
    const Pair<T> p = symmetric_pair(Sigmoid<T>{}, at, 2 * q);
    return {2 * p.even, 2 * p.odd};
}

// A kink at 0 turns by 1 - m: the even part is (1 - m) / 2 for each unit of |q| beyond it.
template <class T> FASTNET_INLINE Pair<T> symmetric_pair(LeakyRelu<T> phi, const BasePoint<T>& at, Vec<T> q) {
    const Vec<T> beyond = max<T>(absolute<T>(q) - absolute<T>(at.a), Vec<T>{});
    return {T(0.5) * (1 - phi.slope) * beyond, plain_pair(phi, at, q).odd};
}

template <class T> FASTNET_INLINE Pair<T> symmetric_pair(Relu<T> phi, const BasePoint<T>& at, Vec<T> q) {
    return symmetric_pair(LeakyRelu<T>{phi.slope}, at, q);
}

// 2 * even = log((1 + s expm1(q)) (1 + s expm1(-q))) = log1p(s c tau)
template <class T> FASTNET_INLINE Vec<T> even_of_softplus(const BasePoint<T>& at, Vec<T> q) {
    const auto far = absolute<T>(q) > Sigmoid<T>::longest;
    const Vec<T> tau = hyperbolic<T>(far ? Vec<T>{} : q).tau, near = T(0.5) * log1p<T>(at.s * at.c * tau);
    return any<T>(far) ? (far ? plain_pair(Softplus<T>{}, at, q).even : near) : near;
}

template <class T> FASTNET_INLINE Pair<T> symmetric_pair(Softplus<T> phi, const BasePoint<T>& at, Vec<T> q) {
    return {even_of_softplus<T>(at, q), plain_pair(phi, at, q).odd};
}

// a P(a) for a distribution P with the value `below` at a, from the pair of P.
template <class T> FASTNET_INLINE Pair<T> pair_of_product(Vec<T> a, Vec<T> q, Vec<T> below, const Pair<T>& p) {
    return {a * p.even + q * p.odd, a * p.odd + q * (below + p.even)};
}

template <class T> FASTNET_INLINE Pair<T> symmetric_pair(Silu<T>, const BasePoint<T>& at, Vec<T> q) {
    return pair_of_product<T>(at.a, q, at.s, symmetric_pair(Sigmoid<T>{}, at, q));
}

// With the density f: the odd part of Phi is the integral of f(a) e^(-s^2/2) cosh(as) for s from 0 to q, and the even
// part minus that of f(a) e^(-s^2/2) sinh(as), by Gauss-Legendre quadrature with seven nodes.
template <class T> FASTNET_INLINE Pair<T> symmetric_pair(Gelu<T> phi, const BasePoint<T>& at, Vec<T> q) {
    constexpr T nodes[] = {T(0.025446043828620737737), T(0.1292344072003027801), T(0.29707742431130141655), T(0.5),
                           T(0.70292257568869858345),  T(0.8707655927996972199), T(0.97455395617137926226)};
    constexpr T weights[] = {T(0.064742483084434846635), T(0.13985269574463833395), T(0.19091502525255947248),
                             T(0.20897959183673469388),  T(0.19091502525255947248), T(0.13985269574463833395),
                             T(0.064742483084434846635)};
    const auto far = !(absolute<T>(q) * max<T>(absolute<T>(at.a), splat(T(1))) <= T(0.5));
    const Vec<T> d = far ? Vec<T>{} : q, a = far ? Vec<T>{} : at.a;
    Vec<T> even{}, odd{};
    for (int i = 0; i < 7; ++i) {
        const Vec<T> s = d * nodes[i], decay = weights[i] * exp_negative<T>(T(-0.5) * s * s);
        const Hyperbolic<T> h = hyperbolic<T>(a * s);
        even -= decay * h.sinh;
        odd += decay * (1 + T(0.5) * h.tau);
    }
    const Vec<T> mass = at.c * d;
    return unless_far(phi, at, q, far, pair_of_product<T>(a, q, at.s, {mass * even, mass * odd}));
}

// Left of 0: alpha e^a tau / 2. Across 0 what lies beyond is w = |q| - |a|, and there the line and the exponential
// differ by (1 - alpha) w + alpha (e^-w - 1 + w) to the left, and by (1 - alpha) w - alpha (e^w - 1 - w) to the right.
template <class T, bool Kinked>
FASTNET_INLINE Pair<T> symmetric_pair(Elu<T, Kinked> phi, const BasePoint<T>& at, Vec<T> q) {
    const Vec<T> size = absolute<T>(q), w = max<T>(size - absolute<T>(at.a), Vec<T>{});
    const auto right = at.a > 0;
    const auto far = size > 1;
    const Vec<T> tau = hyperbolic<T>(far ? Vec<T>{} : q).tau;
    Vec<T> even = right ? Vec<T>{} : at.s * tau;
    if (any<T>(w > 0)) {
        const Vec<T> x = far ? Vec<T>{} : w, bent = right ? expm1_less_x<T>(-x) : -expm1_less_x<T>(x);
        even += (1 - phi.alpha) * x + phi.alpha * bent;
    }
    const Pair<T> plain = plain_pair(phi, at, q);
    return {far ? plain.even : T(0.5) * even, plain.odd};
}

// The pair of the pre-activation's moves -> the pair of the unit's changes. With b = a + even the two ends are b + odd
// and b - odd; the rounding of b is a relative one of the even part there.
template <class T, class Phi> FASTNET_INLINE Pair<T> carry(Phi phi, const BasePoint<T>& at, const Pair<T>& move) {
    const BasePoint<T> middle = phi.base_point(preactivation(phi, at) + move.even);
    Pair<T> change = symmetric_pair(phi, middle, move.odd);
    change.even += phi.template difference<false>(at, phi.template move<false>(move.even));
    return change;
}
template <class T> FASTNET_INLINE Pair<T> carry(Identity<T>, const BasePoint<T>&, const Pair<T>& move) {
    return move;
}

} // namespace fastnet::FASTNET_TARGET
