// The effects of small moves for softmax, cross entropy and a class label: a power series for all moves of a unit.
//
// With w_k the effect on class k less that on the likeliest class, a change v of the unit's value changes the loss by
// -log1p(R (q_t - r) / (1 + r)), where q_k = expm1(w_k v), r = sum_k y_k q_k, R = y_t / (y_t + epsilon). Summed over
// the classes first, the series of r and of q_t - r in v are the same for all moves of a unit.
#pragma once

#include "kernels/moves.hpp"

namespace fastnet::FASTNET_TARGET {

// The sum of coefficient[i] x^(i+1) for i < N.
template <class T, int N> FASTNET_INLINE Vec<T> power_series(Vec<T> x, const Vec<T>* coefficient) {
    Vec<T> p = coefficient[N - 1];
    for (int i = N - 1; i-- > 0;) {
        p = coefficient[i] + x * p;
    }
    return x * p;
}

// odd (moves, stride) = psi(d) - psi(-d) for a vector of units, from the first N terms of the series. slopes (classes,
// stride) is how each class moves with the units; differ(d) is the change of the units' values for a move d.
template <int N, class T, class Differ>
void evaluate_by_series(const Answer<T>& answer, Index label, const T* slopes, const Moves<T>& moves, Differ&& differ,
                        T* odd, Index stride) {
    const Vec<T> slope_of_likeliest = load(slopes + answer.likeliest * stride);
    Vec<T> r[N] = {}, rise[N] = {}; // the coefficients of r, and of R (q_t - r)
    for (Index k = 0; k < answer.classes; ++k) {
        const Vec<T> w = k == answer.likeliest ? Vec<T>{} : load(slopes + k * stride) - slope_of_likeliest;
        Vec<T> power = w;
        for (int i = 0; i < N; ++i) {
            r[i] += answer.y[k] * power;
            if (k == label) {
                rise[i] = power;
            }
            power *= w * (T(1) / T(i + 2));
        }
    }
    const T share = answer.y[label] / (answer.y[label] + epsilon<T>);
    for (int i = 0; i < N; ++i) {
        rise[i] = share * (rise[i] - r[i]);
    }
    const auto change = [&](Vec<T> v) {
        return short_log1p<T, N>(power_series<T, N>(v, rise) * short_reciprocal1p<T, N>(power_series<T, N>(v, r)));
    };
    for (Index i = 0; i < moves.count; ++i) {
        store(odd + i * stride, change(differ(-moves.d[i])) - change(differ(moves.d[i])));
    }
}

} // namespace fastnet::FASTNET_TARGET
