// From moves of the last layer's pre-activations to the change of the loss.
#pragma once

#include "kernels/moves.hpp"

namespace fastnet::FASTNET_TARGET {

// Whether moves dz of the last layer's units, for class k, are far for the output and the loss: by more than 1 for
// softmax, and by a quarter of its argument for a logarithm. The squared error is a polynomial.
template <class T>
FASTNET_INLINE Vec<Bits<T>> far_for_loss(const Network<T>& net, const Answer<T>& answer, Index k, Vec<T> dz) {
    if (net.output == Output::softmax) {
        return absolute<T>(dz) > 1;
    }
    const T y = answer.y[k] < 0 ? -answer.y[k] : answer.y[k];
    return net.loss == Loss::cross_entropy ? absolute<T>(dz) > (y + epsilon<T>) / 4 : Vec<Bits<T>>{};
}

template <class T> class LossOfMoves {
  public:
    struct Workspace {
        explicit Workspace(Index classes) : dz(classes * lanes<T>), dy(classes * lanes<T>) {}
        const Array<T> dz, dy; // (classes, lanes)
    };

    explicit LossOfMoves(const BasePoints<T>& base) : base_(base), smooth_(bends_somewhere(base.net)) {}

    // Whether any activation of the network bends.
    bool smooth() const { return smooth_; }

    // The change of a row's loss for a vector of moves. move(k) are those of the last layer's pre-activation k, or with
    // the identity as `activation` those of its unit k. record_mask(obstacle, mask) is told what they meet.
    template <class Move, class Record>
    FASTNET_INLINE Vec<T> change(Index row, Activation activation, Target<T> target, Move&& move, Record&& record_mask,
                                 const Workspace& work) const {
        const Network<T>& net = base_.net;
        const Answer<T> answer = base_.answer(row);
        with_activation(activation, net.layers[net.depth - 1].constant, [&]<class Phi>(Phi phi) {
            for (Index k = 0; k < answer.classes; ++k) {
                const Vec<T> d = move(k);
                const BasePoint<T> point = base_.at_unit(net.depth - 1, row, k);
                const Vec<T> dz = phi.template difference<false>(point, phi.template move<false>(d));
                store(work.dz.data() + k * lanes<T>, dz);
                find_obstacles<Phi>(point, d, smooth_, record_mask);
                record_mask(obstacle::far, far_for_loss(net, answer, k, dz));
            }
        });
        return loss_difference(net.output, net.loss, answer, target, work.dz.data(), work.dy.data());
    }

  private:
    const BasePoints<T>& base_;
    const bool smooth_;
};

} // namespace fastnet::FASTNET_TARGET
