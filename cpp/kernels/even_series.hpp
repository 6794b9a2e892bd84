// psi(d) + psi(-d) of short moves for softmax, cross entropy and a class label: a series for all moves of a unit.
//
// With w_k the effect of the unit's value on class k, its mean over the probabilities y taken off, a change v of the
// value changes the loss by -log(1 + R (e^u - 1)), where u = w_t v - K(v), R = y_t / (y_t + epsilon), and K(v) =
// log sum_k y_k e^(w_k v) is the series of the cumulants of w: the variance over 2, and so on.
#pragma once

#include "kernels/even_losses.hpp"

namespace fastnet::FASTNET_TARGET {

// The coefficients of the loss's change in v, v^2, v^3, v^4.
template <class T> struct LossSeries {
    Vec<T> c1, c2, c3, c4;

    // The sum of the changes for the values m + q and m - q. What it leaves out is of the order of m q^4 and q^6.
    FASTNET_INLINE Vec<T> sum_of_changes(const Pair<T>& v) const {
        const Vec<T> m = v.even, mm = m * m, qq = v.odd * v.odd;
        return 2 * (m * (c1 + c3 * (mm + 3 * qq)) + c2 * (mm + qq) + c4 * qq * (6 * mm + qq));
    }
};

// slopes (classes, stride): how each class moves with a vector of units.
template <class T>
FASTNET_INLINE LossSeries<T> loss_series(const Answer<T>& answer, Index label, const T* slopes, Index stride) {
    const Vec<T> shift = load(slopes + answer.likeliest * stride);
    const auto slope = [&](Index k) { return k == answer.likeliest ? Vec<T>{} : load(slopes + k * stride) - shift; };
    Vec<T> mean{}, second{}, third{}, fourth{};
    for (Index k = 0; k < answer.classes; ++k) {
        mean += answer.y[k] * slope(k);
    }
    for (Index k = 0; k < answer.classes; ++k) {
        const Vec<T> w = slope(k) - mean, square = w * w, share = answer.y[k] * square;
        second += share;
        third += share * w;
        fourth += share * square;
    }
    const Vec<T> u1 = slope(label) - mean, u2 = T(-0.5) * second, u3 = third * T(-1.0 / 6);
    const Vec<T> u4 = (fourth - 3 * second * second) * T(-1.0 / 24);
    // log(1 + R (e^u - 1)) = R u + f2 u^2 + f3 u^3 + f4 u^4 + …
    const T base = answer.y[label] + epsilon<T>, share = answer.y[label] / base, rest = epsilon<T> / base;
    const T f2 = share * rest / 2, f3 = f2 * (rest - share) / 3, f4 = f2 * (1 - 6 * share * rest) / 12;
    const Vec<T> square = u1 * u1;
    return {-share * u1, -(share * u2 + f2 * square), -(share * u3 + u1 * (2 * f2 * u2 + f3 * square)),
            -(share * u4 + f2 * (u2 * u2 + 2 * u1 * u3) + square * (3 * f3 * u2 + f4 * square))};
}

} // namespace fastnet::FASTNET_TARGET
