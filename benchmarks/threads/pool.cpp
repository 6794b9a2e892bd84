// The library's own, compiled in as it is.
#include "region.hpp"

#include "core/threads.hpp"

void parallel_region(int tasks, void (*body)(void* context, int task), void* context) {
    struct Call {
        void (*body)(void* context, int task);
        void* context;
    } call{body, context};
    fastnet::parallel_for(
        tasks, threads,
        [](void* shared, fastnet::Index task, int) {
            const Call& c = *static_cast<const Call*>(shared);
            c.body(c.context, static_cast<int>(task));
        },
        &call);
}
