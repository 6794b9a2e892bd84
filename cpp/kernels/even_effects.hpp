// psi(d) + psi(-d), where psi(d) is the change of one row's loss when the pre-activation of one unit moves by d.
//
// h^2 times the second difference with respect to a weight is this, at d = h times the weight's input, summed over the
// rows. The two moves go through the network as a pair, the even and the odd part side by side: both pass through an
// affine layer unchanged in form, and each activation makes a new pair of them. So nothing cancels, however small d is.
#pragma once

#include "kernels/even_series.hpp"
#include "kernels/move_deep.hpp"
#include "kernels/move_direct.hpp"

namespace fastnet::FASTNET_TARGET {

template <class T> class EvenEffects {
  public:
    static constexpr int power = 2; // of d, to which the effect is proportional for short moves

    explicit EvenEffects(const BasePoints<T>& base)
        : base_(base), net_(base.net), smooth_(bends_somewhere(base.net)), direct_(base), weights_(net_.depth) {
        for (Index l = 0; l < net_.depth; ++l) {
            const Layer<T>& layer = net_.layers[l];
            weights_.add(layer.weight, net_.depth > 2 && l > 0 ? layer.inputs : 0, layer.outputs);
        }
    }

    // A thread's own workspace; the queue has the pairs that wait to go through the layers, all of one layer and row.
    class Workspace {
      public:
        explicit Workspace(const Network<T>& net)
            : classes_(classes_of(net) * lanes<T>), loss_(4 * classes_), queue_(capacity(net)),
              from_(2 * capacity(net) * padded<T>(widest_layer(net))),
              to_(2 * capacity(net) * padded<T>(widest_layer(net))) {
            from_.zeroed();
            to_.zeroed();
        }
        Index evaluations = 0;

      private:
        friend EvenEffects;
        static constexpr Index most_pairs = 128;
        static Index capacity(const Network<T>& net) { return net.depth > 2 ? most_pairs : 0; }
        struct Queued {
            Index unit;
            T even, odd; // of the unit's value
            T* effect;
            unsigned char* obstacles;
        };
        ClassPairs<T> pairs() const { return {loss_.data(), loss_.data() + classes_}; }
        T* scratch() const { return loss_.data() + 2 * classes_; }

        const Index classes_;
        const Array<T> loss_; // (4, classes, lanes)
        const Array<Queued> queue_;
        const Array<T> from_, to_; // (2 most_pairs, widest layer): the even parts, and behind them the odd ones
        Index count_ = 0;
    };

    // Fills the results for the moves d (count) of layer l's units, for one row of the chunk. The results of units
    // that are not wanted are 0.
    void evaluate(Index l, Index row, const T* d, Index count, UnitMask wanted, const Results<T>& results,
                  Workspace& work) const {
        const Layer<T>& layer = net_.layers[l];
        const Moves<T> moves{d, count, greatest_size(d, count)};
        for (Index j = 0; j < results.stride; j += lanes<T>) {
            const UnitBlock block{l, row, j, min_index(lanes<T>, layer.outputs - j)};
            if (!wanted.any(j, block.units)) {
                for (Index v = 0; v < count; ++v) {
                    store(results.effects + v * results.stride + j, Vec<T>{});
                }
                continue;
            }
            evaluate_block(block, moves, results, work);
            work.evaluations += 2 * block.units * count;
        }
        flush(l, row, work);
        if (wanted.kind == UnitMask::some) {
            clear_others(wanted, layer.outputs, count, results);
        }
    }

  private:
    static constexpr Index most_changes = 8; // of a block's units, held at a time

    // What each of a vector of moves meets.
    struct Met {
        Vec<Bits<T>> kinks{}, fars{};
        FASTNET_INLINE void operator()(unsigned char what, Vec<Bits<T>> mask) {
            (what == obstacle::kink ? kinks : fars) |= mask;
        }
    };

    void evaluate_block(const UnitBlock& block, const Moves<T>& moves, const Results<T>& results,
                        Workspace& work) const {
        T* const effects = results.effects + block.j;
        const bool direct = direct_.handles(block.l);
        Pair<T> changes[most_changes];
        for (Index first = 0; first < moves.count; first += most_changes) {
            const Index count = min_index(most_changes, moves.count - first);
            const bool series = change_units(block, moves, first, count, results.obstacles + block.j, changes);
            if (series) {
                const LossSeries<T> loss = loss_series(base_.answer(block.row), base_.target(block.row).label,
                                                       direct_.slopes_of(block), results.stride);
                for (Index v = 0; v < count; ++v) {
                    store(effects + (first + v) * results.stride, loss.sum_of_changes(changes[v]));
                }
                continue;
            }
            for (Index v = 0; v < count; ++v) {
                T* const effect = effects + (first + v) * results.stride;
                if (direct) {
                    store(effect, direct_effect(block, changes[v], results, work));
                } else {
                    enqueue(block, changes[v], effect, results, work);
                }
            }
        }
    }

    // The changes (count) of a block's units by its moves from `first` on. Returns whether a series tells their
    // effects.
    bool change_units(const UnitBlock& block, const Moves<T>& moves, Index first, Index count, unsigned char* obstacles,
                      Pair<T>* changes) const {
        const BasePoint<T> point = base_.at(block.l, block.row, block.j);
        const Layer<T>& layer = net_.layers[block.l];
        return with_activation(layer.activation, layer.constant, [&](auto phi) {
            find_unit_obstacles(phi, point, block, Moves<T>{moves.d + first, count, moves.longest}, obstacles);
            for (Index v = 0; v < count; ++v) {
                changes[v] = symmetric_pair(phi, point, splat(moves.d[first + v]));
            }
            return direct_.handles(block.l) && direct_.takes_series(phi, block, moves, small_move<T> / 2);
        });
    }

    // Pairs of moves of layer l's pre-activations, from unit `first` on, -> those of its units, in place: `count`
    // vectors of units, or of moves of one unit each (`each`).
    Met change_pairs(Index l, Activation activation, Index row, Index count, bool each,
                     const ClassPairs<T>& pairs) const {
        Met met;
        with_activation(activation, net_.layers[l].constant, [&]<class Phi>(Phi phi) {
            for (Index i = 0; i < count; ++i) {
                const BasePoint<T> point = each ? base_.at_unit(l, row, i) : base_.at(l, row, i * lanes<T>);
                const Pair<T> move = pairs.at(i);
                find_obstacles<Phi>(point, move.even + move.odd, smooth_, met);
                find_obstacles<Phi>(point, move.even - move.odd, smooth_, met);
                pairs.set(i, carry(phi, point, move));
            }
        });
        return met;
    }

    // The effects of changes of the values of a block's units in one of the last two layers.
    Vec<T> direct_effect(const UnitBlock& block, const Pair<T>& change, const Results<T>& results,
                         const Workspace& work) const {
        const Index last = net_.depth - 1;
        const T* slopes = direct_.slopes_of(block);
        for (Index k = 0; k < base_.answer(block.row).classes; ++k) {
            const Vec<T> slope = load(slopes + k * results.stride);
            work.pairs().set(k, {slope * change.even, slope * change.odd});
        }
        Met met;
        const Activation after = block.l == last ? Activation::identity : net_.layers[last].activation;
        const Vec<T> effects = effect_on_loss(block.row, after, met, work);
        record<T>(results.obstacles + block.j, block.units, obstacle::kink, met.kinks);
        record<T>(results.obstacles + block.j, block.units, obstacle::far, met.fars);
        return effects;
    }

    // The effects of the workspace's pairs of moves of the last layer's pre-activations, or with the identity as
    // `activation` of its units.
    Vec<T> effect_on_loss(Index row, Activation activation, Met& met, const Workspace& work) const {
        const Answer<T> answer = base_.answer(row);
        const Target<T> target = base_.target(row);
        const ClassPairs<T> pairs = work.pairs();
        met = change_pairs(net_.depth - 1, activation, row, answer.classes, true, pairs);
        for (Index k = 0; k < answer.classes; ++k) {
            const Pair<T> change = pairs.at(k);
            met.fars |= far_for_loss(net_, answer, k, change.even + change.odd) |
                        far_for_loss(net_, answer, k, change.even - change.odd);
        }
        if (net_.loss != Loss::cross_entropy && net_.loss != Loss::mean_squared_error) {
            find_obstacles_of_loss(answer, target, work, met);
        }
        return sum_of_loss_changes(net_, answer, target, pairs, work.scratch());
    }

    void find_obstacles_of_loss(const Answer<T>& answer, Target<T> target, const Workspace& work, Met& met) const {
        const bool soft = net_.output == Output::softmax;
        T *const dz = work.scratch(), *const dy = dz + answer.classes * lanes<T>;
        for (const T sign : {T(1), T(-1)}) {
            for (Index k = 0; k < answer.classes; ++k) {
                const Pair<T> change = work.pairs().at(k);
                store(dz + k * lanes<T>, change.even + sign * change.odd);
            }
            if (soft) {
                softmax_difference(answer, dz, dy);
            }
            find_loss_obstacles(net_, answer, target, soft ? dy : dz, smooth_ || soft, met);
        }
    }

    void enqueue(const UnitBlock& block, const Pair<T>& change, T* effects, const Results<T>& results,
                 Workspace& work) const {
        store(effects, Vec<T>{});
        for (Index i = 0; i < block.units; ++i) {
            if (change.even[i] != 0 || change.odd[i] != 0) {
                const Index unit = block.j + i;
                work.queue_[work.count_++] = {unit, change.even[i], change.odd[i], effects + i,
                                              results.obstacles + unit};
                if (work.count_ == Workspace::most_pairs) {
                    flush(block.l, block.row, work);
                }
            }
        }
    }

    // Carries the queued pairs from layer l to the loss.
    void flush(Index l, Index row, Workspace& work) const {
        const Index count = work.count_, last = net_.depth - 1;
        if (count == 0) {
            return;
        }
        checkpoint();
        T *from = work.from_.data(), *to = work.to_.data();
        Index stride = padded<T>(net_.layers[l + 1].outputs);
        for (Index r = 0; r < count; ++r) {
            const auto& queued = work.queue_[r];
            const T* weights = weights_[l + 1].matrix.row(queued.unit);
            for (Index j = 0; j < stride; j += lanes<T>) {
                store(from + r * stride + j, queued.even * load(weights + j));
                store(from + (count + r) * stride + j, queued.odd * load(weights + j));
            }
        }
        for (Index q = l + 1; q < last; ++q) {
            change_layer(q, row, work, from, stride);
            const Layer<T>& next = net_.layers[q + 1];
            stride = padded<T>(next.outputs);
            base_.layer_weights().multiply(q + 1, rows_of<T>(from, 2 * count, next.inputs, padded<T>(next.inputs)), to,
                                           stride);
            clear_padding(to, 2 * count, next.outputs); // what stood there could be taken for moves
            T* const done = from;
            from = to;
            to = done;
        }
        finish(row, from, stride, work);
        work.count_ = 0;
    }

    // d (2 pairs, stride), pairs of layer l's pre-activations -> those of its units, in place.
    void change_layer(Index l, Index row, Workspace& work, T* d, Index stride) const {
        for (Index r = 0; r < work.count_; ++r) {
            const ClassPairs<T> pairs{d + r * stride, d + (work.count_ + r) * stride};
            const Met met = change_pairs(l, net_.layers[l].activation, row, stride / lanes<T>, false, pairs);
            *work.queue_[r].obstacles |=
                (any<T>(met.kinks) ? obstacle::kink : 0) | (any<T>(met.fars) ? obstacle::far : 0);
        }
    }

    // Fills the effects of pairs d (2 pairs, stride) of the last layer's pre-activations.
    void finish(Index row, const T* d, Index stride, Workspace& work) const {
        const Index last = net_.depth - 1;
        for (Index first = 0; first < work.count_; first += lanes<T>) {
            const auto* queued = work.queue_.data() + first;
            const Index count = min_index(lanes<T>, work.count_ - first);
            const auto gathered = [&](const T* rows, Index k) {
                Vec<T> of_class{};
                for (Index i = 0; i < count; ++i) {
                    of_class[i] = rows[(first + i) * stride + k];
                }
                return of_class;
            };
            for (Index k = 0; k < base_.answer(row).classes; ++k) {
                work.pairs().set(k, {gathered(d, k), gathered(d + work.count_ * stride, k)});
            }
            Met met;
            const Vec<T> effects = effect_on_loss(row, net_.layers[last].activation, met, work);
            for (Index i = 0; i < count; ++i) {
                *queued[i].effect = effects[i];
                *queued[i].obstacles |= (met.kinks[i] ? obstacle::kink : 0) | (met.fars[i] ? obstacle::far : 0);
            }
        }
    }

    const BasePoints<T>& base_;
    const Network<T>& net_;
    const bool smooth_; // whether any activation of the network bends
    const DirectMoves<T> direct_;
    FixedList<PaddedCopy<T>> weights_; // every layer's but the first's
};

} // namespace fastnet::FASTNET_TARGET
