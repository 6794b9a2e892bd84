// The effects of moves of units with further layers before the last: many moves go through the layers together.
#pragma once

#include "kernels/move_loss.hpp"

namespace fastnet::FASTNET_TARGET {

template <class T> class DeepMoves {
  public:
    // The moves of one thread that wait to go through the layers, all of one layer and row.
    class Queue {
      public:
        explicit Queue(const Network<T>& net)
            : loss_(classes_of(net)), moves_(capacity(net)), from_(capacity(net) * padded<T>(widest_layer(net))),
              to_(capacity(net) * padded<T>(widest_layer(net))) {
            from_.zeroed();
            to_.zeroed();
        }

      private:
        friend DeepMoves;
        static constexpr Index most_moves = 256;
        static Index capacity(const Network<T>& net) { return net.depth > 2 ? most_moves : 0; }
        struct Move {
            Index unit;
            T change; // of the unit's value
            T* odd;   // where the effect is added
            T sign;   // of the effect there
            unsigned char* obstacles;
        };
        const typename LossOfMoves<T>::Workspace loss_;
        const Array<Move> moves_;
        const Array<T> from_, to_; // (most_moves, widest layer): what enters a layer, and what leaves it
        Index count_ = 0;
    };

    explicit DeepMoves(const BasePoints<T>& base) : base_(base), net_(base.net), loss_(base), weights_(net_.depth) {
        for (Index l = 0; l < net_.depth; ++l) {
            const Layer<T>& layer = net_.layers[l];
            weights_.add(layer.weight, net_.depth > 2 && l > 0 ? layer.inputs : 0, layer.outputs);
        }
    }

    // Queues a block's moves, whose effects will be added to the results. differ(d) is the change of the units' values
    // for a move d.
    template <class Differ>
    void enqueue(const UnitBlock& block, const Moves<T>& moves, Differ&& differ, const Results<T>& results,
                 Queue& queue) const {
        for (Index v = 0; v < moves.count; ++v) {
            T* const odd = results.effects + v * results.stride + block.j;
            store(odd, Vec<T>{});
            for (const T sign : {T(1), T(-1)}) {
                const Vec<T> dv = differ(sign * moves.d[v]);
                for (Index i = 0; i < block.units; ++i) {
                    if (dv[i] != 0) {
                        const Index unit = block.j + i;
                        queue.moves_[queue.count_++] = {unit, dv[i], odd + i, sign, results.obstacles + unit};
                        if (queue.count_ == Queue::most_moves) {
                            flush(block.l, block.row, queue);
                        }
                    }
                }
            }
        }
    }

    // Carries the queued moves from layer l to the loss.
    void flush(Index l, Index row, Queue& queue) const {
        if (queue.count_ == 0) {
            return;
        }
        checkpoint();
        T *from = queue.from_.data(), *to = queue.to_.data();
        const Index last = net_.depth - 1;
        const Index stride = padded<T>(net_.layers[l + 1].outputs);
        for (Index r = 0; r < queue.count_; ++r) {
            const auto& move = queue.moves_[r];
            const T* weights = weights_[l + 1].matrix.row(move.unit);
            T* d = from + r * stride;
            for (Index j = 0; j < stride; j += lanes<T>) {
                store(d + j, move.change * load(weights + j));
            }
        }
        for (Index q = l + 1; q < last; ++q) {
            differ_layer(q, row, queue, from);
            const Layer<T>& next = net_.layers[q + 1];
            base_.layer_weights().multiply(q + 1, rows_of<T>(from, queue.count_, next.inputs, padded<T>(next.inputs)),
                                           to, padded<T>(next.outputs));
            clear_padding(to, queue.count_, next.outputs); // what stood there could be taken for moves
            T* const done = from;
            from = to;
            to = done;
        }
        finish(row, from, queue);
        queue.count_ = 0;
    }

  private:
    // d (moves, padded) of layer l's pre-activations -> the differences of its units, in place.
    void differ_layer(Index l, Index row, Queue& queue, T* d) const {
        const Layer<T>& layer = net_.layers[l];
        const bool small = greatest_size(d, queue.count_ * padded<T>(layer.outputs)) <= small_move<T>;
        if (!small && base_.is_far(row)) {
            mark_lost(l, row, queue, d);
        }
        with_activation(layer.activation, layer.constant, [&](auto phi) {
            small ? differ_units<true>(phi, l, row, queue, d) : differ_units<false>(phi, l, row, queue, d);
        });
    }

    // Makes NaN of the effects of the moves that lose digits, d (moves, padded) of layer l's pre-activations.
    void mark_lost(Index l, Index row, Queue& queue, const T* d) const {
        const Index stride = padded<T>(net_.layers[l].outputs);
        for (Index r = 0; r < queue.count_; ++r) {
            Vec<Bits<T>> lost{};
            for (Index j = 0; j < stride; j += lanes<T>) {
                lost |= loses_digits<T>(base_.at(l, row, j).a, load(d + r * stride + j));
            }
            if (any<T>(lost)) {
                queue.moves_[r].sign = static_cast<T>(__builtin_nan(""));
            }
        }
    }

    template <bool Small, class Phi> void differ_units(Phi phi, Index l, Index row, Queue& queue, T* d) const {
        const Index stride = padded<T>(net_.layers[l].outputs);
        for (Index r = 0; r < queue.count_; ++r) {
            Vec<Bits<T>> kinks{}, fars{};
            for (Index j = 0; j < stride; j += lanes<T>) {
                T* at = d + r * stride + j;
                const BasePoint<T> point = base_.at(l, row, j);
                if constexpr (!Small || Phi::kinked || Phi::seamed) {
                    find_obstacles<Phi>(point, load(at), loss_.smooth(), [&](unsigned char what, Vec<Bits<T>> mask) {
                        (what == obstacle::kink ? kinks : fars) |= mask;
                    });
                }
                store(at, phi.template difference<Small>(point, phi.template move<Small>(load(at))));
            }
            if constexpr (!Small || Phi::kinked || Phi::seamed) {
                *queue.moves_[r].obstacles |= (any<T>(kinks) ? obstacle::kink : 0) | (any<T>(fars) ? obstacle::far : 0);
            }
        }
    }

    // Adds the effects of differences d (moves, padded classes) of the last layer's pre-activations.
    void finish(Index row, const T* d, Queue& queue) const {
        const Index last = net_.depth - 1, classes = classes_of(net_), stride = padded<T>(classes);
        const Target<T> target = base_.target(row);
        T* const by_class = queue.loss_.dz.data(); // (classes, lanes)
        for (Index first = 0; first < queue.count_; first += lanes<T>) {
            const auto* moves = queue.moves_.data() + first;
            const Index count = min_index(lanes<T>, queue.count_ - first);
            for (Index k = 0; k < classes; ++k) {
                for (Index i = 0; i < lanes<T>; ++i) {
                    by_class[k * lanes<T> + i] = i < count ? d[(first + i) * stride + k] : T(0);
                }
            }
            const auto record_mask = [&](unsigned char what, Vec<Bits<T>> mask) {
                if (any<T>(mask)) {
                    for (Index i = 0; i < count; ++i) {
                        *moves[i].obstacles |= mask[i] != 0 ? what : 0;
                    }
                }
            };
            const Vec<T> change = loss_.change(
                row, net_.layers[last].activation, target, [&](Index k) { return load(by_class + k * lanes<T>); },
                record_mask, queue.loss_);
            for (Index i = 0; i < count; ++i) {
                *moves[i].odd += moves[i].sign * change[i];
            }
        }
    }

    const BasePoints<T>& base_;
    const Network<T>& net_;
    const LossOfMoves<T> loss_;
    FixedList<PaddedCopy<T>> weights_; // every layer's but the first's
};

} // namespace fastnet::FASTNET_TARGET
