// Takes the place of core/affinity.cpp: helpers stay where the scheduler has put them.
#include "core/affinity.hpp"

void fastnet::move_off_this_processor(const std::vector<std::thread::native_handle_type>&) {}
