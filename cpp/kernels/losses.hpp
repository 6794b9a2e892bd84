// Losses of one row: cross entropy, squared error, binary cross entropy, Huber, absolute error: value, derivative and
// difference of each. Differences are as in softmax.hpp.
#pragma once

#include "kernels/softmax.hpp"

namespace fastnet::FASTNET_TARGET {

// Inside the logarithm of the cross entropy, so that an answer of 0 has a finite loss.
template <class T> inline constexpr T epsilon = T(1e-7);

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
            return of_probability(splat(y[t.label]))[0];
        }
        T total = 0;
        for_each_vector<T>(n, [&](Index k, Index count) {
            const Vec<T> of_class = of_probability(load(y + k, count));
            for (Index i = 0; i < count; ++i) {
                total += t.row[k + i] * of_class[i];
            }
        });
        return total;
    }
    // The loss of rows whose target's class has these answers.
    static Vec<T> of_probability(Vec<T> y) { return -log<T>(y + epsilon<T>); }
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
        const Vec<T> e = exp_negative<T>(negative_absolute<T>(y));
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
    Vec<T> clamped(Vec<T> r) const { return FASTNET_TARGET::clamped<T>(r, -delta, delta); }
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
