// What a stretch of training is told, as plain pointers and counts.
#pragma once

#include "core/dataset.hpp"

namespace fastnet {

// The numbers are those of `fastnet.backends.spec`.
enum class Rule : int { sgd = 0, momentum = 1, nesterov = 2, adagrad = 3, rmsprop = 4, adam = 5 };
enum class GradientKind : int { backprop = 0, incremental = 1, nodal = 2 };

// How many numbers each rule takes, in the order of `Rule`: the constants, coefficients and slots of the classes in
// `fastnet.optimizers`, which say what they are.
struct RuleSizes {
    Index constants, coefficients, slots;
};
inline constexpr RuleSizes rule_sizes[] = {{0, 1, 0}, {1, 1, 1}, {1, 1, 1}, {1, 1, 1}, {2, 1, 1}, {3, 2, 2}};
inline constexpr int rule_count = 6;

// How an optimizer changes parameters.
struct Optimizer {
    Rule rule;
    double constants[3];
    const double* coefficients; // (steps, coefficient_count): what changes from step to step
    Index coefficient_count;
};

// An array of parameters, and what the optimizer keeps for it; null where the rule keeps less.
template <class T> struct Parameter {
    T* value;
    T* slots[2];
    Index size;
};

template <class T> struct Training {
    const Dataset<T>* data;
    Targets<T> targets;        // of all its rows
    const std::int64_t* order; // (epochs, count): rows of data
    Index order_stride;        // from one epoch to the next: 0 where all have the same order
    Index epochs, count;       // between two epochs, all parameters must be finite
    Index batch_size;          // the last batch of an epoch may be smaller
    GradientKind gradient;
    double h; // the step of a numerical gradient
    Optimizer optimizer;
    const Parameter<T>* parameters; // W1, b1, W2, b2, …: those that the network points to
    Index parameter_count;
    double* losses;     // (steps): of each batch, before its step
    std::int64_t* done; // counts the steps: all of a step's changes are made, or none
};

} // namespace fastnet
