// The gradient with respect to affine stages from a few evaluations for each unit and row.
//
// Where every later stage takes row by row, or all but a batch normalisation right behind the affine stage, a row's
// loss changes by a function of the move of one unit alone: of the affine stage's unit, or of the normalised one. Those
// moves are known for every weight at once: h times the weight's input, or what a batch normalisation makes of it. The
// function is the polynomial of fourth degree through four nodes; it is checked at two others, which tells kinks, too.
// A unit for which a row's check fails is left to `StageDifferences`.
#pragma once

#include "kernels/stage_differences.hpp"

namespace fastnet::FASTNET_TARGET {

template <class T> class StageNodal {
  public:
    StageNodal(const StagePass<T>& base, StageDifferences<T>& differences, double h)
        : base_(base), net_(base.net()), differences_(differences), h_(static_cast<T>(h)),
          rows_(round_up(base.rows(), lanes<T>)) {}

    // Whether it knows the moves of stage s.
    bool handles(Index s) const {
        if (net_.stages[s].kind != StageKind::affine) {
            return false;
        }
        const bool normed = is_normed(s);
        for (Index later = s + 1 + normed; later < net_.depth; ++later) {
            if (couples_rows(net_.stages[later])) {
                return false;
            }
        }
        return !normed || net_.stages[s + 1].positions == 1;
    }

    // Fills the gradient with respect to the parameters of stage s. Returns how many units were unfit.
    Index run(Index s, const StageGradient<T>& gradient, const StageKinks& kinks) {
        const Stage<T>& stage = net_.stages[s];
        const Inputs inputs(*this, s);
        const Array<Index> unfit(base_.workers());
        unfit.zeroed();
        parallel_for(stage.outputs, base_.workers(), [&](Index column, int worker) {
            checkpoint();
            if (!differentiate(s, column, inputs, gradient, worker)) {
                ++unfit[worker];
                differences_.differentiate(s, column, gradient, kinks, worker);
            }
        });
        Index total = 0;
        for (int w = 0; w < base_.workers(); ++w) {
            total += unfit[w];
        }
        return total;
    }

  private:
    bool is_normed(Index s) const { return s + 1 < net_.depth && couples_rows(net_.stages[s + 1]); }

    // The inputs of an affine stage by columns, (inputs, rows padded with zeros); less their means before a batch
    // normalisation.
    struct Inputs {
        Inputs(const StageNodal& nodal, Index s)
            : count(nodal.net_.stages[s].inputs), rows(nodal.rows_), values(count * rows), squares(count),
              widest(rows) {
            const Index real_rows = nodal.base_.rows();
            const bool centred = nodal.is_normed(s);
            values.zeroed();
            widest.zeroed();
            parallel_for((count + 63) / 64, nodal.base_.workers(), [&](Index task, int) {
                for (Index k = task * 64; k < min_index(task * 64 + 64, count); ++k) {
                    T* const to = values.data() + k * rows;
                    double total = 0;
                    for (Index i = 0; i < real_rows; ++i) {
                        to[i] = nodal.base_.input(s, i)[k];
                        total += static_cast<double>(to[i]);
                    }
                    const T mean = centred ? static_cast<T>(total / static_cast<double>(real_rows)) : T(0);
                    double square = 0;
                    for (Index i = 0; i < real_rows; ++i) {
                        to[i] -= mean;
                        square += static_cast<double>(to[i]) * static_cast<double>(to[i]);
                    }
                    squares[k] = square;
                }
            });
            for (Index k = 0; k < count; ++k) {
                for (Index i = 0; i < rows; i += lanes<T>) {
                    store(widest.data() + i, max<T>(absolute<T>(load(at(k) + i)), load(widest.data() + i)));
                }
            }
        }
        const T* at(Index k) const { return values.data() + k * rows; }

        const Index count, rows;
        const Array<T> values;
        const Array<double> squares; // (inputs): sums over the rows
        const Array<T> widest;       // (rows): the greatest size of a row's inputs
    };

    // What the two moves of a weight make of its input e (rows): ±h·e itself, or `of_input`·e + `of_normal`·x behind a
    // batch normalisation, with its normalised values x.
    struct Pair {
        T of_input[2], of_normal[2];
    };

    // A column's own numbers, (rows) each: normalised values, the furthest move, and the polynomial of the loss's
    // change.
    struct Column {
        explicit Column(Index rows) : memory((2 + degree) * rows), normal(memory.data()), furthest(normal + rows) {
            memory.zeroed();
            for (Index k = 0; k < degree; ++k) {
                terms[k] = furthest + (k + 1) * rows;
            }
        }
        static constexpr Index degree = 4;
        const Array<T> memory;
        T *const normal, *const furthest;
        T* terms[degree]; // of x, x², x³, x⁴
    };

    Pair pair_of(Index s, Index unit, double input_squares, double with_normal) const {
        const T h = h_;
        if (!is_normed(s)) {
            return {{h, -h}, {T(0), T(0)}};
        }
        Pair pair{};
        const double inverse = base_.inverses(s + 1)[unit], deviation = 1 / inverse;
        const double gamma = static_cast<double>(net_.stages[s + 1].weight[unit]);
        const double count = static_cast<double>(base_.rows());
        for (int side = 0; side < 2; ++side) {
            const double step = side == 0 ? static_cast<double>(h) : -static_cast<double>(h);
            const double grows = (2 * deviation * step * with_normal + step * step * input_squares) / count;
            const double after = __builtin_sqrt(deviation * deviation + grows);
            pair.of_input[side] = static_cast<T>(gamma * step / after);
            pair.of_normal[side] = static_cast<T>(-gamma * grows / (after * (after + deviation)));
        }
        return pair;
    }

    bool differentiate(Index s, Index unit, const Inputs& inputs, const StageGradient<T>& gradient, int worker) {
        const Stage<T>& stage = net_.stages[s];
        const bool normed = is_normed(s);
        const Column column(rows_);
        const Array<Pair> pairs(inputs.count);
        if (normed) {
            for (Index i = 0; i < base_.rows(); ++i) {
                column.normal[i] = base_.kept(s + 1)[i * base_.stride(s + 1) + unit];
            }
        }
        for (Index k = 0; k < inputs.count; ++k) {
            Vec<T> with_normal{};
            for (Index i = 0; normed && i < rows_; i += lanes<T>) {
                with_normal += load(inputs.at(k) + i) * load(column.normal + i);
            }
            pairs[k] = pair_of(s, unit, inputs.squares[k], static_cast<double>(sum<T>(with_normal)));
        }
        find_furthest(stage, normed, inputs, pairs.data(), column);
        if (!fit(s + normed, unit, column, worker)) {
            return false;
        }
        const T scale = static_cast<T>(1 / (2 * static_cast<double>(h_) * static_cast<double>(base_.rows())));
        const T decay = static_cast<T>(net_.weight_decay);
        for (Index k = 0; k < inputs.count; ++k) {
            const Index at = k * stage.outputs + unit;
            const T change = inputs.squares[k] == 0 ? T(0) : change_of(pairs[k], inputs.at(k), column);
            gradient.weight[at] = change * scale + decay * stage.weight[at];
        }
        if (stage.bias) {
            gradient.bias[unit] = normed ? T(0) : change_of_bias(column) * scale;
        }
        return true;
    }

    // The furthest that any parameter moves the unit, in each row.
    void find_furthest(const Stage<T>& stage, bool normed, const Inputs& inputs, const Pair* pairs,
                       const Column& column) const {
        if (!normed) {
            for (Index i = 0; i < rows_; i += lanes<T>) {
                const Vec<T> widest = load(inputs.widest.data() + i);
                store(column.furthest + i, h_ * (stage.bias ? max<T>(widest, splat(T(1))) : widest));
            }
            return;
        }
        for (Index k = 0; k < inputs.count; ++k) {
            const Pair& p = pairs[k];
            for (Index i = 0; i < rows_; i += lanes<T>) {
                const Vec<T> e = load(inputs.at(k) + i), x = load(column.normal + i);
                const Vec<T> one = absolute<T>(p.of_input[0] * e + p.of_normal[0] * x);
                const Vec<T> other = absolute<T>(p.of_input[1] * e + p.of_normal[1] * x);
                T* const to = column.furthest + i;
                store(to, max<T>(load(to), max<T>(one, other)));
            }
        }
    }

    // Fits the polynomials of a column of stage s's units. Returns whether they hold for every row.
    bool fit(Index s, Index unit, const Column& column, int worker) {
        constexpr Index count = 6;
        constexpr T nodes[count + lanes<T>] = {1, -1, T(0.5), T(-0.5), T(0.75), T(-0.75)};
        const Array<T> changes(count * rows_);
        changes.zeroed();
        differences_.row_changes(s, unit, column.furthest, nodes, count, rows_, changes.data(), worker);
        const T *const one = changes.data(), *const half = one + 2 * rows_, *const check = half + 2 * rows_;
        T greatest = 0;
        for (Index i = 0; i < 2 * rows_; ++i) {
            const T size = one[i] < 0 ? -one[i] : one[i];
            greatest = size > greatest || size != size ? size : greatest;
        }
        const T tolerance = greatest * 100 * (sizeof(T) == 8 ? T(2.220446049250313e-16) : T(1.1920929e-07));
        bool fits = true;
        for (Index i = 0; i < base_.rows(); ++i) {
            const T odd = (one[i] - one[i + rows_]) / 2, even = (one[i] + one[i + rows_]) / 2;
            const T odd_half = (half[i] - half[i + rows_]) / 2, even_half = (half[i] + half[i + rows_]) / 2;
            // In u = x / furthest: odd is c1·u + c3·u³, even c2·u² + c4·u⁴, at u = 1 and 1/2.
            const T c3 = (odd - 2 * odd_half) * 4 / 3, c1 = odd - c3;
            const T c4 = (even - 4 * even_half) * 4 / 3, c2 = even - c4;
            constexpr T u = T(0.75);
            const T odd_u = u * (c1 + u * u * c3), even_u = u * u * (c2 + u * u * c4);
            fits &= close(odd_u + even_u, check[i], tolerance) && close(even_u - odd_u, check[i + rows_], tolerance);
            const T v = column.furthest[i] > 0 ? 1 / column.furthest[i] : T(0);
            column.terms[0][i] = c1 * v;
            column.terms[1][i] = c2 * v * v;
            column.terms[2][i] = c3 * v * v * v;
            column.terms[3][i] = c4 * v * v * v * v;
        }
        return fits;
    }

    static bool close(T a, T b, T tolerance) { return a - b <= tolerance && b - a <= tolerance; }

    FASTNET_INLINE static Vec<T> polynomial(const Column& column, Index i, Vec<T> x) {
        const Vec<T> high = load(column.terms[2] + i) + x * load(column.terms[3] + i);
        return x * (load(column.terms[0] + i) + x * (load(column.terms[1] + i) + x * high));
    }

    // The sum over the rows of the loss's change for the one move less that for the other.
    T change_of(const Pair& p, const T* input, const Column& column) const {
        Vec<T> total{};
        for (Index i = 0; i < rows_; i += lanes<T>) {
            const Vec<T> e = load(input + i), x = load(column.normal + i);
            total += polynomial(column, i, p.of_input[0] * e + p.of_normal[0] * x) -
                     polynomial(column, i, p.of_input[1] * e + p.of_normal[1] * x);
        }
        return sum<T>(total);
    }

    T change_of_bias(const Column& column) const {
        Vec<T> total{};
        for (Index i = 0; i < rows_; i += lanes<T>) {
            total += polynomial(column, i, splat(h_)) - polynomial(column, i, splat(-h_));
        }
        return sum<T>(total);
    }

    const StagePass<T>& base_;
    const StageNetwork<T>& net_;
    StageDifferences<T>& differences_;
    const T h_;
    const Index rows_; // padded
};

} // namespace fastnet::FASTNET_TARGET
