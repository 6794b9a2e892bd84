// The finite-difference gradient from a few evaluations for each unit.
//
// All weights into a unit move the loss through its pre-activation alone. A row's share in the central difference by a
// weight with input x is psi(hx) - psi(-hx) over 2h: an odd, smooth function of x, which the odd polynomial through
// some nodes matches to rounding. Each row and unit must earn that: the polynomial through the first two nodes is
// checked at a third, the one through three at a fourth; units that miss, and those whose way to the furthest node
// meets a kink or leaves the range in which a few nodes tell the whole, are done move by move.
#pragma once

#include "kernels/incremental.hpp"

namespace fastnet::FASTNET_TARGET {

template <class T> class Nodal {
  public:
    explicit Nodal(FiniteDifferences<T>& differences)
        : differences_(differences), base_(differences.base()), net_(base_.net), terms_(net_.depth),
          missed_(net_.depth), pairs_(net_.depth * differences.most_rows()) {
        for (Index l = 0; l < net_.depth; ++l) {
            const Index size = differences.most_rows() * padded<T>(net_.layers[l].outputs);
            terms_.add(3 * size);
            missed_.add(size);
        }
    }

    // Adds a chunk's share to the gradient; the first chunk's is all there is.
    void add_chunk(Index first, Index rows, const LayerGradient<T>* gradient) {
        rows_ = rows;
        parallel_for(net_.depth * rows, differences_.workers(),
                     [&](Index task, int worker) { pairs_[task] = fit(task / rows, task % rows, worker); });
        add_polynomials(rows, first > 0, gradient);

        Index fallbacks = 0;
        for (Index pair = 0; pair < net_.depth * rows; ++pair) {
            fallbacks += pairs_[pair].missed;
            differences_.diagnostics().kinks += pairs_[pair].kinks;
        }
        differences_.diagnostics().fallbacks += fallbacks;
        if (fallbacks > 0) {
            differences_.add_moves(rows, [&](Index l, Index row) {
                return pairs_[l * rows + row].missed > 0 ? missed(l, row) : FiniteDifferences<T>::none();
            });
        }
    }

  private:
    // What a layer's units came to in one row.
    struct Pair {
        Index missed, kinks; // units
        bool fifth;          // whether any has a c5
    };

    T* terms(Index l, Index i) const { return terms_[l].data() + i * rows_ * padded<T>(net_.layers[l].outputs); }
    bool* missed(Index l, Index row) const { return missed_[l].data() + row * padded<T>(net_.layers[l].outputs); }

    // Fits the polynomials of layer l's units for one row.
    Pair fit(Index l, Index row, int worker) {
        const Layer<T>& layer = net_.layers[l];
        const Index stride = padded<T>(layer.outputs);
        T *c1 = terms(l, 0) + row * stride, *c3 = terms(l, 1) + row * stride, *c5 = terms(l, 2) + row * stride;
        bool* miss = missed(l, row);
        std::memset(miss, 0, static_cast<std::size_t>(stride));

        T widest = greatest_size(base_.input(l, row), layer.inputs);
        widest = layer.bias && widest < 1 ? T(1) : widest;
        constexpr T extreme = sizeof(T) == 8 ? T(1e30) : T(1e7); // the fifth power of which is finite
        if (!(widest < extreme && 1 / widest < extreme)) {
            std::memset(c1, 0, static_cast<std::size_t>(stride) * sizeof(T));
            std::memset(c3, 0, static_cast<std::size_t>(stride) * sizeof(T));
            std::memset(c5, 0, static_cast<std::size_t>(stride) * sizeof(T));
            std::memset(miss, widest > 0, static_cast<std::size_t>(layer.outputs));
            return {widest > 0 ? layer.outputs : 0, 0, false};
        }

        // Nodes at shares of the furthest move, the outermost first: it tells whether there is a kink.
        constexpr T node[] = {1, T(0.5), T(0.75), T(0.25)};
        const T furthest = differences_.h() * widest;
        const T moves[] = {furthest * node[0], furthest * node[1], furthest * node[2], furthest * node[3]};
        const Array<T> odd(4 * stride);
        const Array<unsigned char> met(layer.outputs);
        met.zeroed();
        auto& work = differences_.work(worker);
        differences_.odd().evaluate(l, row, moves, 3, nullptr, odd.data(), met.data(), work);
        const T tolerance = greatest_size(odd.data(), stride) * 100 * rounding;

        Pair pair{};
        for (Index j = 0; j < stride; j += lanes<T>) {
            const Vec<T> g1 = load(odd.data() + j), g2 = load(odd.data() + stride + j) / node[1];
            const Vec<T> g3 = load(odd.data() + 2 * stride + j) / node[2];
            const Vec<T> b = (g1 - g2) / (1 - node[1] * node[1]), a = g1 - b;
            store(c1 + j, a), store(c3 + j, b), store(c5 + j, Vec<T>{});
            const auto missing = !(absolute<T>(a + b * (node[2] * node[2]) - g3) <= tolerance); // so does NaN
            for (Index i = 0; i < min_index(lanes<T>, layer.outputs - j); ++i) {
                miss[j + i] = missing[i] != 0;
                pair.missed += miss[j + i] && met[j + i] == 0;
            }
        }
        if (pair.missed > 0) {
            fit_fifth(l, row, moves[3], odd.data(), miss, met.data(), tolerance, c1, c3, c5, work);
        }

        unsigned char* noted = differences_.met(l, worker);
        pair.missed = 0;
        for (Index j = 0; j < layer.outputs; ++j) {
            noted[j] |= met[j];
            pair.kinks += (met[j] & obstacle::kink) != 0;
            miss[j] |= met[j] != 0;
            pair.missed += miss[j];
            pair.fifth |= !miss[j] && c5[j] != 0;
            if (miss[j]) {
                c1[j] = c3[j] = c5[j] = 0;
            }
        }
        // From powers of x / widest to powers of x, and from differences to central differences.
        const T once = differences_.scale() / widest, square = 1 / (widest * widest);
        for (Index j = 0; j < stride; j += lanes<T>) {
            store(c1 + j, load(c1 + j) * once);
            store(c3 + j, load(c3 + j) * (once * square));
            store(c5 + j, load(c5 + j) * (once * square * square));
        }
        return pair;
    }

    // For the units that missed: the polynomial through three nodes, checked at a fourth.
    void fit_fifth(Index l, Index row, T move, T* odd, bool* miss, unsigned char* met, T tolerance, T* c1, T* c3, T* c5,
                   typename OddDifferences<T>::Workspace& work) const {
        constexpr T t1 = 1, t2 = T(0.25), t3 = T(0.5625), t4 = T(0.0625); // squares of the nodes
        const Index outputs = net_.layers[l].outputs, stride = padded<T>(outputs);
        differences_.odd().evaluate(l, row, &move, 1, miss, odd + 3 * stride, met, work);
        for (Index j = 0; j < outputs; ++j) {
            if (!miss[j]) {
                continue;
            }
            const T g1 = odd[j], g2 = odd[stride + j] / T(0.5), g3 = odd[2 * stride + j] / T(0.75);
            const T g4 = odd[3 * stride + j] / T(0.25);
            const T d23 = (g3 - g2) / (t3 - t2), d31 = (g1 - g3) / (t1 - t3), c = (d31 - d23) / (t1 - t2);
            c5[j] = c;
            c3[j] = d23 - c * (t2 + t3);
            c1[j] = g2 - t2 * d23 + c * t2 * t3;
            const T off = c1[j] + t4 * (c3[j] + t4 * c5[j]) - g4;
            miss[j] = !((off < 0 ? -off : off) <= tolerance);
        }
    }

    // Adds every row's polynomial at every input to the gradient: products with the inputs' first, third, fifth power.
    void add_polynomials(Index rows, bool accumulate, const LayerGradient<T>* gradient) const {
        constexpr Index group = NonZeros<T>::group;
        Index tasks = 0;
        for (Index l = 0; l < net_.depth; ++l) {
            tasks += (net_.layers[l].inputs + group - 1) / group;
        }
        parallel_for(tasks, differences_.workers(), [&](Index task, int) {
            Index l = net_.depth - 1; // the later layers' tasks are small: they come first
            for (; task >= (net_.layers[l].inputs + group - 1) / group; --l) {
                task -= (net_.layers[l].inputs + group - 1) / group;
            }
            bool fifth = false;
            for (Index row = 0; row < rows; ++row) {
                fifth |= pairs_[l * rows + row].fifth;
            }
            add_group(l, task, rows, fifth, accumulate, gradient[l]);
        });
    }

    // One group of rows of a layer's weight gradient, and with the first the bias gradient.
    void add_group(Index l, Index group, Index rows, bool fifth, bool accumulate,
                   const LayerGradient<T>& gradient) const {
        const Layer<T>& layer = net_.layers[l];
        const Index stride = padded<T>(layer.outputs), first = group * NonZeros<T>::group;
        const Index inputs = min_index(NonZeros<T>::group, layer.inputs - first);
        if (l == 0) {
            base_.inputs.expect_next(group, (layer.inputs + NonZeros<T>::group - 1) / NonZeros<T>::group);
        }
        T* to = gradient.weight + first * layer.outputs;
        const T *c1 = terms(l, 0), *c3 = terms(l, 1), *c5 = terms(l, 2);
        if (l == 0 && base_.inputs.sparse) {
            const auto add = [&](auto polynomial) {
                multiply_transposed_nonzeros(base_.input(0, 0), layer.inputs, base_.inputs.nonzeros, rows, group, to,
                                             layer.outputs, accumulate, [=](Vec<T> total, T x, Index row, Index j) {
                                                 return total + x * polynomial(x * x, row * stride + j);
                                             });
            };
            if (fifth) {
                add([=](T xx, Index i) { return load(c1 + i) + xx * (load(c3 + i) + xx * load(c5 + i)); });
            } else {
                add([=](T xx, Index i) { return load(c1 + i) + xx * load(c3 + i); });
            }
        } else {
            // One product of all powers with all terms: (inputs, powers * rows) . (powers * rows, outputs).
            const Index powers = fifth ? 3 : 2, size = rows * inputs;
            const Matrix<T> x = part(base_.input_rows(l, rows), 0, rows, first, inputs);
            const Array<T> power(powers * size);
            for (Index row = 0; row < rows; ++row) {
                for (Index i = 0; i < inputs; ++i) {
                    T value = x.data[row * x.row_stride + i];
                    const T square = value * value;
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

    static constexpr T rounding = sizeof(T) == 8 ? T(2.220446049250313e-16) : T(1.1920929e-07);

    FiniteDifferences<T>& differences_;
    const Baseline<T>& base_;
    const Network<T>& net_;
    List<Array<T>> terms_;     // (3, rows, outputs; padded): c1, c3, c5 of c1 x + c3 x^3 + c5 x^5
    List<Array<bool>> missed_; // (rows, outputs; padded)
    const Array<Pair> pairs_;  // (layers, rows)
    Index rows_ = 0;           // of the chunk
};

template <class T>
void nodal(const Network<T>& net, const Batch<T>& batch, double h, const LayerGradient<T>* result,
           Diagnostics& diagnostics) {
    FiniteDifferences<T> differences(net, batch, h, 2, result, diagnostics);
    Nodal<T> nodes(differences);
    differences.for_each_chunk([&](Index first, Index rows) { nodes.add_chunk(first, rows, result); });
}

} // namespace fastnet::FASTNET_TARGET
