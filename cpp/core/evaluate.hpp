// Evaluates a function of compiled code at many points near x, on several threads, each with its own copy of x.
#pragma once

#include <cstdint>

#include "core/network.hpp"

namespace fastnet {

using NativeFunction = double (*)(std::intptr_t n, const double* x, void* data);

// Points near x: each gives `moved` elements of x other values. Row-major arrays of shape (count, moved); where an
// element is named twice, its last value counts.
struct Points {
    Index count, moved;
    const std::int64_t* entries; // from 0 to n − 1
    const double* values;
};

// Writes f at each point to out (count). Returns false if f was seen to change its argument. f may be called from any
// thread, and from several at once.
bool evaluate(NativeFunction f, void* data, const double* x, Index n, const Points& points, double* out);

} // namespace fastnet
