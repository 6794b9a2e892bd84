#include "core/memory.hpp"

#include <new>
#include <utility>
#include <vector>

#ifdef __linux__
#    include <sys/mman.h>
#endif

namespace fastnet {

namespace {

constexpr std::size_t huge_page = std::size_t{2} << 20;

// A cache line for small blocks, a huge page for large ones, where the system has them: with small pages, the address
// translation of a random access takes longer than the work on the element.
std::align_val_t alignment(std::size_t bytes) {
    return std::align_val_t{bytes >= 2 * huge_page ? huge_page : 64};
}

void* allocate(std::size_t bytes) {
    void* block = ::operator new(bytes, alignment(bytes));
#ifdef MADV_HUGEPAGE
    if (bytes >= 2 * huge_page) {
        madvise(block, bytes / huge_page * huge_page, MADV_HUGEPAGE); // only a hint: nothing depends on its success
    }
#endif
    return block;
}

void release(std::size_t bytes, void* block) {
    ::operator delete(block, alignment(bytes));
}

// Freed blocks of a thread, kept for its next call, up to 32 MiB. In a call of some tens of microseconds, fresh pages
// from the system would cost more than the arithmetic.
class Cache {
  public:
    ~Cache() {
        for (const auto& [bytes, block] : kept_) {
            release(bytes, block);
        }
    }

    void* take(std::size_t bytes) {
        for (auto& entry : kept_) {
            if (entry.first == bytes) {
                void* block = entry.second;
                total_ -= bytes;
                entry = kept_.back();
                kept_.pop_back();
                return block;
            }
        }
        return allocate(bytes);
    }

    void give(std::size_t bytes, void* block) noexcept {
        if (total_ + bytes <= most_bytes && kept_.size() < kept_.capacity()) {
            kept_.emplace_back(bytes, block);
            total_ += bytes;
        } else {
            release(bytes, block);
        }
    }

    Cache() { kept_.reserve(most_blocks); }

  private:
    static constexpr std::size_t most_bytes = std::size_t{32} << 20, most_blocks = 128;
    std::vector<std::pair<std::size_t, void*>> kept_;
    std::size_t total_ = 0;
};
thread_local Cache cache;

// Sizes are rounded up by at most a quarter, so that calls of similar sizes can reuse each other's blocks.
std::size_t size_class(std::size_t bytes) {
    std::size_t step = 64;
    while (step * 8 < bytes) {
        step *= 2;
    }
    return bytes == 0 ? step : (bytes + step - 1) / step * step;
}

} // namespace

Buffer::Buffer(std::size_t bytes) : bytes_(size_class(bytes)), data(cache.take(bytes_)) {}
Buffer::~Buffer() {
    cache.give(bytes_, data);
}

} // namespace fastnet
