// The kernels of the instruction set in use.
#pragma once

#include <string>
#include <vector>

#include "core/kernel_table.hpp"

namespace fastnet {

// Chosen at the first call: FASTNET_ISA if it is set, else the best that the processor supports.
// Throws std::invalid_argument for a name that is unknown or that the processor does not support.
const KernelTable& kernel_table();
void use_isa(const char* name);

// The instruction sets that were compiled and that the processor supports, the best first.
std::vector<std::string> available_isas();

template <class T> const Kernels<T>& kernels();
template <> inline const Kernels<float>& kernels<float>() {
    return kernel_table().f32;
}
template <> inline const Kernels<double>& kernels<double>() {
    return kernel_table().f64;
}

} // namespace fastnet
