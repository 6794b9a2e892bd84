// psi(d) - psi(-d), where psi(d) is the change of one row's loss when the pre-activation of one unit moves by d.
//
// Twice h times the central difference by a weight is this, at d = h times the weight's input, summed over the rows.
// Differences are carried from the unit to the loss exactly, so that nothing cancels, however small d is.
#pragma once

#include "kernels/baseline.hpp"

namespace fastnet::FASTNET_TARGET {

// The sum of coefficient[i] x^(i+1) for i < N.
template <class T, int N> FASTNET_INLINE Vec<T> power_series(Vec<T> x, const Vec<T>* coefficient) {
    Vec<T> p = coefficient[N - 1];
    for (int i = N - 1; i-- > 0;) {
        p = coefficient[i] + x * p;
    }
    return x * p;
}

template <class T> T greatest_size(const T* x, Index n) {
    Vec<T> sizes{};
    for_each_vector<T>(n, [&](Index i, Index count) { sizes = max<T>(absolute<T>(load(x + i, count)), sizes); });
    return greatest<T>(sizes);
}

// What a move can meet on its way to the loss, as bits.
namespace obstacle {
inline constexpr unsigned char kink = 1; // a unit changed the side of its kink
inline constexpr unsigned char far = 2;  // something smooth moved by more than about the distance in which it bends
} // namespace obstacle

template <class T> class OddDifferences {
  public:
    explicit OddDifferences(const Baseline<T>& base) : base_(base), net_(base.net), rows_(net_.depth), effect_(2) {
        const Index classes = classes_of(net_);
        for (Index l = 0; l < net_.depth; ++l) {
            const Layer<T>& layer = net_.layers[l];
            rows_.add(layer.weight, l > 0 ? layer.inputs : 0, layer.outputs);
            steepest_weight_ = l > 0 ? greatest_size(layer.weight, layer.inputs * layer.outputs) : T(0);
            smooth_ |= layer.activation == Activation::sigmoid || layer.activation == Activation::tanh;
        }
        // By how much each class's pre-activation moves with a unit of the last layer (itself), and of the one before.
        for (Index l = net_.depth - 1; l >= 0 && l >= net_.depth - 2; --l) {
            const Index units = net_.layers[l].outputs, stride = padded<T>(units);
            T* effect = effect_.add(classes * stride).zeroed();
            for (Index k = 0; k < classes; ++k) {
                for (Index j = 0; j < units; ++j) {
                    effect[k * stride + j] = l == net_.depth - 1 ? T(j == k) : rows_[l + 1].matrix.row(j)[k];
                }
            }
        }
    }

    // A thread's own workspace.
    class Workspace {
      public:
        explicit Workspace(const OddDifferences& d)
            : dz(classes_of(d.net_) * lanes<T>), dy(classes_of(d.net_) * lanes<T>), moves(most_rows),
              from(d.deep() ? most_rows * padded<T>(widest_layer(d.net_)) : 0),
              to(d.deep() ? most_rows * padded<T>(widest_layer(d.net_)) : 0) {
            from.zeroed(), to.zeroed();
        }

        Index evaluations = 0;

      private:
        friend OddDifferences;
        static constexpr Index most_rows = 256; // of differences that go through the layers together
        struct Row {
            Index unit;
            T move; // of the unit's value
            T* odd; // where its effect is added,
            T sign; // with this sign
            unsigned char* met;
        };
        const Array<T> dz, dy;   // (classes, lanes)
        const Array<Row> moves;  // what the rows are
        const Array<T> from, to; // (most_rows, widest layer)
        Index rows = 0;
    };

    // odd (count, stride) = psi(d) - psi(-d) for the moves d (count) of layer l's units, for one row of the chunk.
    // Units for which `wanted` (outputs; null for all) is false are 0. `met` (outputs) is added what any of a unit's
    // moves meets. `stride` is whole vectors.
    void evaluate(Index l, Index row, const T* moves, Index count, const bool* wanted, T* odd, unsigned char* met,
                  Workspace& work) const {
        const Layer<T>& layer = net_.layers[l];
        const Index stride = padded<T>(layer.outputs);
        const T longest = greatest_size(moves, count);
        for (Index j = 0; j < stride; j += lanes<T>) {
            const Index units = min_index(lanes<T>, layer.outputs - j);
            bool any_wanted = wanted == nullptr;
            for (Index i = 0; i < units && !any_wanted; ++i) {
                any_wanted = wanted[j + i];
            }
            with_activation(layer.activation, net_.leaky_slope, [&](auto phi) {
                if (!any_wanted) {
                    for (Index v = 0; v < count; ++v) {
                        store(odd + v * stride + j, Vec<T>{});
                    }
                } else if (longest <= small_move<T>) {
                    evaluate_units<true>(phi, l, row, j, units, moves, count, longest, odd, met, work);
                } else {
                    evaluate_units<false>(phi, l, row, j, units, moves, count, longest, odd, met, work);
                }
            });
            work.evaluations += any_wanted ? 2 * units * count : 0;
        }
        flush(l, row, work);
        for (Index j = 0; wanted && j < layer.outputs; ++j) {
            for (Index v = 0; !wanted[j] && v < count; ++v) {
                odd[v * stride + j] = 0;
            }
        }
    }

  private:
    // Whether there are layers between a unit's next one and the answer.
    bool deep() const { return net_.depth > 2; }

    template <bool Small, class Phi>
    void evaluate_units(Phi phi, Index l, Index row, Index j, Index units, const T* moves, Index count, T longest,
                        T* odd, unsigned char* met, Workspace& work) const {
        const Index stride = padded<T>(net_.layers[l].outputs);
        const Place<T> at = base_.place(l, row, j);
        const auto differ = [&](T d) { return phi.template difference<Small>(at, phi.template move<Small>(splat(d))); };
        for (Index v = 0; Phi::kinked && v < count; ++v) {
            note(met + j, units, obstacle::kink,
                 changes_side<T>(at.a, splat(moves[v])) | changes_side<T>(at.a, splat(-moves[v])));
        }
        if (Phi::bends && longest > 1) {
            note(met + j, units, obstacle::far, Vec<Bits<T>>{} == 0);
        }
        if (l < net_.depth - 2) {
            return enqueue(l, row, j, units, moves, count, differ, odd, met, work);
        }
        const Target<T> target = base_.target(row);
        const T furthest = phi.steepest() * longest;
        const T range = 2 * furthest * (l == net_.depth - 1 ? T(1) : steepest_weight_);
        const bool linear = l == net_.depth - 1 || net_.layers[net_.depth - 1].activation == Activation::identity;
        if (Small && linear && range <= 2 * small_move<T> && net_.output == Output::softmax &&
            net_.loss == Loss::cross_entropy && !target.row) {
            const T shortest = sizeof(T) == 8 ? T(1e-5) : T(5e-3); // range^3 / 24 is below rounding
            return range <= shortest ? by_series<3>(l, row, j, target.label, differ, moves, count, odd + j, stride)
                                     : by_series<5>(l, row, j, target.label, differ, moves, count, odd + j, stride);
        }
        for (Index v = 0; v < count; ++v) {
            const Vec<T> above = loss_of_move(l, row, j, units, differ(moves[v]), target, met, work);
            const Vec<T> below = loss_of_move(l, row, j, units, differ(-moves[v]), target, met, work);
            store(odd + v * stride + j, above - below);
        }
    }

    static void note(unsigned char* met, Index units, unsigned char what, Vec<Bits<T>> mask) {
        if (any<T>(mask)) {
            for (Index i = 0; i < units; ++i) {
                met[i] |= mask[i] != 0 ? what : 0;
            }
        }
    }

    // What a vector of moves d of the pre-activations a of an activation further on meets.
    template <class Phi, class Note> void meet(const Place<T>& at, Vec<T> d, Note&& note_mask) const {
        if constexpr (Phi::kinked) {
            note_mask(obstacle::kink, changes_side<T>(at.a, d));
            if (smooth_) { // bent ways may have crossed and come back: what comes near its kink is no safe ground
                note_mask(obstacle::far, changes_side<T>(at.a, 2 * d));
            }
        }
        if constexpr (Phi::bends) {
            note_mask(obstacle::far, absolute<T>(d) > 1);
        }
    }

    // Whether moves dz of the last layer's units, for class k, are far for the output and the loss: as far as 1 for
    // softmax, or for a logarithm a share of its argument. The squared error is a polynomial.
    Vec<Bits<T>> far_for_loss(const Answer<T>& answer, Index k, Vec<T> dz) const {
        if (net_.output == Output::softmax) {
            return absolute<T>(dz) > 1;
        }
        const T y = answer.y[k] < 0 ? -answer.y[k] : answer.y[k];
        return net_.loss == Loss::cross_entropy ? absolute<T>(dz) > (y + epsilon<T>) / 4 : Vec<Bits<T>>{};
    }

    // How one unit of the last layer but one, or the last, moves each class: (classes, padded units).
    const T* effect(Index l, Index j) const { return effect_[net_.depth - 1 - l].data() + j; }

    // The change of the loss when a vector of units of one of the last two layers changes its values by `dv`.
    Vec<T> loss_of_move(Index l, Index row, Index j, Index units, Vec<T> dv, Target<T> target, unsigned char* met,
                        Workspace& work) const {
        const Index last = net_.depth - 1, stride = padded<T>(net_.layers[l].outputs);
        const Answer<T> answer = base_.answer(row);
        const T* effects = effect(l, j);
        const Activation after = l == last ? Activation::identity : net_.layers[last].activation;
        const auto note_units = [&](unsigned char what, Vec<Bits<T>> mask) { note(met + j, units, what, mask); };
        with_activation(after, net_.leaky_slope, [&]<class Phi>(Phi phi) {
            for (Index k = 0; k < answer.classes; ++k) {
                const Vec<T> d = dv * load(effects + k * stride);
                const Place<T> at = base_.place_of_unit(last, row, k);
                const Vec<T> dz = phi.template difference<false>(at, phi.template move<false>(d));
                store(work.dz.data() + k * lanes<T>, dz);
                meet<Phi>(at, d, note_units);
                note_units(obstacle::far, far_for_loss(answer, k, dz));
            }
        });
        return loss_difference(net_.output, net_.loss, answer, target, work.dz.data(), work.dy.data());
    }

    // The same for small moves, softmax, cross entropy and a label t, for all moves at once.
    //
    // With w_k the effect on class k less that on the likeliest class, a change v of the unit's value changes the loss
    // by -log1p(R (q_t - r) / (1 + r)), where q_k = expm1(w_k v), r = sum_k y_k q_k, R = y_t / (y_t + epsilon). Summed
    // over the classes first, the series of r and of q_t - r in v are the same for all moves of a unit.
    template <int N, class Differ>
    void by_series(Index l, Index row, Index j, Index label, Differ&& differ, const T* moves, Index count, T* odd,
                   Index stride) const {
        const Answer<T> answer = base_.answer(row);
        const T* effects = effect(l, j);
        const Vec<T> effect_on_likeliest = load(effects + answer.likeliest * stride);
        Vec<T> r[N] = {}, rise[N] = {}; // of r, and of R (q_t - r)
        for (Index k = 0; k < answer.classes; ++k) {
            const Vec<T> w = k == answer.likeliest ? Vec<T>{} : load(effects + k * stride) - effect_on_likeliest;
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
        for (Index v = 0; v < count; ++v) {
            store(odd + v * stride, change(differ(-moves[v])) - change(differ(moves[v])));
        }
    }

    // Rows of differences for a vector of units, to go through the layers behind them.
    template <class Differ>
    void enqueue(Index l, Index row, Index j, Index units, const T* moves, Index count, Differ&& differ, T* odd,
                 unsigned char* met, Workspace& work) const {
        const Index stride = padded<T>(net_.layers[l].outputs);
        for (Index v = 0; v < count; ++v) {
            store(odd + v * stride + j, Vec<T>{});
            for (const T sign : {T(1), T(-1)}) {
                const Vec<T> dv = differ(sign * moves[v]);
                for (Index i = 0; i < units; ++i) {
                    if (dv[i] != 0) {
                        work.moves[work.rows++] = {j + i, dv[i], odd + v * stride + j + i, sign, met + j + i};
                        if (work.rows == Workspace::most_rows) {
                            flush(l, row, work);
                        }
                    }
                }
            }
        }
    }

    // Carries the rows of differences from layer l to the loss.
    void flush(Index l, Index row, Workspace& work) const {
        if (work.rows == 0) {
            return;
        }
        checkpoint();
        T *from = work.from.data(), *to = work.to.data();
        const Index last = net_.depth - 1;
        const Index next_stride = padded<T>(net_.layers[l + 1].outputs);
        for (Index r = 0; r < work.rows; ++r) {
            const auto& m = work.moves[r];
            const T* weights = rows_[l + 1].matrix.row(m.unit);
            T* d = from + r * next_stride;
            for (Index j = 0; j < next_stride; j += lanes<T>) {
                store(d + j, m.move * load(weights + j));
            }
        }
        for (Index q = l + 1; q < last; ++q) {
            differ_rows(q, row, work, from);
            const Layer<T>& next = net_.layers[q + 1];
            base_.weights.all().multiply(q + 1, rows_of<T>(from, work.rows, next.inputs, padded<T>(next.inputs)), to,
                                         padded<T>(next.outputs));
            const Index next_outputs = next.outputs, behind = padded<T>(next_outputs) - next_outputs;
            for (Index r = 0; behind > 0 && r < work.rows; ++r) { // what stood there could be taken for moves
                std::memset(to + r * (next_outputs + behind) + next_outputs, 0,
                            static_cast<std::size_t>(behind) * sizeof(T));
            }
            T* const done = from;
            from = to;
            to = done;
        }
        finish(row, from, work);
        work.rows = 0;
    }

    // d (rows, padded) of layer l's pre-activations -> the differences of its units, in place.
    void differ_rows(Index l, Index row, Workspace& work, T* d) const {
        const Layer<T>& layer = net_.layers[l];
        const Index stride = padded<T>(layer.outputs);
        const bool small = greatest_size(d, work.rows * stride) <= small_move<T>;
        with_activation(layer.activation, net_.leaky_slope, [&](auto phi) {
            small ? differ_rows<true>(phi, l, row, stride, work, d) : differ_rows<false>(phi, l, row, stride, work, d);
        });
    }

    template <bool Small, class Phi>
    void differ_rows(Phi phi, Index l, Index row, Index stride, Workspace& work, T* d) const {
        for (Index r = 0; r < work.rows; ++r) {
            Vec<Bits<T>> kinks{}, fars{};
            for (Index j = 0; j < stride; j += lanes<T>) {
                T* at = d + r * stride + j;
                const Place<T> place = base_.place(l, row, j);
                if constexpr (!Small || Phi::kinked) {
                    meet<Phi>(place, load(at), [&](unsigned char what, Vec<Bits<T>> mask) {
                        (what == obstacle::kink ? kinks : fars) |= mask;
                    });
                }
                store(at, phi.template difference<Small>(place, phi.template move<Small>(load(at))));
            }
            if constexpr (!Small || Phi::kinked) {
                *work.moves[r].met |= (any<T>(kinks) ? obstacle::kink : 0) | (any<T>(fars) ? obstacle::far : 0);
            }
        }
    }

    // From differences d (rows, padded classes) of the last layer's pre-activations to the loss.
    void finish(Index row, const T* d, Workspace& work) const {
        const Index last = net_.depth - 1, classes = classes_of(net_), stride = padded<T>(classes);
        const Answer<T> answer = base_.answer(row);
        const Target<T> target = base_.target(row);
        for (Index first = 0; first < work.rows; first += lanes<T>) {
            const Index count = min_index(lanes<T>, work.rows - first);
            T* dz = work.dz.data();
            for (Index k = 0; k < classes; ++k) {
                for (Index i = 0; i < lanes<T>; ++i) {
                    dz[k * lanes<T> + i] = i < count ? d[(first + i) * stride + k] : T(0);
                }
            }
            const auto note_rows = [&](unsigned char what, Vec<Bits<T>> mask) {
                if (any<T>(mask)) {
                    for (Index i = 0; i < count; ++i) {
                        *work.moves[first + i].met |= mask[i] != 0 ? what : 0;
                    }
                }
            };
            with_activation(net_.layers[last].activation, net_.leaky_slope, [&]<class Phi>(Phi phi) {
                for (Index k = 0; k < classes; ++k) {
                    const Vec<T> move = load(dz + k * lanes<T>);
                    const Place<T> at = base_.place_of_unit(last, row, k);
                    const Vec<T> difference = phi.template difference<false>(at, phi.template move<false>(move));
                    store(dz + k * lanes<T>, difference);
                    meet<Phi>(at, move, note_rows);
                    note_rows(obstacle::far, far_for_loss(answer, k, difference));
                }
            });
            const Vec<T> change = loss_difference(net_.output, net_.loss, answer, target, dz, work.dy.data());
            for (Index i = 0; i < count; ++i) {
                *work.moves[first + i].odd += work.moves[first + i].sign * change[i];
            }
        }
    }

    const Baseline<T>& base_;
    const Network<T>& net_;
    List<PaddedCopy<T>> rows_; // every layer's weight but the first's
    List<Array<T>> effect_;    // of the last layer, and of the one before
    T steepest_weight_ = 0;    // of the last layer
    bool smooth_ = false;      // whether any activation bends
};

} // namespace fastnet::FASTNET_TARGET
