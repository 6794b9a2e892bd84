// One step of an optimizer for a run of parameters, element by element.
#pragma once

#include "core/training.hpp"

namespace fastnet::FASTNET_TARGET {

// g (n) -> p (n) and the slots (n) changed by the rule, with the step's `coefficients`. Each operation is rounded by
// itself, in the order of `fastnet.optimizers`: the same bits as there.
template <class T>
void update(const Optimizer& optimizer, const double* coefficients, const T* g, T* p, T* s1, T* s2, Index n);

extern template void update(const Optimizer&, const double*, const float*, float*, float*, float*, Index);
extern template void update(const Optimizer&, const double*, const double*, double*, double*, double*, Index);

} // namespace fastnet::FASTNET_TARGET
