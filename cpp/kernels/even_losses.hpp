// Second differences of softmax and of the losses: psi(d) + psi(-d), where psi is the change of one row's loss.
//
// As in `losses.hpp`, a vector of perturbations is taken at a time: element k of the row, for all of them, is the
// vector at k * lanes. `even` and `odd` (classes, lanes) are the pairs of the classes' changes.
#pragma once

#include "kernels/even_differences.hpp"
#include "kernels/losses.hpp"

namespace fastnet::FASTNET_TARGET {

// Pairs (classes, lanes) of what a vector of moves changes in every class.
template <class T> struct ClassPairs {
    T *even, *odd;
    Pair<T> at(Index k) const { return {load(even + k * lanes<T>), load(odd + k * lanes<T>)}; }
    void set(Index k, const Pair<T>& pair) const {
        store(even + k * lanes<T>, pair.even);
        store(odd + k * lanes<T>, pair.odd);
    }
};

// The relative changes g and g' of one class's probability by the two moves: g + g' + g g', and g g'.
template <class T> struct RelativeChanges {
    Vec<T> joint, product, half_difference;
};

// What a pair of moves does to softmax, for moves of at most 1/2.
//
// Adding the same number to every class changes nothing: that of the likeliest class is made 0, and then the mean of
// the odd parts. With A = sum_k y_k expm1(even_k + odd_k), B the same with the other sign, and the odd parts' mean 0,
// A + B = sum_k y_k (2 expm1(even_k) cosh(odd_k) + tau(odd_k)) has the order of h^2 and positive terms, and
// (1 + g_k) (1 + g'_k) = e^(2 even_k) / (1 + A + B + A B).
template <class T> class SoftmaxPair {
  public:
    // Shifts the classes' pairs in place.
    FASTNET_INLINE SoftmaxPair(const Answer<T>& answer, const ClassPairs<T>& moves) : moves_(moves) {
        const Pair<T> shift = moves.at(answer.likeliest);
        Vec<T> mean{};
        for (Index k = 0; k < answer.classes; ++k) {
            Pair<T> move = moves.at(k);
            move = k == answer.likeliest ? Pair<T>{} : Pair<T>{move.even - shift.even, move.odd - shift.odd};
            mean += answer.y[k] * move.odd;
            moves.set(k, move);
        }
        Vec<T> sum{}, half_difference{};
        for (Index k = 0; k < answer.classes; ++k) {
            Pair<T> move = moves.at(k);
            move.odd -= mean;
            moves.set(k, move);
            const Hyperbolic<T> h = hyperbolic<T>(move.odd);
            const Vec<T> u = expm1<T>(move.even);
            sum += answer.y[k] * (2 * u + (1 + u) * h.tau);
            half_difference += answer.y[k] * (1 + u) * h.sinh;
        }
        above_ = T(0.5) * sum + half_difference;
        below_ = T(0.5) * sum - half_difference;
        log_of_both_ = log1p<T>(sum + above_ * below_);
    }

    FASTNET_INLINE RelativeChanges<T> of_class(Index k) const {
        const Pair<T> move = moves_.at(k);
        const Vec<T> up = (expm1<T>(move.even + move.odd) - above_) / (1 + above_);
        const Vec<T> down = (expm1<T>(move.even - move.odd) - below_) / (1 + below_);
        return {expm1<T>(2 * move.even - log_of_both_), up * down, T(0.5) * (up - down)};
    }

  private:
    const ClassPairs<T> moves_;
    Vec<T> above_, below_, log_of_both_;
};

// f(y_k + q) + f(y_k - q) - 2 f(y_k) for the share f of one class in each loss; y need not be the answer itself.
template <class T> FASTNET_INLINE Vec<T> second_difference(SquaredError<T>, Vec<T>, T, Vec<T> q) {
    return q * q;
}

template <class T> FASTNET_INLINE Vec<T> second_difference(BinaryCrossEntropy<T>, Vec<T> y, T, Vec<T> q) {
    return 2 * even_of_softplus<T>(Softplus<T>{}.base_point(y), q);
}

// q^2 inside, 0 beyond. With e = |r| - delta, the end that is further out has crossed by q + e or the other one has
// come back by q - e; `through` is how far that one has gone beyond the other side.
template <class T> FASTNET_INLINE Vec<T> second_difference(Huber<T> loss, Vec<T> y, T t, Vec<T> odd) {
    const Vec<T> q = absolute<T>(odd), r = absolute<T>(y - t), e = r - loss.delta;
    const Vec<T> out = max<T>(q + e, Vec<T>{}), back = max<T>(q - e, Vec<T>{}), through = q - r - loss.delta;
    const Vec<T> from_inside = q * q - T(0.5) * out * out - (through > 0 ? T(0.5) * through * through : Vec<T>{});
    const Vec<T> from_outside = through > 0 ? 2 * loss.delta * (q - r) : T(0.5) * back * back;
    return e > 0 ? from_outside : from_inside;
}

template <class T> FASTNET_INLINE Vec<T> second_difference(AbsoluteError<T>, Vec<T> y, T t, Vec<T> q) {
    return 2 * max<T>(absolute<T>(q) - absolute<T>(y - t), Vec<T>{});
}

// The sum of the losses' changes by a pair of changes of the answers.
template <class T, class L>
FASTNET_INLINE Vec<T> sum_of_changes(L loss, const Answer<T>& answer, Target<T> t, const ClassPairs<T>& changes) {
    const auto after = [&](Index k) { return answer.y[k] + load(changes.even + k * lanes<T>); };
    Vec<T> total = 2 * loss.difference(answer.y, changes.even, t, answer.classes, after);
    for (Index k = 0; k < answer.classes; ++k) {
        total += second_difference(loss, after(k), t(k), load(changes.odd + k * lanes<T>));
    }
    return total;
}

// -sum_k t_k (log1p(R_k g_k) + log1p(R_k g'_k)) with R_k = y_k / (y_k + epsilon), as the logarithm of the product.
template <class T>
FASTNET_INLINE Vec<T> sum_of_changes(CrossEntropy<T>, const Answer<T>& answer, Target<T> t,
                                     const SoftmaxPair<T>& pair) {
    const auto of_class = [&](Index k) {
        const T base = answer.y[k] + epsilon<T>, share = answer.y[k] / base, rest = epsilon<T> / base;
        const RelativeChanges<T> g = pair.of_class(k);
        return log1p<T>(share * (g.joint - rest * g.product));
    };
    if (!t.row) {
        return -of_class(t.label);
    }
    Vec<T> total{};
    for (Index k = 0; k < answer.classes; ++k) {
        if (t.row[k] != 0) {
            total -= t.row[k] * of_class(k);
        }
    }
    return total;
}

// psi(d) + psi(-d) by two differences, where nothing cancels; up and dy (classes, lanes) are workspaces.
template <class T>
Vec<T> plain_sum_of_changes(const Network<T>& net, const Answer<T>& answer, Target<T> t, const ClassPairs<T>& moves,
                            T* up, T* dy) {
    Vec<T> total{};
    for (const T sign : {T(1), T(-1)}) {
        for (Index k = 0; k < answer.classes; ++k) {
            store(up + k * lanes<T>, moves.at(k).even + sign * moves.at(k).odd);
        }
        total += loss_difference(net.output, net.loss, net.loss_constant, answer, t, up, dy);
    }
    return total;
}

// psi(d) + psi(-d) of one row, from the pairs of the last layer's units, which are overwritten; `work` (2 * classes *
// lanes) is a workspace.
template <class T>
Vec<T> sum_of_loss_changes(const Network<T>& net, const Answer<T>& answer, Target<T> t, const ClassPairs<T>& moves,
                           T* work) {
    const bool soft = net.output == Output::softmax;
    Vec<Bits<T>> far{};
    Vec<T> plain{};
    if (soft || net.loss == Loss::cross_entropy) {
        const Pair<T> shift = moves.at(answer.likeliest);
        for (Index k = 0; k < answer.classes; ++k) {
            const Pair<T> move = moves.at(k);
            far |= !(absolute<T>(move.even - shift.even) + absolute<T>(move.odd - shift.odd) <= T(0.5));
        }
        if (!soft || any<T>(far)) {
            plain = plain_sum_of_changes(net, answer, t, moves, work, work + answer.classes * lanes<T>);
        }
        if (!soft) { // the logarithm of another answer, of which nothing is known
            return plain;
        }
    }
    const Vec<T> near = with_loss<T>(net.loss, net.loss_constant, [&]<class L>(L loss) {
        if (!soft) {
            if constexpr (!__is_same(L, CrossEntropy<T>)) {
                return sum_of_changes(loss, answer, t, moves);
            }
            return Vec<T>{};
        }
        if (any<T>(far)) {
            for (Index k = 0; k < answer.classes; ++k) {
                const Pair<T> move = moves.at(k);
                moves.set(k, {far ? Vec<T>{} : move.even, far ? Vec<T>{} : move.odd});
            }
        }
        const SoftmaxPair<T> pair(answer, moves);
        if constexpr (__is_same(L, CrossEntropy<T>)) {
            return sum_of_changes(loss, answer, t, pair);
        } else {
            for (Index k = 0; k < answer.classes; ++k) {
                const RelativeChanges<T> g = pair.of_class(k);
                const T y = answer.y[k];
                moves.set(k, {T(0.5) * y * (g.joint - g.product), y * g.half_difference});
            }
            return sum_of_changes(loss, answer, t, moves);
        }
    });
    return far ? plain : near;
}

} // namespace fastnet::FASTNET_TARGET
