#include "region.hpp"

void parallel_region(int tasks, void (*body)(void* context, int task), void* context) {
#pragma omp parallel for schedule(dynamic) num_threads(threads)
    for (int task = 0; task < tasks; ++task) {
        body(context, task);
    }
}
