// Outputs and losses of one row: softmax; cross entropy, squared error, binary cross entropy, Huber, absolute error:
// value, derivative and difference of each.
//
// Differences are taken for a vector of perturbations at a time: element k of the row, for all of them, is the vector
// at k * lanes. They keep their digits however small they are, and no derivative enters them.
#pragma once

#include "kernels/activations.hpp"

namespace fastnet::FASTNET_TARGET {

// Inside the logarithm of the cross entropy, so that an answer of 0 has a finite loss.
template <class T> inline constexpr T epsilon = T(1e-7);

FASTNET_INLINE double log(double x) {
    return __builtin_log(x);
}
FASTNET_INLINE float log(float x) {
    return __builtin_logf(x);
}

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
                row[v] = first_lanes_of<T>(exp<T>(first_lanes_of<T>(row[v] - top, count)), count);
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
        const Vec<T> e = first_lanes_of<T>(exp<T>(load(a + k, count, top) - top), count);
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
        const Vec<T> e = exp<T>(used ? row - top : Vec<T>{});
        Vec<T> total = used ? e : Vec<T>{};
        const Vec<T> kept = total;
        for (Index half = Width / 2; half > 0; half /= 2) {
            total += exchanged<T>(total, half);
        }
        Lanes::store(y, stride, kept / total);
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
        total += exp<T>(at.z[i] + load(dz + i * lanes<T>) - greatest);
    }
    return exp<T>(at.z[k] + load(dz + k * lanes<T>) - greatest) / total;
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

// The target of one row: a class label, or a row of n values.
template <class T> struct Target {
    Index label;
    const T* row; // null where the label counts

    T operator()(Index k) const { return row ? row[k] : k == label ? T(1) : T(0); }
    // The n values from class k on.
    Vec<T> vector(Index k, Index n) const {
        return row ? load(row + k, n) : counted<T>() == static_cast<Bits<T>>(label - k) ? splat(T(1)) : splat(T(0));
    }
};

template <class T> FASTNET_INLINE Target<T> target_of(const Targets<T>& targets, Index row, Index classes) {
    return targets.rows ? Target<T>{-1, targets.rows + row * classes}
                        : Target<T>{static_cast<Index>(targets.labels[row]), nullptr};
}

// -sum_k t_k log(y_k + epsilon); `derivative` is with respect to y_k.
template <class T> struct CrossEntropy {
    T value(const T* y, Target<T> t, Index n) const {
        if (!t.row) {
            return -log(y[t.label] + epsilon<T>);
        }
        T total = 0;
        for (Index k = 0; k < n; ++k) {
            total -= t.row[k] * log(y[k] + epsilon<T>);
        }
        return total;
    }
    Vec<T> derivative(Vec<T> y, Vec<T> t) const { return -t / (y + epsilon<T>); }
    // -sum_k t_k log1p(dy_k / (y_k + epsilon)); `after(k)` is y_k + dy_k to full accuracy.
    template <class After> Vec<T> difference(const T* y, const T* dy, Target<T> t, Index n, After&& after) const {
        const auto of_class = [&](Index k) {
            return of_answer(y[k], load(dy + k * lanes<T>), [&] { return after(k); });
        };
        if (!t.row) {
            return of_class(t.label);
        }
        Vec<T> total{};
        for (Index k = 0; k < n; ++k) {
            total += t.row[k] * of_class(k);
        }
        return total;
    }
    // The same of one answer whose target is 1.
    template <class After> FASTNET_INLINE static Vec<T> of_answer(T y, Vec<T> dy, After&& after) {
        const T base = y + epsilon<T>;
        const Vec<T> x = dy / base;
        if (!any<T>(~(absolute<T>(x) <= small_move<T>))) {
            return -short_log1p<T, 4>(x);
        }
        const auto falls = x < T(-0.5); // where 1 + x cancels, and the logarithms do not
        const Vec<T> change = log1p<T>(x);
        return -(any<T>(falls) ? (falls ? log_of_sum<T>((after() + epsilon<T>) / base, Vec<T>{}) : change) : change);
    }
};

// 1/2 sum_k (y_k - t_k)^2; `derivative` is with respect to y_k.
template <class T> struct SquaredError {
    T value(const T* y, Target<T> t, Index n) const {
        T total = 0;
        for (Index k = 0; k < n; ++k) {
            const T d = y[k] - t(k);
            total += d * d;
        }
        return total / 2;
    }
    Vec<T> derivative(Vec<T> y, Vec<T> t) const { return y - t; }
    // sum_k dy_k (y_k - t_k + dy_k / 2)
    template <class After> Vec<T> difference(const T* y, const T* dy, Target<T> t, Index n, After&&) const {
        Vec<T> total{};
        for (Index k = 0; k < n; ++k) {
            const Vec<T> d = load(dy + k * lanes<T>);
            total += d * (y[k] - t(k) + d / 2);
        }
        return total;
    }
};

FASTNET_INLINE double softplus_of_negative(double x) {
    return __builtin_log1p(__builtin_exp(x));
}
FASTNET_INLINE float softplus_of_negative(float x) {
    return __builtin_log1pf(__builtin_expf(x));
}

// sum_k softplus(y_k) - t_k y_k, which is the cross entropy of sigma(y_k) with targets from 0 to 1.
template <class T> struct BinaryCrossEntropy {
    // The part that grows without bound, (1 - t) y or -t y, has no negative term, and the rest is at most log 2.
    T value(const T* y, Target<T> t, Index n) const {
        T total = 0;
        for (Index k = 0; k < n; ++k) {
            total +=
                y[k] > 0 ? (1 - t(k)) * y[k] + softplus_of_negative(-y[k]) : -t(k) * y[k] + softplus_of_negative(y[k]);
        }
        return total;
    }
    // sigma(y) - t, from the side where sigma is small.
    Vec<T> derivative(Vec<T> y, Vec<T> t) const {
        const Vec<T> e = exp<T>(-absolute<T>(y));
        const Vec<T> small = e / (1 + e);
        return y > 0 ? (1 - t) - small : small - t;
    }
    // With D(y, d) the difference of softplus, D(y, d) - d = D(-y, -d). So it is (1 - t) D(y, d) + t D(-y, -d): no
    // cancellation for t = 0 and t = 1.
    template <class After> Vec<T> difference(const T* y, const T* dy, Target<T> t, Index n, After&&) const {
        Vec<T> total{};
        for (Index k = 0; k < n; ++k) {
            const Vec<T> d = load(dy + k * lanes<T>);
            if (t(k) != 1) {
                total += (1 - t(k)) * of_softplus(y[k], d);
            }
            if (t(k) != 0) {
                total += t(k) * of_softplus(-y[k], -d);
            }
        }
        return total;
    }

  private:
    static Vec<T> of_softplus(T y, Vec<T> d) {
        const Softplus<T> phi;
        return phi.template difference<false>(phi.base_point(splat(y)), phi.template move<false>(d));
    }
};

// sum_k of 1/2 r^2 for |r| <= delta and delta (|r| - delta / 2) beyond, where r = y_k - t_k.
template <class T> struct Huber {
    T delta;
    T value(const T* y, Target<T> t, Index n) const {
        T total = 0;
        for (Index k = 0; k < n; ++k) {
            const T r = y[k] - t(k), size = r < 0 ? -r : r;
            total += size > delta ? delta * (size - delta / 2) : r * r / 2;
        }
        return total;
    }
    Vec<T> derivative(Vec<T> y, Vec<T> t) const { return clamped(y - t); }
    // The parts of the way from r to r + d: `inner` within delta, and those beyond. The end of the way is taken
    // relative to `first`, because r + d would be rounded to the digits of r.
    template <class After> Vec<T> difference(const T* y, const T* dy, Target<T> t, Index n, After&&) const {
        Vec<T> total{};
        for (Index k = 0; k < n; ++k) {
            const Vec<T> d = load(dy + k * lanes<T>), from = splat(y[k] - t(k)), to = from + d;
            const Vec<T> first = clamped(from), last = clamped(to), before = from - first, way = d + before;
            const Vec<T> inner = last == to ? way : last - first;
            const auto beyond = (first != from) & (first == last);
            const Vec<T> outer = absolute<T>(way - inner) - absolute<T>(before);
            total += beyond ? first * d : inner * (first + inner / 2) + delta * outer;
        }
        return total;
    }

  private:
    Vec<T> clamped(Vec<T> r) const {
        r = r > delta ? splat(delta) : r;
        return r < -delta ? splat(-delta) : r;
    }
};

// sum_k |y_k - t_k|, with the derivative 0 at the kink.
template <class T> struct AbsoluteError {
    T value(const T* y, Target<T> t, Index n) const {
        T total = 0;
        for (Index k = 0; k < n; ++k) {
            const T r = y[k] - t(k);
            total += r < 0 ? -r : r;
        }
        return total;
    }
    Vec<T> derivative(Vec<T> y, Vec<T> t) const {
        const Vec<T> r = y - t;
        return r > 0 ? splat(T(1)) : r < 0 ? splat(T(-1)) : r;
    }
    template <class After> Vec<T> difference(const T* y, const T* dy, Target<T> t, Index n, After&&) const {
        Vec<T> total{};
        for (Index k = 0; k < n; ++k) {
            const Vec<T> d = load(dy + k * lanes<T>), from = splat(y[k] - t(k)), to = from + d;
            const Vec<T> same = from > 0 ? d : -d, across = from > 0 ? -to - from : to + from;
            total += (from > 0) == (to > 0) ? same : across;
        }
        return total;
    }
};

// f(loss) with the loss as a type. `constant` is that of `Network`.
template <class T, class F> FASTNET_INLINE decltype(auto) with_loss(Loss kind, T constant, F&& f) {
    switch (kind) {
    case Loss::cross_entropy:
        return f(CrossEntropy<T>{});
    case Loss::binary_cross_entropy:
        return f(BinaryCrossEntropy<T>{});
    case Loss::huber:
        return f(Huber<T>{constant});
    case Loss::absolute_error:
        return f(AbsoluteError<T>{});
    case Loss::mean_squared_error:
        break;
    }
    return f(SquaredError<T>{});
}

// y (n) -> dz (n): the derivative of the mean loss of `rows` rows with respect to the last layer's units, from one
// row's answer.
template <class T, class L>
FASTNET_INLINE void derive_row(const L& loss, Output output, const T* y, Target<T> t, Index n, T rows, T* dz) {
    if (in_registers<T>(n, [&]<int V>() {
            Vec<T> answer[V], d[V], products{};
            load_row(y, n, answer);
            for (int v = 0; v < V; ++v) {
                d[v] = loss.derivative(answer[v], t.vector(v * lanes<T>, min_index(lanes<T>, n - v * lanes<T>)));
                products += answer[v] * d[v];
            }
            const T inner = output == Output::softmax ? sum<T>(products) : T(0);
            for (int v = 0; v < V; ++v) {
                d[v] = (output == Output::softmax ? answer[v] * (d[v] - inner) : d[v]) / rows;
            }
            store_row(dz, n, d);
        })) {
        return;
    }
    for_each_vector<T>(n, [&](Index k, Index count) {
        store(dz + k, loss.derivative(load(y + k, count), t.vector(k, count)), count);
    });
    if (output == Output::softmax) {
        softmax_row_backward(y, dz, dz, n);
    }
    for_each_vector<T>(n, [&](Index k, Index count) { store(dz + k, load(dz + k, count) / rows, count); });
}

// The difference of the loss of one row, from dz (classes, lanes) of softmax's argument or of the answer itself. `dy`
// is a workspace of the same size; with softmax it holds the answers' differences afterwards, unless one was enough.
template <class T>
Vec<T> loss_difference(Output output, Loss kind, T constant, const Answer<T>& at, Target<T> t, const T* dz, T* dy) {
    if (output == Output::softmax && kind == Loss::cross_entropy && !t.row) { // one answer is enough
        const SoftmaxDifference<T> difference(at, dz, dy);
        return CrossEntropy<T>::of_answer(at.y[t.label], difference(t.label),
                                          [&] { return softmax_after(at, dz, t.label); });
    }
    return with_loss<T>(kind, constant, [&](auto loss) {
        if (output == Output::softmax) {
            softmax_difference(at, dz, dy);
            return loss.difference(at.y, dy, t, at.classes, [&](Index k) { return softmax_after(at, dz, k); });
        }
        return loss.difference(at.y, dz, t, at.classes, [&](Index k) { return at.y[k] + load(dz + k * lanes<T>); });
    });
}

// Compiled once for all kernels, in shared.cpp.
extern template Vec<float> loss_difference(Output, Loss, float, const Answer<float>&, Target<float>, const float*,
                                           float*);
extern template Vec<double> loss_difference(Output, Loss, double, const Answer<double>&, Target<double>, const double*,
                                            double*);

} // namespace fastnet::FASTNET_TARGET
