"""The exact finite differences of networks and batches of the smallest and of odd shapes."""

from __future__ import annotations

import functools

import numpy as np
import pytest

from chains import AGREEMENT, ANSWERS, STEP, I, R, S, T, chain, compiled, exact, off, reference_of
from fastnet.backends.spec import Loss, Output

EDGES = {
    "one row": ((4, 5, 3), (S, I), 1),
    "one layer": ((5, 3), (I,), 7),
    "one unit each": ((1, 1, 1, 1), (T, S, T), 3),
    "one class": ((4, 3, 1), (S, T), 5),
    "a chunk and a row": ((3, 4, 2), (S, I), 257),
    "more than a chunk": ((2, 3, 3, 2), (R, S, I), 300),
    "a wide layer": ((2, 300, 2), (R, I), 2),
    "many classes": ((2, 3, 200), (T, I), 2),
    "many inputs": ((300, 2, 2), (T, I), 2),
}


@functools.cache  # for every implementation
def case(edge, dtype, zeros, biased):
    """The network, its batch, and their reference."""
    widths, kinds, rows = EDGES[edge]
    answer = ANSWERS[1] if edge == "many classes" else ANSWERS[2] if widths[-1] > 1 else ANSWERS[0]
    spec = chain(widths, kinds, dtype, answer, seed=8, biased=biased)
    x = np.random.default_rng(9).standard_normal((rows, widths[0])).astype(dtype)
    t = np.arange(rows) % widths[-1]
    if zeros:
        x[:] = 0
        t[:] = 0  # the rows are equal: with different labels, their gradients would cancel
    return spec, x, t, reference_of(spec, x, t, STEP[dtype])[0]


@compiled
@pytest.mark.parametrize("edge", EDGES)
@pytest.mark.parametrize("zeros", [False, True], ids=["", "zeros"])
@pytest.mark.parametrize("biased", [True, False], ids=["biased", "unbiased"])
def test_edges(backend, dtype, edge, zeros, biased):
    spec, x, t, expected = case(edge, dtype, zeros, biased)
    for algorithm in exact(backend):
        gradients, _ = getattr(backend, algorithm)(spec, x, t, STEP[dtype])
        if not any(e.any() for e in expected):  # zeros through layers without a bias, with nothing to learn
            assert not any(g.any() for g in gradients)
            continue
        # Both begin at a forward pass of their own: of sums of up to 300 terms in another order.
        assert off(gradients, expected) <= 2 * AGREEMENT[dtype]
        if zeros:
            assert not gradients[0].any()


def test_softmax_of_one_class_has_no_gradient(backend, dtype):
    for loss in Loss:
        spec = chain((3, 4, 1), (S, I), dtype, (Output.SOFTMAX, loss))
        for algorithm in exact(backend):
            gradients, _ = getattr(backend, algorithm)(spec, np.ones((2, 3), dtype), np.zeros(2, int), 0.1)
            assert not any(g.any() for g in gradients)
