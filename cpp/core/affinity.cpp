#include "core/affinity.hpp"

#ifdef __linux__
#    include <cstddef>
#    include <pthread.h>
#    include <sched.h>
#endif

namespace fastnet {

#ifdef __linux__
namespace {

bool get_mask(pthread_t thread, cpu_set_t& mask) {
    return pthread_getaffinity_np(thread, sizeof mask, &mask) == 0;
}

// The kernel moves a thread at once when its mask excludes the processor that it is on.
// The mask is restored only if it is still the narrowed one: a mask that somebody else has set meanwhile stays.
void move_off(pthread_t thread, int processor) {
    cpu_set_t before, narrowed, now;
    if (!get_mask(thread, before)) {
        return;
    }
    narrowed = before;
    CPU_CLR(static_cast<std::size_t>(processor), &narrowed);
    if (CPU_COUNT(&narrowed) == 0 || CPU_EQUAL(&narrowed, &before) ||
        pthread_setaffinity_np(thread, sizeof narrowed, &narrowed) != 0) {
        return;
    }
    if (get_mask(thread, now) && CPU_EQUAL(&now, &narrowed)) {
        pthread_setaffinity_np(thread, sizeof before, &before);
    }
}

} // namespace

void move_off_this_processor(const std::vector<std::thread::native_handle_type>& threads) {
    const int here = sched_getcpu();
    if (here < 0) {
        return;
    }
    for (const auto thread : threads) {
        move_off(thread, here);
    }
}
#else
void move_off_this_processor(const std::vector<std::thread::native_handle_type>&) {}
#endif

} // namespace fastnet
