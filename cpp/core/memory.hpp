// Aligned, uninitialised memory for a kernel's workspace.
#pragma once

#include <cstddef>

namespace fastnet {

// Owns `bytes` bytes aligned to a cache line. Throws std::bad_alloc.
class Buffer {
    const std::size_t bytes_;

  public:
    explicit Buffer(std::size_t bytes);
    ~Buffer();
    Buffer(const Buffer&) = delete;
    Buffer& operator=(const Buffer&) = delete;

    void* const data;
};

} // namespace fastnet
