// The vector type of the instruction set that this translation unit is compiled for.
//
// Every file of this folder is included once per instruction set, inside the namespace FASTNET_TARGET, and uses the
// vector extensions that GCC and Clang share. A rest that does not fill a vector is padded with zeros and goes through
// the same arithmetic, so that a result never depends on its position in an array.
#pragma once

#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#    include <immintrin.h>
#endif

#include "core/network.hpp"

#ifndef FASTNET_TARGET
#    error "FASTNET_TARGET names the namespace of this instruction set"
#endif

#if defined(__AVX512F__)
#    define FASTNET_VECTOR_BYTES 64
#elif defined(__AVX__)
#    define FASTNET_VECTOR_BYTES 32
#else
#    define FASTNET_VECTOR_BYTES 16
#endif

#define FASTNET_INLINE [[gnu::always_inline]] inline

// An intrinsic of two whole vectors.
#if FASTNET_VECTOR_BYTES == 64 // GCC 12 warns of its own header where there is no mask
#    define FASTNET_INTRINSIC(name, a, b) _mm512_maskz_##name(-1, a, b)
#elif FASTNET_VECTOR_BYTES == 32
#    define FASTNET_INTRINSIC(name, a, b) _mm256_##name(a, b)
#elif defined(__SSE2__)
#    define FASTNET_INTRINSIC(name, a, b) _mm_##name(a, b)
#endif

// Unrolls a loop early, so that an array which it indexes can become registers.
#ifdef __clang__
#    define FASTNET_UNROLL _Pragma("unroll")
#else
#    define FASTNET_UNROLL _Pragma("GCC unroll 8")
#endif

namespace fastnet::FASTNET_TARGET {

template <class T> struct VectorOf {
    typedef T type __attribute__((vector_size(FASTNET_VECTOR_BYTES)));
};
template <class T> using Vec = typename VectorOf<T>::type;

template <class T> inline constexpr Index lanes = FASTNET_VECTOR_BYTES / static_cast<Index>(sizeof(T));

// The integer with a floating-point number's size, for its bits and for comparison masks.
template <class T> struct BitsOf;
template <> struct BitsOf<float> {
    using type = std::int32_t;
};
template <> struct BitsOf<double> {
    using type = std::int64_t;
};
template <class T> using Bits = typename BitsOf<T>::type;

template <class T> FASTNET_INLINE Vec<T> splat(T x) {
    return x - Vec<T>{};
}

template <class T> FASTNET_INLINE Vec<T> load(const T* p) {
    Vec<T> v;
    std::memcpy(&v, p, sizeof v);
    return v;
}

template <class T> FASTNET_INLINE void store(T* p, Vec<T> v) {
    std::memcpy(p, &v, sizeof v);
}

#if FASTNET_VECTOR_BYTES == 64
FASTNET_INLINE unsigned first_lanes(Index n) {
    return (1u << n) - 1;
}
#endif

// 0, 1, 2, … in the lanes.
template <class T> FASTNET_INLINE Vec<Bits<T>> counted() {
    Vec<Bits<T>> v;
    for (Index i = 0; i < lanes<T>; ++i) {
        v[i] = static_cast<Bits<T>>(i);
    }
    return v;
}

// The first n lanes from p, `rest` behind them; 0 <= n <= lanes.
template <class T> FASTNET_INLINE Vec<T> load(const T* p, Index n, T rest = 0) {
    if (n == lanes<T>) {
        return load(p);
    }
    Vec<T> v = splat(rest);
#if FASTNET_VECTOR_BYTES == 64
    if constexpr (sizeof(T) == 4) {
        v = (Vec<T>)_mm512_mask_loadu_ps((__m512)v, static_cast<__mmask16>(first_lanes(n)), p);
    } else {
        v = (Vec<T>)_mm512_mask_loadu_pd((__m512d)v, static_cast<__mmask8>(first_lanes(n)), p);
    }
#elif defined(__AVX2__)
    const Vec<Bits<T>> mask = counted<T>() < static_cast<Bits<T>>(n);
    if constexpr (sizeof(T) == 4) {
        const Vec<T> first = (Vec<T>)_mm256_maskload_ps(p, (__m256i)mask);
        v = mask ? first : v;
    } else {
        const Vec<T> first = (Vec<T>)_mm256_maskload_pd(p, (__m256i)mask);
        v = mask ? first : v;
    }
#else
    std::memcpy(&v, p, static_cast<std::size_t>(n) * sizeof(T));
#endif
    return v;
}

// The first n lanes of v, zeros behind them.
template <class T> FASTNET_INLINE Vec<T> first_lanes_of(Vec<T> v, Index n) {
    return counted<T>() < static_cast<Bits<T>>(n) ? v : Vec<T>{};
}

template <class T> FASTNET_INLINE void store(T* p, Vec<T> v, Index n) {
    if (n == lanes<T>) {
        return store(p, v);
    }
#if FASTNET_VECTOR_BYTES == 64
    if constexpr (sizeof(T) == 4) {
        _mm512_mask_storeu_ps(p, static_cast<__mmask16>(first_lanes(n)), (__m512)v);
    } else {
        _mm512_mask_storeu_pd(p, static_cast<__mmask8>(first_lanes(n)), (__m512d)v);
    }
#else
    // A memcpy whose size is known here is one instruction, and calls nothing that would spill all vectors.
    T first[lanes<T>];
    std::memcpy(first, &v, sizeof v);
    Index i = 0;
    FASTNET_UNROLL
    for (Index size = lanes<T> / 2; size > 0; size /= 2) {
        if (n & size) {
            std::memcpy(p + i, first + i, static_cast<std::size_t>(size) * sizeof(T));
            i += size;
        }
    }
#endif
}

// x, rounded to T: the compiler fuses no multiplication in it with an addition outside.
template <class T> FASTNET_INLINE Vec<T> rounded(Vec<T> x) {
#if FASTNET_VECTOR_BYTES == 64
    asm("" : "+v"(x));
#elif defined(__SSE2__)
    asm("" : "+x"(x));
#else
    asm("" : "+m"(x));
#endif
    return x;
}

template <class T> FASTNET_INLINE Vec<Bits<T>> as_bits(Vec<T> v) {
    Vec<Bits<T>> b;
    std::memcpy(&b, &v, sizeof b);
    return b;
}

template <class T> FASTNET_INLINE Vec<T> from_bits(Vec<Bits<T>> b) {
    Vec<T> v;
    std::memcpy(&v, &b, sizeof v);
    return v;
}

// Lane i is lane i ^ distance of v; distance is a power of two.
template <class T> FASTNET_INLINE Vec<T> exchanged(Vec<T> v, Index distance) {
#if defined(__clang__)
    Vec<T> w{};
    for (Index i = 0; i < lanes<T>; ++i) {
        w[i] = v[i ^ distance];
    }
    return w;
#else
    return __builtin_shuffle(v, counted<T>() ^ static_cast<Bits<T>>(distance));
#endif
}

// The lanes folded to one value, halves first, always in the same order.
template <class T, class F> FASTNET_INLINE T fold(Vec<T> v, F&& f) {
    for (Index half = lanes<T> / 2; half > 0; half /= 2) {
        v = f(v, exchanged<T>(v, half));
    }
    return v[0];
}

template <class T> FASTNET_INLINE T sum(Vec<T> v) {
    return fold<T>(v, [](Vec<T> a, Vec<T> b) { return a + b; });
}

// The greatest lane, as if NaN were not there.
template <class T> FASTNET_INLINE T greatest(Vec<T> v) {
    return fold<T>(v, [](Vec<T> a, Vec<T> b) { return ((a > b) | (b != b)) ? a : b; });
}

// Bit i tells whether lane i is not zero (NaN is not).
template <class T> FASTNET_INLINE unsigned nonzero_mask(Vec<T> v) {
#if FASTNET_VECTOR_BYTES == 64
    if constexpr (sizeof(T) == 4) {
        return _mm512_cmp_ps_mask((__m512)v, _mm512_setzero_ps(), _CMP_NEQ_UQ);
    } else {
        return _mm512_cmp_pd_mask((__m512d)v, _mm512_setzero_pd(), _CMP_NEQ_UQ);
    }
#elif FASTNET_VECTOR_BYTES == 32
    const Vec<Bits<T>> m = v != 0;
    if constexpr (sizeof(T) == 4) {
        return static_cast<unsigned>(_mm256_movemask_ps((__m256)m));
    } else {
        return static_cast<unsigned>(_mm256_movemask_pd((__m256d)m));
    }
#elif defined(__SSE2__)
    const Vec<Bits<T>> m = v != 0;
    if constexpr (sizeof(T) == 4) {
        return static_cast<unsigned>(_mm_movemask_ps((__m128)m));
    } else {
        return static_cast<unsigned>(_mm_movemask_pd((__m128d)m));
    }
#else
    unsigned mask = 0;
    for (Index i = 0; i < lanes<T>; ++i) {
        mask |= static_cast<unsigned>(v[i] != 0) << i;
    }
    return mask;
#endif
}

// a > b ? a : b, in one operation.
template <class T> FASTNET_INLINE Vec<T> max(Vec<T> a, Vec<T> b) {
#ifdef FASTNET_INTRINSIC
    if constexpr (sizeof(T) == 4) {
        return FASTNET_INTRINSIC(max_ps, a, b);
    } else {
        return FASTNET_INTRINSIC(max_pd, a, b);
    }
#else
    return a > b ? a : b;
#endif
}

// a < b ? a : b, in one operation.
template <class T> FASTNET_INLINE Vec<T> min(Vec<T> a, Vec<T> b) {
#ifdef FASTNET_INTRINSIC
    if constexpr (sizeof(T) == 4) {
        return FASTNET_INTRINSIC(min_ps, a, b);
    } else {
        return FASTNET_INTRINSIC(min_pd, a, b);
    }
#else
    return a < b ? a : b;
#endif
}

// x, but not below `least`, not above `most`, or neither. NaN stays NaN.
template <class T> FASTNET_INLINE Vec<T> at_least(Vec<T> x, T least) {
    return max<T>(splat(least), x);
}
template <class T> FASTNET_INLINE Vec<T> at_most(Vec<T> x, T most) {
    return min<T>(splat(most), x);
}
template <class T> FASTNET_INLINE Vec<T> clamped(Vec<T> x, T least, T most) {
    return at_most<T>(at_least<T>(x, least), most);
}

// Calls f(offset, count) for each vector of n elements; count < lanes for the last one at most.
template <class T, class F> FASTNET_INLINE void for_each_vector(Index n, F&& f) {
    Index i = 0;
    for (; i + lanes<T> <= n; i += lanes<T>) {
        f(i, lanes<T>);
    }
    if (i < n) {
        f(i, n - i);
    }
}

// Calls f.template operator()<V>(column) for each group of V <= 8 vectors of n columns: as many accumulators as hide
// the latency of a multiply-add and fit the registers of every instruction set.
inline constexpr int most_vectors = 8; // that stay in registers

template <class T, int V = most_vectors, class F> FASTNET_INLINE void for_each_vector_group(Index n, F&& f) {
    const Index vectors = (n + lanes<T> - 1) / lanes<T>;
    Index v = 0;
    for (; v + V <= vectors; v += V) {
        f.template operator()<V>(v * lanes<T>);
    }
    if constexpr (V > 1) {
        if (v < vectors) {
            for_each_vector_group<T, V - 1>(n - v * lanes<T>,
                                            [&]<int W>(Index j) { f.template operator()<W>(v * lanes<T> + j); });
        }
    }
}

// f.template operator()<K>() for K = n <= Most.
template <int Most, class F> FASTNET_INLINE void with_count(Index n, F&& f) {
    if (n == Most) {
        f.template operator()<Most>();
    } else if constexpr (Most > 1) {
        with_count<Most - 1>(n, f);
    }
}

// Calls f.template operator()<K>(first) for each group of K <= Most of n things; the groups are of about equal sizes.
template <int Most, class F> FASTNET_INLINE void for_each_group(Index n, F&& f) {
    Index groups = (n + Most - 1) / Most;
    for (Index first = 0; first < n; --groups) {
        const Index count = (n - first + groups - 1) / groups;
        with_count<Most>(count, [&]<int K>() { f.template operator()<K>(first); });
        first += count;
    }
}

// f.template operator()<V>() for a row of n elements whose V <= 2 vectors fit the registers. Returns whether they do.
// Such a row is stored once, at the end: a vector that was stored in parts has to leave the core's store queue before
// it can be loaded as a whole.
template <class T, class F> FASTNET_INLINE bool in_registers(Index n, F&& f) {
    with_count<2>((n + lanes<T> - 1) / lanes<T>, f);
    return n <= 2 * lanes<T>;
}

// p (n) -> row, `rest` behind it.
template <class T, int V> FASTNET_INLINE void load_row(const T* p, Index n, Vec<T> (&row)[V], T rest = 0) {
    for (int v = 0; v < V; ++v) {
        row[v] = v + 1 < V ? load(p + v * lanes<T>) : load(p + v * lanes<T>, n - v * lanes<T>, rest);
    }
}

template <class T, int V> FASTNET_INLINE void store_row(T* p, Index n, const Vec<T> (&row)[V]) {
    for (int v = 0; v < V; ++v) {
        v + 1 < V ? store(p + v * lanes<T>, row[v]) : store(p + v * lanes<T>, row[v], n - v * lanes<T>);
    }
}

// Loads an element, so that the processor knows the address of its page: some ignore a prefetch in any other page, as
// is the page of a random row of large data.
template <class X> FASTNET_INLINE void touch(const X* p) {
    (void)*static_cast<const volatile X*>(p);
}

// Prefetches n elements.
template <class X> FASTNET_INLINE void prefetch(const X* p, Index n) {
    for (Index i = 0; i < n; i += 64 / static_cast<Index>(sizeof(X))) {
        __builtin_prefetch(p + i);
    }
}

FASTNET_INLINE Index round_up(Index n, Index multiple) {
    return (n + multiple - 1) / multiple * multiple;
}

// The stride of rows of n elements that are read some vectors at a time: whole vectors, and an odd number of cache
// lines where they are long. A power of two would map all rows to a few sets of the cache.
template <class T> FASTNET_INLINE Index spread(Index n) {
    constexpr Index line = 64 / static_cast<Index>(sizeof(T));
    const Index stride = round_up(n, lanes<T>);
    return stride <= most_vectors * lanes<T> ? stride : (round_up(n, line) / line | 1) * line;
}

FASTNET_INLINE Index min_index(Index a, Index b) {
    return a < b ? a : b;
}

} // namespace fastnet::FASTNET_TARGET
