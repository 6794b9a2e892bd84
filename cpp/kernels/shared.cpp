// What the kernels of chains and of stages share and is too large to be compiled for each: products, losses.
#include "kernels/forward.hpp"

namespace fastnet::FASTNET_TARGET {

template void multiply_block<float, tile_rows>(Matrix<float>, const float*, Index, float*, Index, bool);
template void multiply_unpacked(Matrix<float>, Matrix<float>, float*, Index, bool);
template void multiply_nonzeros(const NonZeros<float>&, Index, Index, const PaddedMatrix<float>&, float*);
template void multiply_transposed_nonzeros(const NonZeros<float>&, Index, Index, Index, const float*, Index, Index,
                                           StoreOrAdd<float>);
template Vec<float> loss_difference(Output, Loss, float, const Answer<float>&, Target<float>, const float*, float*);
template void row_losses(const Network<float>&, const Targets<float>&, Index, Index, const float*, float*);
template void multiply_block<double, tile_rows>(Matrix<double>, const double*, Index, double*, Index, bool);
template void multiply_unpacked(Matrix<double>, Matrix<double>, double*, Index, bool);
template void multiply_nonzeros(const NonZeros<double>&, Index, Index, const PaddedMatrix<double>&, double*);
template void multiply_transposed_nonzeros(const NonZeros<double>&, Index, Index, Index, const double*, Index, Index,
                                           StoreOrAdd<double>);
template Vec<double> loss_difference(Output, Loss, double, const Answer<double>&, Target<double>, const double*,
                                     double*);
template void row_losses(const Network<double>&, const Targets<double>&, Index, Index, const double*, double*);

} // namespace fastnet::FASTNET_TARGET
