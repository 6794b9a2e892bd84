// The diagonal of the Hessian by second differences, (L(w + h) - 2 L(w) + L(w - h)) / h^2 for every parameter w.
//
// It is `nodal` with the even part of the same moves: a row's share with respect to a weight with input x is
// psi(hx) + psi(-hx) over h^2, an even function of x.
#pragma once

#include "kernels/even_effects.hpp"
#include "kernels/nodal.hpp"

namespace fastnet::FASTNET_TARGET {

template <class T>
void hessian_diagonal(const Network<T>& net, const Batch<T>& batch, double h, const LayerGradient<T>* result,
                      Diagnostics& diagnostics) {
    nodal_by<T, EvenEffects<T>>(net, batch, h, result, diagnostics);
}

} // namespace fastnet::FASTNET_TARGET
