// The effects of moves of the last two layers' units, which every class's pre-activation follows in proportion.
#pragma once

#include "kernels/move_loss.hpp"
#include "kernels/move_series.hpp"

namespace fastnet::FASTNET_TARGET {

template <class T> class DirectMoves {
  public:
    using Workspace = typename LossOfMoves<T>::Workspace;

    explicit DirectMoves(const BasePoints<T>& base) : base_(base), net_(base.net), loss_(base), slopes_(2) {
        const Index classes = classes_of(net_), last = net_.depth - 1;
        const Layer<T>& output = net_.layers[last];
        T* const of_last = slopes_.add(classes * padded<T>(classes)).zeroed();
        for (Index k = 0; k < classes; ++k) {
            of_last[k * padded<T>(classes) + k] = 1;
        }
        if (last > 0) {
            const Index units = output.inputs, stride = padded<T>(units);
            steepest_weight_ = greatest_size(output.weight, units * classes);
            T* const before_last = slopes_.add(classes * stride).zeroed();
            for (Index k = 0; k < classes; ++k) {
                for (Index j = 0; j < units; ++j) {
                    before_last[k * stride + j] = output.weight[j * classes + k];
                }
            }
        }
    }

    bool handles(Index l) const { return l >= net_.depth - 2; }

    // Fills a block's columns of the results. differ(d) is the change of the units' values for a move d; `Small` is
    // whether all moves are.
    template <bool Small, class Phi, class Differ>
    void evaluate(Phi phi, const UnitBlock& block, const Moves<T>& moves, Differ&& differ, const Results<T>& results,
                  const Workspace& work) const {
        const Index stride = results.stride;
        const Target<T> target = base_.target(block.row);
        T* const odd = results.effects + block.j;
        if (Small && takes_series(phi, block, moves, 2 * small_move<T>)) {
            constexpr T shortest = sizeof(T) == 8 ? T(1e-5) : T(5e-3); // range^3 / 24 is below rounding
            const Answer<T> answer = base_.answer(block.row);
            const T* slopes = slopes_of(block);
            return range_of(phi, block, moves) <= shortest
                       ? evaluate_by_series<3>(answer, target.label, slopes, moves, differ, odd, stride)
                       : evaluate_by_series<5>(answer, target.label, slopes, moves, differ, odd, stride);
        }
        for (Index i = 0; i < moves.count; ++i) {
            const Vec<T> above = loss_change(block, differ(moves.d[i]), target, results, work);
            const Vec<T> below = loss_change(block, differ(-moves.d[i]), target, results, work);
            store(odd + i * stride, above - below);
        }
    }

    // Whether the moves are so short, and the way to the loss so plain, that a series tells their effects: `range` is
    // how far one class may move against another.
    template <class Phi> bool takes_series(Phi phi, const UnitBlock& block, const Moves<T>& moves, T range) const {
        const Index last = net_.depth - 1;
        const bool linear = block.l == last || net_.layers[last].activation == Activation::identity;
        return linear && net_.output == Output::softmax && net_.loss == Loss::cross_entropy &&
               moves.longest <= small_move<T> && range_of(phi, block, moves) <= range && !base_.target(block.row).row;
    }

    // How each class moves with the block's units: (classes, padded units).
    const T* slopes_of(const UnitBlock& block) const { return slopes_[net_.depth - 1 - block.l].data() + block.j; }

  private:
    // How far a class moves at most, less another one.
    template <class Phi> T range_of(Phi phi, const UnitBlock& block, const Moves<T>& moves) const {
        return 2 * phi.steepest() * moves.longest * (block.l == net_.depth - 1 ? T(1) : steepest_weight_);
    }

    // The change of the loss when the values of a block's units change by `dv`.
    Vec<T> loss_change(const UnitBlock& block, Vec<T> dv, Target<T> target, const Results<T>& results,
                       const Workspace& work) const {
        const Index last = net_.depth - 1, stride = results.stride;
        const T* slopes = slopes_of(block);
        const Activation after = block.l == last ? Activation::identity : net_.layers[last].activation;
        return loss_.change(
            block.row, after, target, [&](Index k) { return dv * load(slopes + k * stride); },
            [&](unsigned char what, Vec<Bits<T>> mask) {
                record<T>(results.obstacles + block.j, block.units, what, mask);
            },
            work);
    }

    const BasePoints<T>& base_;
    const Network<T>& net_;
    const LossOfMoves<T> loss_;
    FixedList<Array<T>> slopes_; // of the last layer's units, and of those of the one before
    T steepest_weight_ = 0;      // of the last layer
};

} // namespace fastnet::FASTNET_TARGET
