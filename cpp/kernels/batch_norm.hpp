// Batch normalisation of columns: value and derivative. A column is some neighbouring units of all rows.
//
// Statistics and sums are computed in float64, in float32 networks too.
#pragma once

#include "core/stages.hpp"
#include "kernels/activations.hpp"

namespace fastnet::FASTNET_TARGET {

// Added to the variance, so that a constant column is not divided by 0.
inline constexpr double norm_epsilon = 1e-6;

// As many doubles as a vector of T has lanes.
template <class T> struct WideOf {
    typedef double type __attribute__((vector_size(lanes<T> * 8)));
};
template <class T> using Wide = typename WideOf<T>::type;

template <class T> FASTNET_INLINE Wide<T> widen(Vec<T> v) {
    return __builtin_convertvector(v, Wide<T>);
}
template <class T> FASTNET_INLINE Vec<T> narrow(Wide<T> v) {
    return __builtin_convertvector(v, Vec<T>);
}
template <class T> FASTNET_INLINE double sum_wide(Wide<T> v) {
    double total = 0;
    for (Index i = 0; i < lanes<T>; ++i) {
        total += v[i];
    }
    return total;
}

// Mean and biased variance of one column.
struct Moments {
    double mean, variance;
};

FASTNET_INLINE double inverse_deviation(double variance) {
    return 1 / __builtin_sqrt(variance + norm_epsilon);
}

// Mixes a training pass's statistics of column c into the running ones, which are averages of all passes so far: with
// weights that forget old passes at the rate of `momentum`, and add up to 1. Given statistics are an average of
// infinitely many passes: `passes` is null.
template <class T> void mix_running(const Stage<T>& stage, Index c, Moments moments) {
    if (!stage.running_mean) {
        return;
    }
    double share = 1 - stage.momentum;
    if (stage.passes) {
        const double n = static_cast<double>(*stage.passes + 1);
        share = stage.momentum < 1 ? share / (1 - __builtin_pow(stage.momentum, n)) : 1 / n;
    }
    const auto mix = [&](T& running, double now) {
        const double before = static_cast<double>(running);
        running = static_cast<T>(before + share * (now - before));
    };
    mix(stage.running_mean[c], moments.mean);
    mix(stage.running_variance[c], moments.variance);
}

// A block of columns of a matrix (rows, …; stride), from unit `first` on: `units` of them, `positions` to a column.
template <class T> struct ColumnBlock {
    T* data;
    Index rows, stride, first, units, positions;

    T* at(Index row, Index unit) const { return data + row * stride + first + unit; }
    double count() const { return static_cast<double>(rows * positions); } // of a column's elements
};

// f(unit, units, column) for each vector of units; where columns have one unit each, a vector is as many columns, and
// else a part of the column.
template <class T, class F> FASTNET_INLINE void for_each_column_vector(const ColumnBlock<T>& block, F&& f) {
    if (block.positions == 1) {
        for_each_vector<T>(block.units, [&](Index j, Index n) { f(j, n, j); });
        return;
    }
    for (Index c = 0; c * block.positions < block.units; ++c) {
        for_each_vector<T>(block.positions, [&](Index j, Index n) { f(c * block.positions + j, n, c); });
    }
}

// Two sums over each column of a block, in float64: to[c] = sums of first(i, unit, units) and second(…), vectors of the
// elements of row i.
template <class T, class F> void sum_columns(const ColumnBlock<T>& block, double* to, F&& term) {
    if (block.positions == 1) {
        for_each_vector<T>(block.units, [&](Index j, Index n) {
            Wide<T> total{};
            for (Index i = 0; i < block.rows; ++i) {
                total += term(i, j, n, j);
            }
            for (Index k = 0; k < n; ++k) {
                to[j + k] = total[k];
            }
        });
        return;
    }
    for (Index c = 0; c * block.positions < block.units; ++c) {
        Wide<T> total{};
        for (Index i = 0; i < block.rows; ++i) {
            for_each_vector<T>(block.positions,
                               [&](Index j, Index n) { total += term(i, c * block.positions + j, n, c); });
        }
        to[c] = sum_wide<T>(total);
    }
}

// A number for each column of a vector: that of column c in every lane, or, where a column has one unit, those of the
// columns from c on.
template <class T> FASTNET_INLINE Wide<T> of_columns(const double* values, Index c, Index units, bool single) {
    Wide<T> v{};
    if (single) {
        for (Index k = 0; k < units; ++k) {
            v[k] = values[c + k];
        }
        return v;
    }
    return v + values[c];
}

// Normalises a block in place with the statistics of its columns, and keeps what `backward` needs: the normalised
// values in `normal`, 1/deviation in `inverse` (columns of the block).
template <class T>
void normalise(const Stage<T>& stage, const ColumnBlock<T>& block, const ColumnBlock<T>& normal, double* inverse) {
    const bool single = block.positions == 1;
    const Index columns = block.units / block.positions, first = block.first / block.positions;
    const Array<double> memory(2 * columns);
    double *const mean = memory.data(), *const variance = mean + columns;
    sum_columns(block, mean, [&](Index i, Index j, Index n, Index) { return widen<T>(load(block.at(i, j), n)); });
    for (Index c = 0; c < columns; ++c) {
        mean[c] /= block.count();
    }
    sum_columns(block, variance, [&](Index i, Index j, Index n, Index c) {
        Wide<T> d = widen<T>(load(block.at(i, j), n)) - of_columns<T>(mean, c, n, single);
        for (Index k = n; k < lanes<T>; ++k) {
            d[k] = 0; // behind the column
        }
        return d * d;
    });
    for (Index c = 0; c < columns; ++c) {
        variance[c] /= block.count();
        inverse[c] = inverse_deviation(variance[c]);
        mix_running(stage, first + c, {mean[c], variance[c]});
    }
    const T *const gamma = stage.weight + first, *const beta = stage.bias + first;
    for_each_column_vector(block, [&](Index j, Index n, Index c) {
        const Wide<T> centre = of_columns<T>(mean, c, n, single), scale = of_columns<T>(inverse, c, n, single);
        const Vec<T> g = single ? load(gamma + c, n) : splat(gamma[c]), b = single ? load(beta + c, n) : splat(beta[c]);
        for (Index i = 0; i < block.rows; ++i) {
            const Vec<T> x = narrow<T>((widen<T>(load(block.at(i, j), n)) - centre) * scale);
            store(normal.at(i, j), x, n);
            store(block.at(i, j), g * x + b, n);
        }
    });
}

// The same with the running statistics: each row by itself.
template <class T> void normalise_rows(const Stage<T>& stage, T* units, Index rows, Index stride) {
    const Index positions = stage.positions, columns = stage.outputs / positions;
    const Array<double> memory(2 * columns);
    double *const mean = memory.data(), *const inverse = mean + columns;
    for (Index c = 0; c < columns; ++c) {
        mean[c] = static_cast<double>(stage.running_mean[c]);
        inverse[c] = inverse_deviation(static_cast<double>(stage.running_variance[c]));
    }
    const bool single = positions == 1;
    const ColumnBlock<T> block{units, rows, stride, 0, stage.outputs, positions};
    for_each_column_vector(block, [&](Index j, Index n, Index c) {
        const Wide<T> centre = of_columns<T>(mean, c, n, single), scale = of_columns<T>(inverse, c, n, single);
        const Vec<T> g = single ? load(stage.weight + c, n) : splat(stage.weight[c]);
        const Vec<T> b = single ? load(stage.bias + c, n) : splat(stage.bias[c]);
        for (Index i = 0; i < rows; ++i) {
            T* at = block.at(i, j);
            store(at, g * narrow<T>((widen<T>(load(at, n)) - centre) * scale) + b, n);
        }
    });
}

// d, the derivative with respect to the output, becomes that with respect to the input, in place:
// gamma/deviation · (d − (Σd + x̂·Σ(d·x̂))/elements). The sums are the gradients of beta and gamma.
template <class T>
void normalise_backward(const Stage<T>& stage, const ColumnBlock<T>& d, const ColumnBlock<T>& normal,
                        const double* inverse, const StageGradient<T>& gradient) {
    const bool single = d.positions == 1;
    const Index columns = d.units / d.positions, first = d.first / d.positions;
    const Array<double> memory(3 * columns);
    double *const dbeta = memory.data(), *const dgamma = dbeta + columns, *const scale = dgamma + columns;
    sum_columns(d, dbeta, [&](Index i, Index j, Index n, Index) { return widen<T>(load(d.at(i, j), n)); });
    sum_columns(d, dgamma, [&](Index i, Index j, Index n, Index) {
        return widen<T>(load(d.at(i, j), n)) * widen<T>(load(normal.at(i, j), n));
    });
    for (Index c = 0; c < columns; ++c) {
        gradient.weight[first + c] = static_cast<T>(dgamma[c]);
        gradient.bias[first + c] = static_cast<T>(dbeta[c]);
        dbeta[c] /= d.count();
        dgamma[c] /= d.count();
        scale[c] = static_cast<double>(stage.weight[first + c]) * inverse[c];
    }
    for_each_column_vector(d, [&](Index j, Index n, Index c) {
        const Wide<T> b = of_columns<T>(dbeta, c, n, single), g = of_columns<T>(dgamma, c, n, single);
        const Wide<T> s = of_columns<T>(scale, c, n, single);
        for (Index i = 0; i < d.rows; ++i) {
            const Wide<T> x = widen<T>(load(normal.at(i, j), n));
            store(d.at(i, j), narrow<T>(s * (widen<T>(load(d.at(i, j), n)) - b - x * g)), n);
        }
    });
}

} // namespace fastnet::FASTNET_TARGET
