// On which processors the pool's threads run.
#pragma once

#include <thread>
#include <vector>

namespace fastnet {

// Moves threads off the calling thread's processor, as far as they may run on others, and leaves their affinity masks
// as they were. A scheduler may keep two threads that wait for each other on one processor, beside an idle one.
void move_off_this_processor(const std::vector<std::thread::native_handle_type>& threads);

} // namespace fastnet
