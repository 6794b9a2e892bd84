#include "core/evaluate.hpp"

#include <algorithm>
#include <atomic>
#include <cstring>
#include <vector>

#include "core/threads.hpp"

namespace fastnet {
namespace {

constexpr Index most_in_task = 64; // points; fewer where that many would leave threads without work
constexpr Index tasks_per_worker = 8;

struct Evaluation {
    NativeFunction f;
    void* data;
    const double* x;
    Index n;
    Points points;
    double* out;
    Index in_task;
    std::vector<std::vector<double>> copies; // of x, one for each worker, made when it begins its first task
    std::atomic<bool> unchanged{true};

    void run(Index task, int worker) {
        std::vector<double>& at = copies[static_cast<std::size_t>(worker)];
        if (at.empty()) {
            at.assign(x, x + n);
        }
        const Index end = std::min(points.count, (task + 1) * in_task);
        for (Index k = task * in_task; k < end; ++k) {
            const std::int64_t* entries = points.entries + k * points.moved;
            const double* values = points.values + k * points.moved;
            for (Index i = 0; i < points.moved; ++i) {
                at[static_cast<std::size_t>(entries[i])] = values[i];
            }
            out[k] = f(n, at.data(), data);
            for (Index i = 0; i < points.moved; ++i) {
                at[static_cast<std::size_t>(entries[i])] = x[entries[i]];
            }
            checkpoint();
        }
        if (std::memcmp(at.data(), x, static_cast<std::size_t>(n) * sizeof(double)) != 0) {
            unchanged.store(false, std::memory_order_relaxed);
        }
    }
};

} // namespace

bool evaluate(NativeFunction f, void* data, const double* x, Index n, const Points& points, double* out) {
    const int workers = num_threads();
    const Index shared = points.count / (workers * tasks_per_worker);
    Evaluation work{.f = f,
                    .data = data,
                    .x = x,
                    .n = n,
                    .points = points,
                    .out = out,
                    .in_task = std::clamp<Index>(shared, 1, most_in_task),
                    .copies = std::vector<std::vector<double>>(static_cast<std::size_t>(workers))};
    parallel_for((points.count + work.in_task - 1) / work.in_task, workers,
                 [](void* context, Index task, int worker) { static_cast<Evaluation*>(context)->run(task, worker); },
                 &work);
    return work.unchanged.load();
}

} // namespace fastnet
