// Workspace arrays and parallel loops for kernels.
#pragma once

#include <new>
#include <utility>

#include "core/memory.hpp"
#include "core/threads.hpp"
#include "kernels/simd.hpp"

namespace fastnet::FASTNET_TARGET {

// n uninitialised elements, aligned to a cache line. `const` fixes the size and the place; the elements can be written.
template <class T> class Array {
  public:
    explicit Array(Index n) : size_(n), buffer_(static_cast<std::size_t>(n) * sizeof(T)) {}
    T* data() const { return static_cast<T*>(buffer_.data); }
    T* zeroed() const {
        std::memset(buffer_.data, 0, static_cast<std::size_t>(size_) * sizeof(T));
        return data();
    }
    T& operator[](Index i) const { return data()[i]; }

  private:
    const Index size_;
    const Buffer buffer_;
};

// Up to `capacity` objects, constructed one after the other in place; they never move.
template <class X> class FixedList {
  public:
    explicit FixedList(Index capacity) : memory_(static_cast<std::size_t>(capacity) * sizeof(X)) {}
    ~FixedList() {
        while (size_ > 0) {
            (*this)[--size_].~X();
        }
    }
    FixedList(const FixedList&) = delete;
    FixedList& operator=(const FixedList&) = delete;

    template <class... A> X& add(A&&... arguments) {
        X* made = new (static_cast<X*>(memory_.data) + size_) X{std::forward<A>(arguments)...};
        ++size_;
        return *made;
    }
    X& operator[](Index i) const { return static_cast<X*>(memory_.data)[i]; }
    Index size() const { return size_; }

  private:
    const Buffer memory_;
    Index size_ = 0;
};

// body(task, worker) for every task, on at most `workers` threads.
template <class F> void parallel_for(Index tasks, int workers, F&& body) {
    fastnet::parallel_for(
        tasks, workers, [](void* context, Index task, int worker) { (*static_cast<F*>(context))(task, worker); },
        &body);
}

// How many threads are worth starting, which takes some microseconds: one for every 20 microseconds of work.
inline int workers_for(double nanoseconds) {
    const int threads = num_threads();
    const double useful = nanoseconds / 2e4;
    return useful < 1 ? 1 : useful < threads ? static_cast<int>(useful) : threads;
}

// The approximate time of a multiply-add of a matrix product, in nanoseconds.
inline constexpr double multiply_add = 0.1;

} // namespace fastnet::FASTNET_TARGET
