#include "core/threads.hpp"

#include "core/pool.hpp"

#include <algorithm>
#include <array>
#include <atomic>
#include <chrono>
#include <ctime>
#include <exception>
#include <iterator>
#include <mutex>
#include <span>
#include <thread>
#include <utility>

#ifdef _OPENMP
#    include <omp.h>
#endif
#if defined(__unix__) || defined(__APPLE__)
#    include <pthread.h>
#endif

namespace fastnet {
namespace {

std::atomic<InterruptCheck> interrupt_check{nullptr};
std::atomic<bool> forked{false};
constexpr int most_threads = 1024;

// The threads are the pool's; OpenMP, where it is linked, is only asked for their number, which OMP_NUM_THREADS and
// threadpoolctl set. OpenMP keeps one number for each thread, this library one for all: each thread copies the newest
// setting to OpenMP when it next asks, so that a later omp_set_num_threads (threadpoolctl) in that thread wins.
std::atomic<int> wanted_threads{0};
#ifdef _OPENMP
std::atomic<unsigned> setting{0};
thread_local unsigned setting_taken = 0;
#endif

void watch_forks() {
#if defined(__unix__) || defined(__APPLE__)
    static std::once_flag once;
    std::call_once(once, [] { pthread_atfork(nullptr, nullptr, [] { forked.store(true); }); });
#endif
}

// A short call of many tasks would spend a fiftieth of its time on a precise clock. Where the system has one that moves
// every few milliseconds, it is read in a fifth of the time.
struct CoarseClock {
    static std::chrono::nanoseconds now() {
#ifdef CLOCK_MONOTONIC_COARSE
        std::timespec time{};
        clock_gettime(CLOCK_MONOTONIC_COARSE, &time);
        return std::chrono::seconds(time.tv_sec) + std::chrono::nanoseconds(time.tv_nsec);
#else
        return std::chrono::steady_clock::now().time_since_epoch();
#endif
    }
};
constexpr auto check_interval = std::chrono::milliseconds(20);

// Tasks of neighbouring numbers, which one worker begins with (of more than 32 workers, several). On cache lines of its
// own: where the cores share no cache, a counter that all of them move costs each task as much as a tenth of a
// microsecond's work.
struct alignas(128) Share {
    std::atomic<Index> next;
    Index end;
};

// What the threads of one region share. In all regions of as many tasks and workers a worker has the same share, so
// that it finds in its core's cache what it wrote in the region before; who is through with it helps with the others.
struct Region {
    std::span<Share> shares;
    TaskBody body;
    void* context;
    std::atomic<bool> stop{false};
    std::mutex mutex{};
    std::exception_ptr error{};

    void fail(std::exception_ptr e) {
        const std::lock_guard lock(mutex);
        if (!error) {
            error = std::move(e);
        }
        stop.store(true, std::memory_order_relaxed);
    }
};

// The region that this thread works in, and whether it joined it as a helper.
struct Work {
    Region* region = nullptr;
    bool helper = false;
};
thread_local Work work;
thread_local bool uninterrupted = false;
// When this thread last asked for interrupts; spans all regions of a call.
thread_local std::chrono::nanoseconds checked{};

void run(Region& region, int worker) noexcept {
    const Work outer = work;
    work = {&region, worker != 0};
    try {
        const std::size_t count = region.shares.size();
        for (std::size_t i = 0; i < count; ++i) {
            Share& share = region.shares[(static_cast<std::size_t>(worker) + i) % count];
            for (Index task; (task = share.next.fetch_add(1, std::memory_order_relaxed)) < share.end;) {
                region.body(region.context, task, worker);
                checkpoint();
            }
        }
    } catch (...) {
        region.fail(std::current_exception());
    }
    work = outer;
}

} // namespace

int num_threads() {
    watch_forks();
    if (forked.load()) {
        return 1;
    }
#ifdef _OPENMP
    if (const unsigned newest = setting.load(); newest != setting_taken) {
        omp_set_num_threads(wanted_threads.load());
        setting_taken = newest;
    }
    return std::min(omp_get_max_threads(), most_threads);
#else
    const int wanted = wanted_threads.load();
    return std::min(wanted > 0 ? wanted : std::max(1, static_cast<int>(std::thread::hardware_concurrency())),
                    most_threads);
#endif
}

void set_num_threads(int count) {
    wanted_threads.store(count);
#ifdef _OPENMP
    setting.fetch_add(1);
#endif
    num_threads();
}

const char* threading_library() {
#ifdef _OPENMP
    return "C++ threads, as many as OpenMP says";
#else
    return "C++ threads";
#endif
}

void set_interrupt_check(InterruptCheck check) {
    interrupt_check.store(check);
}

void checkpoint() {
    if (work.region && work.region->stop.load(std::memory_order_relaxed)) {
        throw Interrupted{};
    }
    if (work.helper || uninterrupted) {
        return; // only the calling thread can run its signal handlers
    }
    if (const auto now = CoarseClock::now(); now - checked > check_interval) {
        checked = now;
        if (const InterruptCheck check = interrupt_check.load(); check && check()) {
            throw Interrupted{};
        }
    }
}

Uninterrupted::Uninterrupted() {
    uninterrupted = true;
}
Uninterrupted::~Uninterrupted() {
    uninterrupted = false;
}

void begin_call() {
    checked = CoarseClock::now();
}

void parallel_for(Index tasks, int workers, TaskBody body, void* context) {
    workers = static_cast<int>(std::clamp<Index>(tasks, 1, std::max(workers, 1)));
    std::array<Share, 32> shares; // no allocation: a step of training that has begun does not fail
    const Index count = std::min<Index>(workers, std::ssize(shares));
    for (Index i = 0; i < count; ++i) {
        shares[static_cast<std::size_t>(i)].next.store(i * tasks / count, std::memory_order_relaxed);
        shares[static_cast<std::size_t>(i)].end = (i + 1) * tasks / count;
    }
    Region region{.shares = {shares.data(), static_cast<std::size_t>(count)}, .body = body, .context = context};
    if (workers == 1) {
        run(region, 0);
    } else {
        with_helpers(
            workers - 1, [](void* shared, int worker) { run(*static_cast<Region*>(shared), worker); }, &region);
    }
    if (region.error) {
        std::rethrow_exception(region.error);
    }
    checkpoint(); // the calling thread may have had no task to check after
}

} // namespace fastnet
