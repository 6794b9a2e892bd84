// All kernels for one instruction set: CMake compiles this file once for each, with its flags and FASTNET_TARGET.
#include "core/kernel_table.hpp"
#include "kernels/backprop.hpp"
#include "kernels/elementwise.hpp"
#include "kernels/hessian.hpp"
#include "kernels/incremental.hpp"
#include "kernels/loop.hpp"
#include "kernels/nodal.hpp"
#include "kernels/stages.hpp"
#include "kernels/train.hpp"

#define FASTNET_STRING(name) #name
#define FASTNET_NAME(name) FASTNET_STRING(name)

namespace fastnet::FASTNET_TARGET {

namespace {

template <class T>
constexpr Kernels<T> kernels{
    .matmul = matmul<T>,
    .add_bias = add_bias<T>,
    .exp = exp_array<T>,
    .activation = activation<T>,
    .activation_derivative = activation_derivative<T>,
    .softmax = softmax<T>,
    .mean_loss = mean_loss<T>,
    .forward = forward<T>,
    .loss = loss<T>,
    .loss_and_gradient = loss_and_gradient<T>,
    .loop = loop<T>,
    .incremental = incremental<T>,
    .nodal = nodal<T>,
    .hessian_diagonal = hessian_diagonal<T>,
    .train = train<T>,
    .pack_row = pack_row<T>,
    .all_finite = are_finite<T>,
    .stages = stage_kernels<T>,
};

} // namespace

extern const KernelTable table;
const KernelTable table{FASTNET_NAME(FASTNET_TARGET), kernels<float>, kernels<double>};

} // namespace fastnet::FASTNET_TARGET
