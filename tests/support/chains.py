"""Chains of layers for the tests of the exact finite differences, and how two gradients are compared."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import fastnet
from fastnet import backends
from fastnet.backends.spec import Activation, Loss, NetworkSpec, Output
from fastnet.networks.chain import as_chain

COMPILED = ["cpp-avx512", "cpp-avx2", "cpp-baseline", "numba"]
# Of `nodal` against `incremental`, relative to the largest entry: some ten roundings of the nodes' values, which the
# polynomial's coefficients are differences of, and the sum over the batch.
AGREEMENT = {"float64": 1e-13, "float32": 2e-6}
STEP = {"float64": 1e-4, "float32": 1e-2}
ANSWERS = [
    (Output.IDENTITY, Loss.MEAN_SQUARED_ERROR),
    (Output.SOFTMAX, Loss.MEAN_SQUARED_ERROR),
    (Output.SOFTMAX, Loss.CROSS_ENTROPY),
]
R, S, T, L, I = (  # noqa: E741
    Activation.RELU,
    Activation.SIGMOID,
    Activation.TANH,
    Activation.LEAKY_RELU,
    Activation.IDENTITY,
)

P, U, G, E = Activation.SOFTPLUS, Activation.SILU, Activation.GELU, Activation.ELU
MORE_ANSWERS = [(Output.IDENTITY, loss) for loss in (Loss.BINARY_CROSS_ENTROPY, Loss.HUBER, Loss.ABSOLUTE_ERROR)]

compiled = pytest.mark.parametrize("backend", COMPILED, indirect=True)  # the reference would take minutes


def spec_of(net):
    """The network as the backends take it."""
    return as_chain(net).spec


def exact(backend):
    return [algorithm for algorithm in backend.algorithms if algorithm != "loop"]


def off(gradients, expected):
    """The greatest difference, relative to the largest entry."""
    largest = max(abs(e).max() for e in expected)
    return float(max(abs(g.astype(float) - e).max() for g, e in zip(gradients, expected, strict=True)) / largest)


def assert_same_bits(gradients, expected):
    for gradient, wanted in zip(gradients, expected, strict=True):
        np.testing.assert_array_equal(gradient, wanted)


def chain(
    widths, kinds, dtype="float64", answer=(Output.SOFTMAX, Loss.CROSS_ENTROPY), seed=0, biased=True, constants=()
):
    """A network with weights that keep the size of what passes through."""
    rng = np.random.default_rng(seed)
    return NetworkSpec.chain(
        tuple((rng.standard_normal(s) * np.sqrt(2 / s[0])).astype(dtype) for s in itertools.pairwise(widths)),
        tuple((0.1 * rng.standard_normal(n)).astype(dtype) if biased else None for n in widths[1:]),
        tuple(kinds),
        *answer,
        constants=constants,
    )


def two_layers(dtype="float64"):
    return fastnet.TwoLayerNet(784, 50, 10, dtype=dtype, seed=0)


def reference_of(spec, x, t, h):
    with fastnet.use_backend("numpy"):
        return backends.active().incremental(spec, x, t, h)
