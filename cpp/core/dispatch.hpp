// Which instruction set's kernels are in use.
#pragma once

#include "core/kernel_table.hpp"

namespace fastnet {

// Chosen at the first call: FASTNET_ISA where it is set, else the best that the processor has.
// Throws std::invalid_argument for a name that is unknown or that the processor lacks.
const KernelTable& kernel_table();
void use_isa(const char* name);

// Calls f(context, name) for each instruction set that was compiled and that the processor has, the best first.
void for_each_isa(void (*f)(void* context, const char* name), void* context);

template <class T> const Kernels<T>& kernels();
template <> inline const Kernels<float>& kernels<float>() {
    return kernel_table().f32;
}
template <> inline const Kernels<double>& kernels<double>() {
    return kernel_table().f64;
}

} // namespace fastnet
