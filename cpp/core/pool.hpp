// A pool of threads that wait for work and join whoever offers some.
//
// Why not an OpenMP region: a region ends when its last thread has run, so that where another program keeps a processor
// busy, a call waits for a whole time slice, which is milliseconds, and calls here take tens of microseconds. A call of
// this pool waits only for threads that have joined it. benchmarks/bench_threads.py measures both, and oneTBB, on an
// idle and on a busy machine; docs/design.md tells where threads are decided on. The Numba backend shares out its work
// by itself, for the same reason: fastnet/backends/_numba/threads.py.
#pragma once

namespace fastnet {

// Runs body(context, 0) in the calling thread, and body(context, seat) with seats 1, 2, … in up to `helpers` threads of
// the pool: those that join before the calling thread has finished its own. Returns when all that joined have left, and
// does not wait for others: where other programs keep the processors busy, the caller does all the work itself.
// `body` must not throw.
void with_helpers(int helpers, void (*body)(void* context, int seat), void* context);

} // namespace fastnet
