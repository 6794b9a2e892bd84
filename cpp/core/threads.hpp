// Work shared out among threads: how many, which task to whom, forks, exceptions and interrupts.
#pragma once

#include "core/network.hpp"

namespace fastnet {

// The threads that the next parallel region may use; 1 in a forked child, where the pool's are gone.
int num_threads();
void set_num_threads(int count);
const char* threading_library();

// Calls body(context, task, worker) once for every task in [0, tasks), on at most `workers` threads;
// worker < workers tells which one, for a workspace of its own. Tasks start in order. The first exception of a
// body ends the region and is thrown again from here; so is Interrupted, where the interrupt check says so.
using TaskBody = void (*)(void* context, Index task, int worker);
void parallel_for(Index tasks, int workers, TaskBody body, void* context);

// For what runs long, in a region or between two: throws Interrupted where the region, or the call, is to end.
void checkpoint();

// Asked at intervals by the calling thread during parallel regions: true ends the region with Interrupted. The first
// interval begins with the call, so that short calls never ask.
using InterruptCheck = bool (*)();
void set_interrupt_check(InterruptCheck check);
void begin_call();

struct Interrupted {};

// While it lives, nothing that this thread does is interrupted.
class Uninterrupted {
  public:
    Uninterrupted();
    ~Uninterrupted();
    Uninterrupted(const Uninterrupted&) = delete;
    Uninterrupted& operator=(const Uninterrupted&) = delete;
};

} // namespace fastnet
