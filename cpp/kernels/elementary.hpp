// Vectorised elementary functions: exp, expm1, log1p and the normal distribution, accurate over their whole range;
// series for small arguments.
#pragma once

#include <limits>

#include "kernels/simd.hpp"

namespace fastnet::FASTNET_TARGET {

// Above `overflow` e^x is infinite, and below `underflow` 4 e^x is 0.
//
// x = k ln 2 + r with |r| <= ln(2)/2. ln 2 is split so that k * ln2_high is exact, with or without FMA.
// `quotient` are the coefficients of (e^r - 1 - r) / r^2, interpolated at Chebyshev nodes: the polynomial's own
// error is below 2e-17 relative in double and 1e-8 in float.
template <class T> struct ExpConstants;

template <> struct ExpConstants<double> {
    static constexpr double log2_e = 1.4426950408889634;
    static constexpr double ln2_high = 6.93147180369123816490e-01, ln2_low = 1.90821492927058770002e-10;
    static constexpr double round_magic = 6755399441055744.0; // 1.5 * 2^52: adding it rounds to an integer
    static constexpr double overflow = 710.0, underflow = -748.0;
    static constexpr std::int64_t lift = 512; // lifts 2^k, for k <= 0, to normal numbers
    static constexpr double lowered = 0x1p-512;
    static constexpr std::int64_t bias = 1023;
    static constexpr int mantissa_bits = 52;
    static constexpr double quotient[] = {0.50000000000000010221,   0.16666666666666667453,   0.041666666666624127873,
                                          0.0083333333333300618325, 0.0013888888917213716901, 0.00019841269863053616878,
                                          2.4801521295954375131e-5, 2.7557268459997064772e-6, 2.7620088445409748161e-7,
                                          2.5100385495510319078e-8};
};

template <> struct ExpConstants<float> {
    static constexpr float log2_e = 1.44269504f;
    static constexpr float ln2_high = 0.693359375f, ln2_low = -2.12194440e-4f;
    static constexpr float round_magic = 12582912.0f; // 1.5 * 2^23
    static constexpr float overflow = 89.0f, underflow = -107.0f;
    static constexpr std::int32_t lift = 64;
    static constexpr float lowered = 0x1p-64f;
    static constexpr std::int32_t bias = 127;
    static constexpr int mantissa_bits = 23;
    static constexpr float quotient[] = {0.5f, 0.166665769897f, 0.0416665546172f, 0.00836317905272f, 0.00139261835877f};
};

// c[0] + c[1] x + c[2] x^2 + …: pairs of terms, which are a polynomial in x^2. The chain of operations is half as long
// as that of Horner's scheme, and a long chain leaves a processor waiting.
template <class T, std::size_t N> FASTNET_INLINE Vec<T> polynomial(Vec<T> x, const T (&c)[N]) {
    const Vec<T> square = x * x;
    const auto pair = [&](std::size_t i) { return i + 1 < N ? c[i] + x * c[i + 1] : splat(c[i]); };
    constexpr std::size_t last = (N - 1) / 2 * 2;
    Vec<T> p = pair(last);
    for (std::size_t i = last; i > 0; i -= 2) {
        p = pair(i - 2) + square * p;
    }
    return p;
}

template <class T> struct ReducedExp {
    Vec<Bits<T>> k; // e^x = 2^k (1 + expm1_r)
    Vec<T> expm1_r;
};

template <class T> FASTNET_INLINE ReducedExp<T> reduce_exp(Vec<T> x) {
    using C = ExpConstants<T>;
    const Vec<T> shifted = x * C::log2_e + C::round_magic;
    const Vec<T> k = shifted - C::round_magic;
    const Vec<T> r = (x - k * C::ln2_high) - k * C::ln2_low;
    return {as_bits<T>(shifted) - as_bits<T>(splat(C::round_magic)), r + r * r * polynomial(r, C::quotient)};
}

// 2^k for k in the range of normal numbers.
template <class T> FASTNET_INLINE Vec<T> power_of_two(Vec<Bits<T>> k) {
    return from_bits<T>((k + ExpConstants<T>::bias) << ExpConstants<T>::mantissa_bits);
}

template <class T> FASTNET_INLINE Vec<T> exp_of(const ReducedExp<T>& x) {
    // Two factors of about 2^(k/2), since 2^k itself may be no normal number. The last product alone can round.
    const Vec<Bits<T>> half = (x.k - (x.k & 1)) / 2;
    const Vec<T> scale = power_of_two<T>(half);
    return (scale + scale * x.expm1_r) * power_of_two<T>(x.k - half);
}

template <class T> FASTNET_INLINE Vec<T> expm1_of(const ReducedExp<T>& x) {
    // 2^(k-1), doubled at the end, since 2^k overflows before e^x does.
    const Vec<T> scale = power_of_two<T>(x.k - 1);
    const Vec<T> half = scale * x.expm1_r + (scale - T(0.5));
    return half + half;
}

template <class T> FASTNET_INLINE Vec<T> exp(Vec<T> x) {
    using C = ExpConstants<T>;
    return exp_of(reduce_exp<T>(clamped<T>(x, C::underflow, C::overflow)));
}

template <class T> FASTNET_INLINE ReducedExp<T> reduce_exp_negative(Vec<T> x) {
    return reduce_exp<T>(at_least<T>(x, ExpConstants<T>::underflow));
}

// factor e^x for x <= 0 and a small power of two: 2^k is at most 1, so one scale that is lifted will do. The last
// product alone can round.
template <class T> FASTNET_INLINE Vec<T> exp_of_negative(const ReducedExp<T>& x, T factor = 1) {
    using C = ExpConstants<T>;
    const Vec<T> scale = power_of_two<T>(x.k + C::lift);
    return (scale + scale * x.expm1_r) * (C::lowered * factor);
}

// e^x - 1 for x <= 0
template <class T> FASTNET_INLINE Vec<T> expm1_of_negative(const ReducedExp<T>& x) {
    using C = ExpConstants<T>;
    const Vec<T> scale = power_of_two<T>(x.k + C::lift) * C::lowered; // 0 where e^x is
    return scale * x.expm1_r + (scale - 1);
}

// e^x for x <= 0, with the bits of `exp` in fewer operations.
template <class T> FASTNET_INLINE Vec<T> exp_negative(Vec<T> x) {
    return exp_of_negative(reduce_exp_negative<T>(x));
}

// Below this, e^x - 1 is -1.
template <class T> inline constexpr T least_expm1 = -60;

// e^x - 1
template <class T> FASTNET_INLINE Vec<T> expm1(Vec<T> x) {
    using C = ExpConstants<T>;
    return expm1_of(reduce_exp<T>(clamped<T>(x, least_expm1<T>, C::overflow)));
}

// Coefficients of (log((1 + s) / (1 - s)) - 2s) / s^3 in s^2, for |s| <= (sqrt 2 - 1) / (sqrt 2 + 1), interpolated at
// Chebyshev nodes: below 1e-17 relative in double and 3e-9 in float.
template <class T> struct LogConstants;

template <> struct LogConstants<double> {
    static constexpr double quotient[] = {0.66666666666666696905, 0.39999999999899381939, 0.28571428626031066765,
                                          0.22222211125722808938, 0.18182889786191042483, 0.15331699633543858719,
                                          0.14616721179861815749};
    static constexpr std::int64_t sqrt_half = 0x3fe6a09e667f3bcd; // the bits of sqrt(1/2)
};

template <> struct LogConstants<float> {
    static constexpr float quotient[] = {0.666666850507f, 0.399887759978f, 0.295801567053f};
    static constexpr std::int32_t sqrt_half = 0x3f3504f3;
};

// log(u + lost), where u is positive and normal and `lost` is below its last place.
template <class T> FASTNET_INLINE Vec<T> log_of_sum(Vec<T> u, Vec<T> lost) {
    using C = ExpConstants<T>;
    using L = LogConstants<T>;
    // u = 2^k m with m in [sqrt(1/2), sqrt(2)).
    const Vec<Bits<T>> k_bits = (as_bits<T>(u) - L::sqrt_half) & ~((Bits<T>(1) << C::mantissa_bits) - 1);
    const Vec<T> m = from_bits<T>(as_bits<T>(u) - k_bits);
    const Vec<T> k = __builtin_convertvector(k_bits >> C::mantissa_bits, Vec<T>);
    const Vec<T> f = (m - 1) + lost * (m / u);
    const Vec<T> s = f / (2 + f), z = s * s;
    const Vec<T> log_m = f - s * (f - z * polynomial(z, L::quotient));
    return k * C::ln2_high + (log_m + k * C::ln2_low);
}

// log(x)
template <class T> FASTNET_INLINE Vec<T> log(Vec<T> x) {
    constexpr T least = std::numeric_limits<T>::min(), infinity = std::numeric_limits<T>::infinity();
    const Vec<Bits<T>> normal = (x >= least) & (x < infinity); // NaN is not
    Vec<T> result = log_of_sum<T>(x, Vec<T>{});
    if (nonzero_mask<T>(normal ? splat(T(0)) : splat(T(1))) != 0) {
        for (Index i = 0; i < lanes<T>; ++i) {
            result[i] = normal[i] ? result[i] : sizeof(T) == 4 ? T(__builtin_logf(x[i])) : T(__builtin_log(x[i]));
        }
    }
    return result;
}

// log(1 + x)
template <class T> FASTNET_INLINE Vec<T> log1p(Vec<T> x) {
    const Vec<T> u = 1 + x;
    const Vec<T> result = log_of_sum<T>(u, u > 2 ? 1 - (u - x) : x - (u - 1));
    const T infinity = __builtin_huge_val();
    const Vec<T> edge = x == -1 ? splat(-infinity) : x == infinity ? x : splat(infinity - infinity);
    return ((x > -1) & (x < infinity)) ? result : edge;
}

// 1 / (1 + x), e^x - 1 and log(1 + x) by the first N terms beyond the leading one.
template <class T, int N> FASTNET_INLINE Vec<T> short_reciprocal1p(Vec<T> x) {
    Vec<T> p = splat(T(1));
    for (int i = 0; i < N; ++i) {
        p = 1 - x * p;
    }
    return p;
}

template <class T, int N> FASTNET_INLINE Vec<T> short_expm1(Vec<T> x) {
    Vec<T> p = splat(T(1));
    for (int i = N + 1; i > 1; --i) {
        p = 1 + x * (T(1) / T(i)) * p;
    }
    return x * p;
}

template <class T, int N> FASTNET_INLINE Vec<T> short_log1p(Vec<T> x) {
    Vec<T> p = splat(T(1) / T(N + 1));
    for (int i = N; i > 0; --i) {
        p = T(1) / T(i) - x * p;
    }
    return x * p;
}

// For x from 0 to `end`, where the tail is below the smallest number, e^(x^2/2) (1 + 2x) Phi(-x) is a polynomial in
// (x - centre) / (x + centre), interpolated at Chebyshev nodes: below 5e-18 relative in double and 6e-9 in float. The
// form is that of M. Shepherd and J. Laframboise, Chebyshev Approximation of (1 + 2x) exp(x^2) erfc x in 0 <= x <
// infinity, Mathematics of Computation 36, 1981.
template <class T> struct NormalConstants;

template <> struct NormalConstants<double> {
    static constexpr double centre = 5, end = 39;
    static constexpr int low_bits = 27; // the square of a number without them is exact
    static constexpr double quotient[] = {
        0.84611235472506925321,     -0.0396470084040058769,     -0.054008075034076643344,  0.10088858203456282999,
        -0.10065743821676268933,    0.072487826975769471551,    -0.039332201355758242557,  0.01542284568209304513,
        -0.0035716954292578428931,  -0.00011869356980815865147, 0.00042509581553075319949, -0.00010817683359950904339,
        -0.00002643689659828064418, 0.000019390775782261885051, 5.3540846053854963272e-7,  -2.8600981916002082634e-6,
        1.764063755844286436e-7,    4.3357479777920676196e-7,   -3.8635135357133116389e-8, -6.8332921474902366677e-8,
        3.2949945299308069466e-9,   9.1331266233320319451e-9,   3.2688496187291257736e-10, -5.2787882845352203295e-10};
};

template <> struct NormalConstants<float> {
    static constexpr float centre = 4, end = 14.5f;
    static constexpr int low_bits = 12;
    static constexpr float quotient[] = {0.849695771593f,   -0.0230092058667f,  -0.0963799898005f,  0.128907166705f,
                                         -0.0952604635098f, 0.0443740349722f,   -0.0105098573482f,  -0.00124992487342f,
                                         0.00155642640349f, -7.51411739683e-5f, -0.000154960531229f};
};

// The standard normal distribution at x.
template <class T> struct Normal {
    Vec<T> tail;    // Phi(-|x|)
    Vec<T> density; // e^(-x^2/2) / sqrt(2 pi)
};

template <class T> FASTNET_INLINE Normal<T> normal(Vec<T> x) {
    using C = NormalConstants<T>;
    x = x < 0 ? -x : x;
    x = at_most<T>(x, C::end);
    // x^2 = high^2 + (x - high)(x + high): a rounded x^2 would cost its exponential digits.
    const Vec<T> high = from_bits<T>(as_bits<T>(x) & ~((Bits<T>(1) << C::low_bits) - 1));
    const Vec<T> e = exp_negative<T>(T(-0.5) * high * high);
    const Vec<T> square = e + e * short_expm1<T, 4>(T(-0.5) * (x - high) * (x + high));
    const Vec<T> quotient = polynomial((x - C::centre) / (x + C::centre), C::quotient) / (1 + 2 * x);
    return {square * quotient, square * T(0.39894228040143267794)};
}

} // namespace fastnet::FASTNET_TARGET
