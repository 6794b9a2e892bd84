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

// Calls record_mask(obstacle, mask) for what changes dy (classes, lanes) of the answers meet in a loss that is not
// smooth everywhere, or bends. `smooth` is whether the way there may be bent, as in `find_obstacles`.
template <class T, class Record>
void find_loss_obstacles(const Network<T>& net, const Answer<T>& answer, Target<T> target, const T* dy, bool smooth,
                         Record&& record_mask) {
    const T reach = smooth ? 2 : 1;
    for (Index k = 0; k < answer.classes; ++k) {
        const Vec<T> d = load(dy + k * lanes<T>), r = splat(answer.y[k] - target(k));
        if (net.loss == Loss::binary_cross_entropy) {
            record_mask(obstacle::far, absolute<T>(d) > 1);
        } else if (net.loss == Loss::huber) {
            record_mask(obstacle::far, changes_side<T>(r - net.loss_constant, reach * d) |
                                           changes_side<T>(r + net.loss_constant, reach * d));
        } else if (net.loss == Loss::absolute_error) {
            record_mask(obstacle::kink, changes_side<T>(r, d));
            record_mask(obstacle::far, changes_side<T>(r, reach * d));
        }
    }
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

    // The change of a row's loss for a vector of moves, NaN where they lose digits. move(k) are those of the last
    // layer's pre-activation k, or with the identity as `activation` those of its unit k. record_mask(obstacle, mask)
    // is told what they meet. move(k) is asked for once, in the order of the classes: it may read what is written to
    // work.dz behind it.
    template <class Move, class Record>
    FASTNET_INLINE Vec<T> change(Index row, Activation activation, Target<T> target, Move&& move, Record&& record_mask,
                                 const Workspace& work) const {
        const Network<T>& net = base_.net;
        const Answer<T> answer = base_.answer(row);
        const bool far = base_.is_far(row);
        Vec<Bits<T>> lost{};
        with_activation(activation, net.layers[net.depth - 1].constant, [&]<class Phi>(Phi phi) {
            for (Index k = 0; k < answer.classes; ++k) {
                const Vec<T> d = move(k);
                const BasePoint<T> point = base_.at_unit(net.depth - 1, row, k);
                const Vec<T> dz = phi.template difference<false>(point, phi.template move<false>(d));
                store(work.dz.data() + k * lanes<T>, dz);
                find_obstacles<Phi>(point, d, smooth_, record_mask);
                record_mask(obstacle::far, far_for_loss(net, answer, k, dz));
                if (far) {
                    lost |= loses_digits<T>(point.a, d) | loses_digits<T>(splat(answer.z[k]), dz);
                }
            }
        });
        const Vec<T> change =
            loss_difference(net.output, net.loss, net.loss_constant, answer, target, work.dz.data(), work.dy.data());
        if (net.loss != Loss::cross_entropy && net.loss != Loss::mean_squared_error) {
            const bool soft = net.output == Output::softmax;
            find_loss_obstacles(net, answer, target, (soft ? work.dy : work.dz).data(), smooth_ || soft, record_mask);
        }
        return far ? unless_lost<T>(lost | loses_digits<T>(splat(base_.loss(row)), change), change) : change;
    }

  private:
    const BasePoints<T>& base_;
    const bool smooth_;
};

} // namespace fastnet::FASTNET_TARGET
