// Softmax of rows: value, derivative and difference.
//
// Differences are taken for a vector of perturbations at a time: element k of the row, for all of them, is the vector
// at k * lanes. They keep their digits however small they are, and no derivative enters them.
#pragma once

#include <utility>

#include "kernels/activations.hpp"

namespace fastnet::FASTNET_TARGET {

// a (n) -> y (n), may be the same array: e^(a - max a) / sum. A row with NaN, or with nothing finite, becomes NaN.
template <class T> FASTNET_INLINE void softmax_row(const T* a, T* y, Index n) {
    // Behind the row. Its exponential is not taken: a product that underflows costs some processors 100 cycles.
    constexpr T least = -static_cast<T>(__builtin_huge_val());
    Vec<T> tops = splat(least), total{};
    if (in_registers<T>(n, [&]<int V>() {
            Vec<T> row[V];
            load_row(a, n, row, least);
            for (int v = 0; v < V; ++v) {
                tops = max<T>(row[v], tops);
            }
            const T top = greatest<T>(tops);
            for (int v = 0; v < V; ++v) {
                const Index count = min_index(lanes<T>, n - v * lanes<T>);
                row[v] = first_lanes_of<T>(exp_negative<T>(first_lanes_of<T>(row[v] - top, count)), count);
                total += row[v];
            }
            const T sum_of_all = sum<T>(total);
            for (int v = 0; v < V; ++v) {
                row[v] = row[v] / sum_of_all;
            }
            store_row(y, n, row);
        })) {
        return;
    }
    for_each_vector<T>(n, [&](Index k, Index count) { tops = max<T>(load(a + k, count, least), tops); });
    const T top = greatest<T>(tops);
    for_each_vector<T>(n, [&](Index k, Index count) {
        const Vec<T> e = first_lanes_of<T>(exp_negative<T>(load(a + k, count, top) - top), count);
        store(y + k, e, count);
        total += e;
    });
    const T sum_of_all = sum<T>(total);
    for_each_vector<T>(n, [&](Index k, Index count) { store(y + k, load(y + k, count) / sum_of_all, count); });
}

// Lanes of several rows, one after the other, from `Width` of each; and back.
template <class T, Index Width> struct RowsInLanes {
    typedef T Row __attribute__((vector_size(Width * static_cast<Index>(sizeof(T)))));
    static constexpr Index rows = lanes<T> / Width;

    template <Index Rows, Index... I>
    FASTNET_INLINE static auto gather(const T* from, Index stride, std::integer_sequence<Index, I...>) {
        if constexpr (Rows == 1) {
            Row row;
            std::memcpy(&row, from, sizeof row);
            return row;
        } else {
            const auto half = std::make_integer_sequence<Index, sizeof...(I) / 2>{};
            const auto first = gather<Rows / 2>(from, stride, half);
            const auto second = gather<Rows / 2>(from + Rows / 2 * stride, stride, half);
            return __builtin_shufflevector(first, second, I...);
        }
    }
    FASTNET_INLINE static Vec<T> load(const T* from, Index stride) {
        return gather<rows>(from, stride, std::make_integer_sequence<Index, lanes<T>>{});
    }
    FASTNET_INLINE static void store(T* to, Index stride, Vec<T> v) {
        for (Index r = 0; r < rows; ++r) {
            std::memcpy(to + r * stride, reinterpret_cast<const T*>(&v) + r * Width, sizeof(Row));
        }
    }
};

// a (n) -> y (n) for rows of at most half a vector: several at a time, with the bits of `softmax_row`. What is behind
// the n elements of a row is read, and overwritten.
template <class T, Index Width> void softmax_short_rows(const T* a, T* y, Index stride, Index rows, Index n) {
    using Lanes = RowsInLanes<T, Width>;
    const Vec<Bits<T>> used = (counted<T>() & static_cast<Bits<T>>(Width - 1)) < static_cast<Bits<T>>(n);
    for (Index i = 0; i + Lanes::rows <= rows; i += Lanes::rows, a += Lanes::rows * stride, y += Lanes::rows * stride) {
        const Vec<T> row = Lanes::load(a, stride);
        const Vec<T> least = splat(-static_cast<T>(__builtin_huge_val()));
        Vec<T> top = (used & (row > least)) ? row : least;
        for (Index half = Width / 2; half > 0; half /= 2) {
            top = max<T>(top, exchanged<T>(top, half));
        }
        const Vec<T> e = exp_negative<T>(used ? row - top : Vec<T>{}), powers = used ? e : Vec<T>{};
        Vec<T> total = powers;
        for (Index half = Width / 2; half > 0; half /= 2) {
            total += exchanged<T>(total, half);
        }
        Lanes::store(y, stride, powers / total);
    }
    for (Index i = rows / Lanes::rows * Lanes::rows; i < rows; ++i, a += stride, y += stride) {
        softmax_row(a, y, n);
    }
}

// a (rows, n) -> y: softmax of each row. The stride of both is whole vectors.
template <class T> void softmax_rows(const T* a, T* y, Index stride, Index rows, Index n) {
    if constexpr (lanes<T> >= 8) {
        if (n <= lanes<T> / 4) {
            return softmax_short_rows<T, lanes<T> / 4>(a, y, stride, rows, n);
        }
    }
    if constexpr (lanes<T> >= 4) {
        if (n <= lanes<T> / 2) {
            return softmax_short_rows<T, lanes<T> / 2>(a, y, stride, rows, n);
        }
    }
    for (Index i = 0; i < rows; ++i, a += stride, y += stride) {
        softmax_row(a, y, n);
    }
}

// dy (n) -> da (n), may be the same array: the derivative of the loss with respect to softmax's argument, from the
// one with respect to its value y.
template <class T> FASTNET_INLINE void softmax_row_backward(const T* y, const T* dy, T* da, Index n) {
    Vec<T> products{};
    for_each_vector<T>(n, [&](Index k, Index count) { products += load(y + k, count) * load(dy + k, count); });
    const T inner = sum<T>(products);
    for_each_vector<T>(
        n, [&](Index k, Index count) { store(da + k, load(y + k, count) * (load(dy + k, count) - inner), count); });
}

// The answer of one row, from which differences start.
template <class T> struct Answer {
    const T* z; // (classes): softmax's argument, or the answer itself
    const T* y; // (classes)
    Index classes;
    Index likeliest; // the class of the greatest y
};

// The value of softmax at z + dz, for class k; dz (classes, lanes). For differences so great that nothing cancels.
template <class T> Vec<T> softmax_after(const Answer<T>& at, const T* dz, Index k) {
    Vec<T> greatest = at.z[0] + load(dz), total{};
    for (Index i = 1; i < at.classes; ++i) {
        greatest = max<T>(at.z[i] + load(dz + i * lanes<T>), greatest);
    }
    for (Index i = 0; i < at.classes; ++i) {
        total += exp_negative<T>(at.z[i] + load(dz + i * lanes<T>) - greatest);
    }
    return exp_negative<T>(at.z[k] + load(dz + k * lanes<T>) - greatest) / total;
}

// softmax(z + dz) - softmax(z).
//
// With q_k = expm1(dz_k) and r = sum_k y_k q_k it is y_k (q_k - r) / (1 + r). Adding the same number to every dz_k
// changes nothing; that of the likeliest class is made 0. So 1 + r is at least its probability, and neither 1 + r nor
// q_k - r cancels, whichever class has nearly all the probability.
template <class T> class SoftmaxDifference {
  public:
    // dz and q, a workspace: (classes, lanes).
    FASTNET_INLINE SoftmaxDifference(const Answer<T>& at, const T* dz, T* q) : at_(at), dz_(dz), q_(q) {
        const Vec<T> shift = load(dz + at.likeliest * lanes<T>);
        Vec<Bits<T>> small = as_bits<T>(shift) == as_bits<T>(shift);
        for (Index k = 0; k < at.classes; ++k) {
            const Vec<T> d = load(dz + k * lanes<T>) - shift;
            small &= absolute<T>(d) <= small_move<T>; // NaN is not
            store(q + k * lanes<T>, d);
        }
        store(q + at.likeliest * lanes<T>, Vec<T>{});
        if (any<T>(~small)) {
            sum_up([](Vec<T> d) { return expm1<T>(d); });
        } else {
            sum_up([](Vec<T> d) { return short_expm1<T, 4>(d); });
        }
    }

    // The difference of class k.
    FASTNET_INLINE Vec<T> operator()(Index k) const {
        const Vec<T> exact = at_.y[k] * (load(q_ + k * lanes<T>) - r_) * scale_;
        return any_too_long_ ? (too_long_ ? softmax_after(at_, dz_, k) - at_.y[k] : exact) : exact;
    }

  private:
    // Makes q_k of the shifted moves, and r.
    template <class F> FASTNET_INLINE void sum_up(F&& expm1_of) {
        constexpr T longest = sizeof(T) == 8 ? T(600) : T(80); // its exponential is finite, with room for sums
        for (Index k = 0; k < at_.classes; ++k) {
            const Vec<T> d = load(q_ + k * lanes<T>), q = expm1_of(d);
            too_long_ |= d > longest;
            r_ += at_.y[k] * q;
            store(q_ + k * lanes<T>, q);
        }
        scale_ = 1 / (1 + r_);
        any_too_long_ = any<T>(too_long_);
    }

    const Answer<T>& at_;
    const T* const dz_;
    T* const q_;
    Vec<T> r_{}, scale_{};
    Vec<Bits<T>> too_long_{};
    bool any_too_long_ = false;
};

// dz -> dy (classes, lanes): the differences of all classes.
template <class T> FASTNET_INLINE void softmax_difference(const Answer<T>& at, const T* dz, T* dy) {
    const SoftmaxDifference<T> difference(at, dz, dy);
    for (Index k = 0; k < at.classes; ++k) {
        store(dy + k * lanes<T>, difference(k));
    }
}

} // namespace fastnet::FASTNET_TARGET
