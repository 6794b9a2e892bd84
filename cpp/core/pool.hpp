// Threads that wait for work, and help whoever has some.
#pragma once

namespace fastnet {

// Runs body(context, 0) here, and body(context, seat) with seats 1, 2, … on up to `helpers` threads of the pool: on
// those that come while it runs here. Returns when all of them have left it, and waits for none that did not come:
// where the processors are busy with other programs, the caller does the work alone. `body` must not throw.
void with_helpers(int helpers, void (*body)(void* context, int seat), void* context);

} // namespace fastnet
