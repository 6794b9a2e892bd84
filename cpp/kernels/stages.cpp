// The kernels of networks of stages, for one instruction set; apart from `target.cpp` so that both compile at once.
#include "kernels/stages.hpp"

#include "kernels/stage_network.hpp"

namespace fastnet::FASTNET_TARGET {

template void stage_forward(const StageNetwork<float>&, const Batch<float>&, float*);
template double stage_loss(const StageNetwork<float>&, const Batch<float>&);
template double stage_loss_and_gradient(const StageNetwork<float>&, const Batch<float>&, const StageGradient<float>*,
                                        float*, bool);
template void stage_units(const StageNetwork<float>&, const float*, Index, bool, float*);
template void stage_backward(const StageNetwork<float>&, const float*, Index, const float*, const StageGradient<float>*,
                             float*);
template void stage_loop(const StageNetwork<float>&, const Batch<float>&, double, const std::int64_t*, Index, float*);
template void stage_differences(const StageNetwork<float>&, const Batch<float>&, double, bool, bool,
                                const StageGradient<float>*, const StageKinks*, Diagnostics&);
template void stage_train(const StageNetwork<float>&, const StageNetwork<float>&, const Training<float>&);

template void stage_forward(const StageNetwork<double>&, const Batch<double>&, double*);
template double stage_loss(const StageNetwork<double>&, const Batch<double>&);
template double stage_loss_and_gradient(const StageNetwork<double>&, const Batch<double>&, const StageGradient<double>*,
                                        double*, bool);
template void stage_units(const StageNetwork<double>&, const double*, Index, bool, double*);
template void stage_backward(const StageNetwork<double>&, const double*, Index, const double*,
                             const StageGradient<double>*, double*);
template void stage_loop(const StageNetwork<double>&, const Batch<double>&, double, const std::int64_t*, Index,
                         double*);
template void stage_differences(const StageNetwork<double>&, const Batch<double>&, double, bool, bool,
                                const StageGradient<double>*, const StageKinks*, Diagnostics&);
template void stage_train(const StageNetwork<double>&, const StageNetwork<double>&, const Training<double>&);

} // namespace fastnet::FASTNET_TARGET
