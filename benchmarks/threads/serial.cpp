#include "region.hpp"

void parallel_region(int tasks, void (*body)(void* context, int task), void* context) {
    for (int task = 0; task < tasks; ++task) {
        body(context, task);
    }
}
