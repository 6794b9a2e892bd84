#include "core/pool.hpp"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#if defined(__unix__) || defined(__APPLE__)
#    include <pthread.h>
#    include <signal.h>
#endif
#if defined(__x86_64__) || defined(__i386__)
#    include <immintrin.h>
#endif

namespace fastnet {
namespace {

using Clock = std::chrono::steady_clock;

void pause() {
#if defined(__x86_64__) || defined(__i386__)
    _mm_pause();
#endif
}

// Calls done() until it returns true or the time is over, and returns its last answer. Other threads may run meanwhile.
template <class F> bool poll(Clock::duration time, F&& done) {
    for (int i = 0; i < 200; ++i) { // some microseconds
        if (done()) {
            return true;
        }
        pause();
    }
    for (const auto end = Clock::now() + time; Clock::now() < end; std::this_thread::yield()) {
        if (done()) {
            return true;
        }
    }
    return done();
}

// New threads inherit a mask that blocks all signals: the program's own threads handle them.
class SignalsBlocked {
#if defined(__unix__) || defined(__APPLE__)
  public:
    SignalsBlocked() {
        sigset_t all;
        sigfillset(&all);
        pthread_sigmask(SIG_SETMASK, &all, &before_);
    }
    ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

  private:
    sigset_t before_;
#endif
};

struct Job {
    void (*body)(void* context, int seat);
    void* context;
    int seats;                   // how many helpers may join
    int taken = 0;               // how many have joined
    std::atomic<int> working{0}; // how many of them have not left yet
};

class Pool {
  public:
    void run(Job& job) {
        {
            const std::lock_guard lock(mutex_);
            grow(job.seats);
            open_.push_back(&job);
        }
        offered_.fetch_add(1);
        for (int woken = std::min(job.seats, sleeping_.load()); woken > 0; --woken) {
            offered_.notify_one();
        }
        job.body(job.context, 0);
        {
            const std::lock_guard lock(mutex_);
            std::erase(open_, &job);
        }
        const auto all_left = [&] { return job.working.load(std::memory_order_acquire) == 0; };
        while (!poll(std::chrono::seconds(1), all_left)) {
        }
    }

  private:
    // How long a helper polls for the next job before it sleeps. Polling takes up a job within a microsecond, waking
    // up takes some fifty.
    static constexpr auto patience = std::chrono::microseconds(1000);

    void grow(int wanted) {
        try {
            const SignalsBlocked blocked;
            threads_.reserve(static_cast<std::size_t>(wanted));
            while (static_cast<int>(threads_.size()) < wanted) {
                std::thread thread([this] { serve(); });
                threads_.push_back(thread.native_handle());
                thread.detach();
            }
        } catch (const std::system_error&) { // the system grants no more threads: the pool works with fewer
        }
    }

    [[noreturn]] void serve() {
        for (unsigned seen = 0;;) {
            while (const Seat seat = join()) {
                seat.job->body(seat.job->context, seat.number);
                seat.job->working.fetch_sub(1, std::memory_order_release); // the job may not exist any more
            }
            if (!poll(patience, [&] { return offered_.load() != seen; })) {
                sleeping_.fetch_add(1);
                offered_.wait(seen);
                sleeping_.fetch_sub(1);
            }
            seen = offered_.load();
        }
    }

    struct Seat {
        Job* job;
        int number;
        explicit operator bool() const { return job != nullptr; }
    };

    Seat join() {
        const std::lock_guard lock(mutex_);
        if (open_.empty()) {
            return {nullptr, 0};
        }
        Job* job = open_.back();
        job->working.fetch_add(1, std::memory_order_relaxed);
        const int number = ++job->taken;
        if (number == job->seats) {
            open_.pop_back();
        }
        return {job, number};
    }

    std::mutex mutex_;
    std::vector<Job*> open_; // jobs with free seats
    std::vector<std::thread::native_handle_type> threads_;
    std::atomic<unsigned> offered_{0}; // the number of jobs offered so far
    std::atomic<int> sleeping_{0};
};

} // namespace

void with_helpers(int helpers, void (*body)(void* context, int seat), void* context) {
    static Pool& pool = *new Pool; // never destroyed: its threads use it until the process ends
    Job job{.body = body, .context = context, .seats = helpers};
    pool.run(job);
}

} // namespace fastnet
