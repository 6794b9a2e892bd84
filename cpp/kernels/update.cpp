// Apart from the other kernels, because it is compiled without contraction: see `update`.
#include "kernels/update.hpp"

namespace fastnet::FASTNET_TARGET {

namespace {

template <class T> T root(T x) {
    if constexpr (sizeof(T) == 4) {
        return __builtin_sqrtf(x);
    } else {
        return __builtin_sqrt(x);
    }
}

} // namespace

template <class T>
void update(const Optimizer& optimizer, const double* coefficients, const T* __restrict g, T* __restrict p,
            T* __restrict s1, T* __restrict s2, Index n) {
    const double* constants = optimizer.constants;
    const T rate = static_cast<T>(coefficients[0]);
    switch (optimizer.rule) {
    case Rule::sgd:
        for (Index i = 0; i < n; ++i) {
            p[i] -= rate * g[i];
        }
        break;
    case Rule::momentum: {
        const T momentum = static_cast<T>(constants[0]);
        for (Index i = 0; i < n; ++i) {
            s1[i] = momentum * s1[i] + g[i];
            p[i] -= rate * s1[i];
        }
        break;
    }
    case Rule::nesterov: {
        const T momentum = static_cast<T>(constants[0]);
        for (Index i = 0; i < n; ++i) {
            s1[i] = momentum * s1[i] + g[i];
            p[i] -= rate * (momentum * s1[i] + g[i]);
        }
        break;
    }
    case Rule::adagrad: {
        const T eps = static_cast<T>(constants[0]);
        for (Index i = 0; i < n; ++i) {
            s1[i] = s1[i] + g[i] * g[i];
            p[i] -= rate * g[i] / (root(s1[i]) + eps);
        }
        break;
    }
    case Rule::rmsprop: {
        const T decay = static_cast<T>(constants[0]), rest = static_cast<T>(1 - constants[0]);
        const T eps = static_cast<T>(constants[1]);
        for (Index i = 0; i < n; ++i) {
            s1[i] = decay * s1[i] + rest * g[i] * g[i];
            p[i] -= rate * g[i] / (root(s1[i]) + eps);
        }
        break;
    }
    case Rule::adam: {
        const T decay1 = static_cast<T>(constants[0]), rest1 = static_cast<T>(1 - constants[0]);
        const T decay2 = static_cast<T>(constants[1]), rest2 = static_cast<T>(1 - constants[1]);
        const T eps = static_cast<T>(constants[2]), correction = static_cast<T>(coefficients[1]);
        for (Index i = 0; i < n; ++i) {
            s1[i] = decay1 * s1[i] + rest1 * g[i];
            s2[i] = decay2 * s2[i] + rest2 * g[i] * g[i];
            p[i] -= rate * s1[i] / (root(s2[i]) / correction + eps);
        }
        break;
    }
    }
}

template void update(const Optimizer&, const double*, const float*, float*, float*, float*, Index);
template void update(const Optimizer&, const double*, const double*, double*, double*, double*, Index);

} // namespace fastnet::FASTNET_TARGET
