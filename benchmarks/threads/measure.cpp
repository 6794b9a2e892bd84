// measure STEPS SECONDS CALLS: makes calls of 8 tasks, each of STEPS dependent multiply-adds, for SECONDS or until
// there are CALLS of them, and prints what each took, in nanoseconds, one to a line. Between two calls this thread is
// busy alone for 20 µs, as it is with the interpreter. Fails if a task has a wrong result. measure 0 SECONDS 0: prints
// the shortest time of 100,000 steps.
#include "region.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
using Nanoseconds = std::chrono::nanoseconds;
constexpr int tasks = 8;
constexpr auto pause_between_calls = std::chrono::microseconds(20);
constexpr auto warm_up = std::chrono::milliseconds(5);

struct alignas(64) Result { // a cache line of its own
    double value;
};

struct Work {
    long steps;
    Result results[tasks];
};

double arithmetic(long steps, int task) {
    double value = task;
    for (long i = 0; i < steps; ++i) {
        value = value * 0.999 + 1.0;
    }
    return value;
}

void do_task(void* context, int task) {
    Work& work = *static_cast<Work*>(context);
    work.results[task].value = arithmetic(work.steps, task);
}

Nanoseconds time_call(Work& work) {
    for (const auto begin = Clock::now(); Clock::now() - begin < pause_between_calls;) {
    }
    const auto begin = Clock::now();
    parallel_region(tasks, do_task, &work);
    return Clock::now() - begin;
}

void calibrate(Clock::duration time) {
    volatile double kept = 0;
    Nanoseconds best = Nanoseconds::max();
    for (const auto end = Clock::now() + time; Clock::now() < end;) {
        const auto begin = Clock::now();
        kept = arithmetic(100000, 0);
        best = std::min<Nanoseconds>(best, Clock::now() - begin);
    }
    (void)kept;
    std::printf("%lld\n", static_cast<long long>(best.count()));
}

} // namespace

int main(int argc, char** argv) {
    if (argc != 4) {
        std::fprintf(stderr, "usage: measure STEPS SECONDS CALLS\n");
        return 2;
    }
    Work work{.steps = std::atol(argv[1]), .results = {}};
    const auto time = std::chrono::duration_cast<Clock::duration>(std::chrono::duration<double>(std::atof(argv[2])));
    if (work.steps == 0) {
        calibrate(time);
        return 0;
    }
    for (const auto end = Clock::now() + warm_up; Clock::now() < end;) {
        time_call(work);
    }
    const auto most_calls = static_cast<std::size_t>(std::atol(argv[3]));
    std::vector<Nanoseconds> calls;
    for (const auto end = Clock::now() + time; Clock::now() < end && calls.size() < most_calls;) {
        for (Result& result : work.results) {
            result.value = -1;
        }
        calls.push_back(time_call(work));
        for (int task = 0; task < tasks; ++task) {
            if (!(work.results[task].value >= 0)) {
                std::fprintf(stderr, "task %d was not done\n", task);
                return 1;
            }
        }
    }
    for (int task = 0; task < tasks; ++task) {
        if (work.results[task].value != arithmetic(work.steps, task)) {
            std::fprintf(stderr, "task %d has a wrong result\n", task);
            return 1;
        }
    }
    for (const Nanoseconds call : calls) {
        std::printf("%lld\n", static_cast<long long>(call.count()));
    }
    return 0;
}
