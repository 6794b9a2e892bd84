// psi(d) - psi(-d), where psi(d) is the change of one row's loss when the pre-activation of one unit moves by d.
//
// Twice h times the central difference with respect to a weight is this, at d = h times the weight's input, summed over
// the rows. Differences are carried from the unit to the loss exactly, so that nothing cancels, however small d is.
#pragma once

#include "kernels/move_deep.hpp"
#include "kernels/move_direct.hpp"

namespace fastnet::FASTNET_TARGET {

template <class T> class MoveEffects {
  public:
    static constexpr int power = 1; // of d, to which the effect is proportional for short moves

    explicit MoveEffects(const BasePoints<T>& base) : base_(base), net_(base.net), direct_(base), deep_(base) {}

    // A thread's own workspace.
    struct Workspace {
        explicit Workspace(const Network<T>& net) : direct(classes_of(net)), queue(net) {}

        Index evaluations = 0;
        const typename DirectMoves<T>::Workspace direct;
        typename DeepMoves<T>::Queue queue;
    };

    // Fills the results for the moves d (count) of layer l's units, for one row of the chunk. The results of units
    // that are not wanted are 0; those of moves that lose digits are NaN.
    void evaluate(Index l, Index row, const T* d, Index count, UnitMask wanted, const Results<T>& results,
                  Workspace& work) const {
        const Layer<T>& layer = net_.layers[l];
        const Index stride = results.stride;
        const Moves<T> moves{d, count, greatest_size(d, count)};
        for (Index j = 0; j < stride; j += lanes<T>) {
            const UnitBlock block{l, row, j, min_index(lanes<T>, layer.outputs - j)};
            if (!wanted.any(j, block.units)) {
                for (Index v = 0; v < count; ++v) {
                    store(results.effects + v * stride + j, Vec<T>{});
                }
                continue;
            }
            with_activation(layer.activation, layer.constant, [&](auto phi) {
                if (moves.longest <= small_move<T>) {
                    evaluate_block<true>(phi, block, moves, results, work);
                } else {
                    evaluate_block<false>(phi, block, moves, results, work);
                }
            });
            work.evaluations += 2 * block.units * count;
        }
        deep_.flush(l, row, work.queue);
        if (wanted.kind == UnitMask::some) {
            clear_others(wanted, layer.outputs, count, results);
        }
    }

  private:
    template <bool Small, class Phi>
    void evaluate_block(Phi phi, const UnitBlock& block, const Moves<T>& moves, const Results<T>& results,
                        Workspace& work) const {
        const BasePoint<T> point = base_.at(block.l, block.row, block.j);
        const bool far = !Small && base_.is_far(block.row);
        const auto differ = [&](T d) {
            const Vec<T> dv = phi.template difference<Small>(point, phi.template move<Small>(splat(d)));
            return far ? unless_lost<T>(loses_digits<T>(point.a, splat(d)), dv) : dv;
        };
        find_unit_obstacles(phi, point, block, moves, results.obstacles + block.j);
        if (direct_.handles(block.l)) {
            direct_.template evaluate<Small>(phi, block, moves, differ, results, work.direct);
        } else {
            deep_.enqueue(block, moves, differ, results, work.queue);
        }
    }

    const BasePoints<T>& base_;
    const Network<T>& net_;
    const DirectMoves<T> direct_;
    const DeepMoves<T> deep_;
};

} // namespace fastnet::FASTNET_TARGET
