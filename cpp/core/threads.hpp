// Shares out tasks among threads: their number, forks, exceptions and interrupts.
#pragma once

#include "core/network.hpp"

namespace fastnet {

// How many threads the next parallel region may use; 1 in a forked child, which does not have the pool's threads.
int num_threads();
void set_num_threads(int count);
const char* threading_library();

// Calls body(context, task, worker) once for every task in [0, tasks), on at most `workers` threads. worker < workers
// is the thread's number in this region, so that each can have a workspace. A worker begins with its share of
// neighbouring tasks and takes them in order; that share is the same in all regions of as many tasks and workers. The
// first exception that a body throws ends the region and is rethrown here; Interrupted is thrown when the interrupt
// check returns true.
using TaskBody = void (*)(void* context, Index task, int worker);
void parallel_for(Index tasks, int workers, TaskBody body, void* context);

// For long work, in a region or between two: throws Interrupted if the region, or the whole call, has to end.
void checkpoint();

// The calling thread calls the check at intervals during parallel regions; true ends the region with Interrupted. The
// first interval begins with begin_call, so that short calls never check.
using InterruptCheck = bool (*)();
void set_interrupt_check(InterruptCheck check);
void begin_call();

struct Interrupted {};

// During its lifetime, checkpoint does not interrupt this thread by a signal.
class Uninterrupted {
  public:
    Uninterrupted();
    ~Uninterrupted();
    Uninterrupted(const Uninterrupted&) = delete;
    Uninterrupted& operator=(const Uninterrupted&) = delete;
};

} // namespace fastnet
