// Functions on whole arrays: elements or rows shared out among the threads.
#pragma once

#include "kernels/forward.hpp"

namespace fastnet::FASTNET_TARGET {

// f(begin, end) for pieces of [0, n), each worth a thread's start; `cost` is about the nanoseconds per item.
template <class F> void for_pieces(Index n, double cost, F&& f) {
    const int workers = workers_for(static_cast<double>(n) * cost);
    const Index piece = workers > 1 ? round_up((n + 4 * workers - 1) / (4 * workers), 64) : n;
    if (n > 0) {
        parallel_for((n + piece - 1) / piece, workers,
                     [&](Index task, int) { f(task * piece, min_index((task + 1) * piece, n)); });
    }
}

// Whether no element of x (n) is NaN or infinite.
template <class T> bool are_finite(const T* x, Index n) {
    constexpr Index piece = Index{1} << 16;
    const Index pieces = (n + piece - 1) / piece;
    const Array<bool> finite(pieces);
    parallel_for(pieces, workers_for(0.1 * static_cast<double>(n)), [&](Index task, int) {
        finite[task] = all_finite(x + task * piece, min_index(piece, n - task * piece));
    });
    bool all = true;
    for (Index task = 0; task < pieces; ++task) {
        all &= finite[task];
    }
    return all;
}

// x (n) -> f(x) (n)
template <class T, class F> void map_array(const T* x, T* to, Index n, double cost, F&& f) {
    for_pieces(n, cost, [&](Index begin, Index end) {
        for_each_vector<T>(end - begin,
                           [&](Index i, Index count) { store(to + begin + i, f(load(x + begin + i, count)), count); });
    });
}

template <class T> void exp_array(const T* x, T* to, Index n) {
    map_array(x, to, n, 1, [](Vec<T> v) { return exp<T>(v); });
}

template <class T> void activation(Activation kind, T constant, const T* x, T* to, Index n) {
    with_activation(kind, constant, [&](auto phi) { map_array(x, to, n, 1, [&](Vec<T> v) { return phi.value(v); }); });
}

template <class T> void activation_derivative(Activation kind, T constant, const T* x, T* to, Index n) {
    with_activation(kind, constant,
                    [&](auto phi) { map_array(x, to, n, 1, [&](Vec<T> v) { return phi.derivative(v); }); });
}

// x (rows, columns) + b (columns)
template <class T> void add_bias(const T* x, const T* b, T* to, Index rows, Index columns) {
    for_pieces(rows, 0.3 * static_cast<double>(columns), [&](Index begin, Index end) {
        for (Index i = begin; i < end; ++i) {
            for_each_vector<T>(columns, [&](Index j, Index count) {
                store(to + i * columns + j, load(x + i * columns + j, count) + load(b + j, count), count);
            });
        }
    });
}

// x (rows, columns) -> softmax of each row
template <class T> void softmax(const T* x, T* to, Index rows, Index columns) {
    for_pieces(rows, 2 * static_cast<double>(columns), [&](Index begin, Index end) {
        for (Index i = begin; i < end; ++i) {
            softmax_row(x + i * columns, to + i * columns, columns);
        }
    });
}

// y (rows, classes) -> the mean loss
template <class T>
double mean_loss(Loss kind, T constant, const T* y, const Targets<T>& targets, Index rows, Index classes) {
    Array<T> losses(rows);
    with_loss<T>(kind, constant, [&](auto loss) {
        for_pieces(rows, (targets.rows ? 5.0 : 0.5) * static_cast<double>(classes), [&](Index begin, Index end) {
            for (Index i = begin; i < end; ++i) {
                losses[i] = loss.value(y + i * classes, target_of(targets, i, classes), classes);
            }
        });
    });
    return sum_of(losses.data(), rows) / static_cast<double>(rows);
}

} // namespace fastnet::FASTNET_TARGET
