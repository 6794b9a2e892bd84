// The finite-difference gradient from a few evaluations for each unit.
//
// All weights into a unit move the loss through its pre-activation alone. A row's share in the central difference with
// respect to a weight with input x is psi(hx) - psi(-hx) over 2h: an odd, smooth function of x, which the odd
// polynomial through some nodes matches to rounding. Each row and unit must prove that: the polynomial through the
// first two nodes is checked at a third, the one through three at a fourth. A unit is unfit where the check fails, or
// where the way to the furthest node meets an obstacle: a kink, or more than the range in which a few nodes tell the
// whole. Its moves are then evaluated one by one.
//
// The same holds for the even part, psi(hx) + psi(-hx), whose polynomial has the powers 2, 4, 6 in place of 1, 3, 5.
#pragma once

#include "kernels/gradient.hpp"

namespace fastnet::FASTNET_TARGET {

template <class T, class Effects> class Nodal {
  public:
    explicit Nodal(GradientAccumulator<T, Effects>& accumulator)
        : accumulator_(accumulator), base_(accumulator.base()), net_(base_.net), terms_(net_.depth), unfit_(net_.depth),
          fits_(net_.depth * accumulator.most_rows()), effects_(accumulator.workers()),
          obstacles_(accumulator.workers()) {
        for (Index l = 0; l < net_.depth; ++l) {
            const Index size = accumulator.most_rows() * padded<T>(net_.layers[l].outputs);
            terms_.add(3 * size);
            unfit_.add(size);
        }
        for (int w = 0; w < accumulator.workers(); ++w) {
            effects_.add(4 * padded<T>(widest_layer(net_)));
            obstacles_.add(widest_layer(net_));
        }
    }

    // Adds a chunk's share to the gradient, or makes it the gradient for the first chunk.
    void add_chunk(Index first, Index rows, const LayerGradient<T>* gradient) {
        rows_ = rows;
        parallel_for(rows * net_.depth, accumulator_.workers(), [&](Index task, int worker) {
            const Index row = task / net_.depth, l = task % net_.depth; // a worker has the rows of its forward pass
            fits_[l * rows + row] = fit(l, row, worker);
        });
        add_polynomials(rows, first > 0, gradient);

        Index fallbacks = 0;
        for (Index task = 0; task < net_.depth * rows; ++task) {
            fallbacks += fits_[task].unfit;
            accumulator_.diagnostics().kinks += fits_[task].kinks;
        }
        accumulator_.diagnostics().fallbacks += fallbacks;
        if (fallbacks > 0) {
            accumulator_.add_moves(rows, [&](Index l, Index row) {
                return fits_[l * rows + row].unfit > 0 ? UnitMask{UnitMask::some, unfit(l, row)}
                                                       : UnitMask{UnitMask::none};
            });
        }
    }

  private:
    // How the fits of a layer's units went in one row.
    struct Fits {
        Index unfit, kinks; // units
        bool fifth;         // whether any has a c5
        bool tame;          // whether the fifth powers of the inputs are finite
    };

    // The polynomials c1 x + c3 x^3 + c5 x^5 of a layer's units for one row, each (padded outputs).
    struct Polynomials {
        T *c1, *c3, *c5;
        bool* unfit;
        Index outputs, stride;
    };

    // Nodes at shares of the furthest move, the outermost first: it tells whether there is a kink.
    static constexpr T nodes[] = {1, T(0.5), T(0.75), T(0.25)};

    T* terms(Index l, Index i) const { return terms_[l].data() + i * rows_ * padded<T>(net_.layers[l].outputs); }
    bool* unfit(Index l, Index row) const { return unfit_[l].data() + row * padded<T>(net_.layers[l].outputs); }

    // Fits the polynomials of layer l's units for one row.
    Fits fit(Index l, Index row, int worker) {
        const Layer<T>& layer = net_.layers[l];
        const Index stride = padded<T>(layer.outputs), at = row * stride;
        const Polynomials p{terms(l, 0) + at, terms(l, 1) + at, terms(l, 2) + at, unfit(l, row), layer.outputs, stride};
        std::memset(p.unfit, 0, static_cast<std::size_t>(stride));

        T widest = base_.widest_input(l, row);
        widest = layer.bias && widest < 1 ? T(1) : widest;
        constexpr T extreme = sizeof(T) == 8 ? T(1e30) : T(1e6); // its sixth power is finite
        if (!(widest < extreme && 1 / widest < extreme)) {
            return fit_none(p, widest > 0);
        }

        const T furthest = accumulator_.h() * widest;
        const T moves[] = {furthest * nodes[0], furthest * nodes[1], furthest * nodes[2], furthest * nodes[3]};
        T* const effects = effects_[worker].data();
        unsigned char* const obstacles = obstacles_[worker].zeroed();
        auto& work = accumulator_.work(worker);
        const auto evaluate = [&](Index node, Index count, UnitMask wanted) {
            const Results<T> results{effects + node * stride, stride, obstacles};
            accumulator_.effects().evaluate(l, row, moves + node, count, wanted, results, work);
        };
        evaluate(0, 3, {UnitMask::all});
        const T greatest = greatest_size(effects, stride);
        const T tolerance = __builtin_isfinite(greatest) ? greatest * 100 * rounding : T(0);
        const bool fifth = fit_third(p, effects, tolerance, obstacles) > 0;
        if (fifth) {
            evaluate(3, 1, {UnitMask::some, p.unfit});
            fit_fifth(p, effects, tolerance);
        }

        const Fits result = conclude(p, fifth, obstacles, accumulator_.obstacles(l, worker));
        scale(p, widest);
        return result;
    }

    // All polynomials 0: the units are unfit if they have any moves.
    static Fits fit_none(const Polynomials& p, bool any_moves) {
        std::memset(p.c1, 0, static_cast<std::size_t>(p.stride) * sizeof(T));
        std::memset(p.c3, 0, static_cast<std::size_t>(p.stride) * sizeof(T));
        std::memset(p.c5, 0, static_cast<std::size_t>(p.stride) * sizeof(T));
        std::memset(p.unfit, any_moves, static_cast<std::size_t>(p.outputs));
        return {any_moves ? p.outputs : 0, 0, false, !any_moves};
    }

    // The polynomials of third degree through two nodes, checked at a third. Returns the number of unfit units that met
    // no obstacle; none is marked as unfit before. effects (3, stride) are the effects at the nodes.
    static Index fit_third(const Polynomials& p, const T* effects, T tolerance, const unsigned char* obstacles) {
        constexpr T t2 = nodes[1] * nodes[1], t3 = nodes[2] * nodes[2];
        Index misses = 0;
        for (Index j = 0; j < p.stride; j += lanes<T>) {
            const Vec<T> g1 = load(effects + j), g2 = load(effects + p.stride + j) / lowest(nodes[1]);
            const Vec<T> g3 = load(effects + 2 * p.stride + j) / lowest(nodes[2]);
            const Vec<T> b = (g1 - g2) / (1 - t2), a = g1 - b;
            store(p.c1 + j, a);
            store(p.c3 + j, b);
            store(p.c5 + j, Vec<T>{});
            const auto misfit = !(absolute<T>(a + b * t3 - g3) <= tolerance); // NaN counts as a misfit
            if (!any<T>(misfit)) {
                continue;
            }
            for (Index i = 0; i < min_index(lanes<T>, p.outputs - j); ++i) {
                p.unfit[j + i] = misfit[i] != 0;
                misses += p.unfit[j + i] && obstacles[j + i] == 0;
            }
        }
        return misses;
    }

    // For the unfit units: the polynomials of fifth degree through three nodes, checked at a fourth; effects (4,
    // stride).
    static void fit_fifth(const Polynomials& p, const T* effects, T tolerance) {
        constexpr T t1 = 1, t2 = T(0.25), t3 = T(0.5625), t4 = T(0.0625); // squares of the nodes
        for (Index j = 0; j < p.outputs; ++j) {
            if (!p.unfit[j]) {
                continue;
            }
            const T g1 = effects[j], g2 = effects[p.stride + j] / lowest(nodes[1]),
                    g3 = effects[2 * p.stride + j] / lowest(nodes[2]);
            const T g4 = effects[3 * p.stride + j] / lowest(nodes[3]);
            const T d23 = (g3 - g2) / (t3 - t2), d31 = (g1 - g3) / (t1 - t3), c = (d31 - d23) / (t1 - t2);
            p.c5[j] = c;
            p.c3[j] = d23 - c * (t2 + t3);
            p.c1[j] = g2 - t2 * d23 + c * t2 * t3;
            const T off = p.c1[j] + t4 * (p.c3[j] + t4 * p.c5[j]) - g4;
            p.unfit[j] = !((off < 0 ? -off : off) <= tolerance);
        }
    }

    // Makes the units that met obstacles unfit, and the unfit units' polynomials 0. The obstacles are added to the
    // worker's. `fifth` is whether there can be a c5.
    static Fits conclude(const Polynomials& p, bool fifth, const unsigned char* obstacles, unsigned char* of_worker) {
        Fits result{0, 0, false, true};
        unsigned char plain = 1;
        for (Index j = 0; j < p.outputs; ++j) {
            plain &= obstacles[j] == 0 && !p.unfit[j];
        }
        if (plain && !fifth) {
            return result;
        }
        for (Index j = 0; j < p.outputs; ++j) {
            of_worker[j] |= obstacles[j];
            result.kinks += (obstacles[j] & obstacle::kink) != 0;
            p.unfit[j] |= obstacles[j] != 0;
            result.unfit += p.unfit[j];
            result.fifth |= !p.unfit[j] && p.c5[j] != 0;
            if (p.unfit[j]) {
                p.c1[j] = p.c3[j] = p.c5[j] = 0;
            }
        }
        return result;
    }

    // From powers of x / widest to powers of x, and from differences to central differences.
    void scale(const Polynomials& p, T widest) const {
        const T once = accumulator_.scale() / lowest(widest), square = 1 / (widest * widest);
        for (Index j = 0; j < p.stride; j += lanes<T>) {
            store(p.c1 + j, load(p.c1 + j) * once);
            store(p.c3 + j, load(p.c3 + j) * once * square);
            store(p.c5 + j, load(p.c5 + j) * once * square * square);
        }
    }

    // Adds every row's polynomial at every input to the gradient: products with the inputs' first, third, fifth power.
    void add_polynomials(Index rows, bool accumulate, const LayerGradient<T>* gradient) const {
        constexpr Index group = NonZeros<T>::group;
        Index tasks = 0;
        for (Index l = 0; l < net_.depth; ++l) {
            tasks += (net_.layers[l].inputs + group - 1) / group;
        }
        parallel_for(tasks, accumulator_.workers(), [&](Index task, int) {
            Index l = net_.depth - 1; // the later layers' tasks come first, because they are small
            for (; task >= (net_.layers[l].inputs + group - 1) / group; --l) {
                task -= (net_.layers[l].inputs + group - 1) / group;
            }
            bool fifth = false, tame = true;
            for (Index row = 0; row < rows; ++row) {
                fifth |= fits_[l * rows + row].fifth;
                tame &= fits_[l * rows + row].tame;
            }
            add_group(l, task, rows, fifth, tame, accumulate, gradient[l]);
        });
    }

    // One group of rows of a layer's weight gradient, and with the first the bias gradient.
    void add_group(Index l, Index group, Index rows, bool fifth, bool tame, bool accumulate,
                   const LayerGradient<T>& gradient) const {
        const Layer<T>& layer = net_.layers[l];
        const Index stride = padded<T>(layer.outputs), first = group * NonZeros<T>::group;
        const Index inputs = min_index(NonZeros<T>::group, layer.inputs - first);
        if (l == 0) {
            base_.inputs.prefetch_next(group, (layer.inputs + NonZeros<T>::group - 1) / NonZeros<T>::group);
        }
        T* to = gradient.weight + first * layer.outputs;
        const T *c1 = terms(l, 0), *c3 = terms(l, 1), *c5 = terms(l, 2);
        if (l == 0 && base_.inputs.sparse && tame) {
            const auto add = [&](auto polynomial) {
                multiply_transposed_nonzeros<even ? most_vectors / 2 : most_vectors, 1, true>(
                    base_.inputs.nonzeros, rows, group, inputs, layer.outputs, fifth ? 3 : 2, stride,
                    StoreOrAdd<T>{to, layer.outputs, accumulate},
                    [=](Vec<T> total, T x, Index i) { return total + lowest(x) * polynomial(x * x, i); });
            };
            if (fifth) {
                add([=](T xx, Index i) { return load(c1 + i) + xx * (load(c3 + i) + xx * load(c5 + i)); });
            } else {
                add([=](T xx, Index i) { return load(c1 + i) + xx * load(c3 + i); });
            }
        } else {
            // One product of all powers with all terms: (inputs, powers * rows) . (powers * rows, outputs).
            const Index powers = fifth ? 3 : 2, size = rows * inputs;
            const Matrix<T> x = submatrix(base_.input_rows(l, rows), 0, rows, first, inputs);
            const Array<T> power(powers * size);
            for (Index row = 0; row < rows; ++row) {
                const bool has_powers = fits_[l * rows + row].tame; // otherwise its polynomials are 0
                for (Index i = 0; i < inputs; ++i) {
                    const T input = has_powers ? x.data[row * x.row_stride + i] : T(0), square = input * input;
                    T value = lowest(input);
                    for (Index p = 0; p < powers; ++p, value *= square) {
                        power[p * size + row * inputs + i] = value;
                    }
                }
            }
            gemm(transposed(rows_of<T>(power.data(), powers * rows, inputs, inputs)),
                 rows_of<T>(c1, powers * rows, layer.outputs, stride), to, layer.outputs, accumulate);
        }
        if (group == 0 && gradient.bias) {
            for_each_vector<T>(layer.outputs, [&](Index j, Index count) {
                Vec<T> total = accumulate ? load(gradient.bias + j, count) : Vec<T>{};
                for (Index i = j; i < rows * stride; i += stride) {
                    total += load(c1 + i) + load(c3 + i) + load(c5 + i);
                }
                store(gradient.bias + j, total, count);
            });
        }
    }

    // The lowest power in the polynomials.
    template <class X> FASTNET_INLINE static X lowest(X x) {
        if constexpr (even) {
            return x * x;
        } else {
            return x;
        }
    }

    static constexpr bool even = Effects::power == 2; // second differences, of which no training makes use
    static constexpr T rounding = sizeof(T) == 8 ? T(2.220446049250313e-16) : T(1.1920929e-07);

    GradientAccumulator<T, Effects>& accumulator_;
    const BasePoints<T>& base_;
    const Network<T>& net_;
    FixedList<Array<T>> terms_;                 // (3, rows, padded outputs): c1, c3, c5
    FixedList<Array<bool>> unfit_;              // (rows, padded outputs)
    const Array<Fits> fits_;                    // (layers, rows)
    FixedList<Array<T>> effects_;               // of each worker (nodes, padded units of a layer): what a fit goes by
    FixedList<Array<unsigned char>> obstacles_; // of each worker (units of a layer): those that it meets
    Index rows_ = 0;                            // of the chunk
};

// `nodal` of the odd or the even part, whichever the effects are.
template <class T, class Effects>
void nodal_by(const Network<T>& net, const Batch<T>& batch, double h, const LayerGradient<T>* result,
              Diagnostics& diagnostics) {
    GradientAccumulator<T, Effects> gradient(net, batch, h, 2, result, diagnostics);
    Nodal<T, Effects> polynomials(gradient);
    gradient.for_each_chunk([&](Index first, Index rows) { polynomials.add_chunk(first, rows, result); });
}

template <class T>
void nodal(const Network<T>& net, const Batch<T>& batch, double h, const LayerGradient<T>* result,
           Diagnostics& diagnostics) {
    nodal_by<T, MoveEffects<T>>(net, batch, h, result, diagnostics);
}

} // namespace fastnet::FASTNET_TARGET
