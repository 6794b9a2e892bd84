#include "region.hpp"

#include <oneapi/tbb/global_control.h>
#include <oneapi/tbb/parallel_for.h>
#include <oneapi/tbb/partitioner.h>

void parallel_region(int tasks, void (*body)(void* context, int task), void* context) {
    static const tbb::global_control limit(tbb::global_control::max_allowed_parallelism, threads);
    tbb::parallel_for(0, tasks, [&](int task) { body(context, task); }, tbb::simple_partitioner{});
}
