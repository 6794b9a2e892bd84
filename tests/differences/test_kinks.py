"""Where a ReLU changes its side: how `nodal` notices, and what it gives then."""

from __future__ import annotations

import numpy as np
import pytest

from chains import AGREEMENT, I, L, R, S, T, assert_same_bits, chain, compiled, exact
from fastnet.backends import _numpy


def kinked_case(dtype, kinds=(R, R, R, I), h=1e-2):
    """Biases that put each hidden unit within h of its kink for one of the rows."""
    spec = chain((6, 8, 7, 5, 4), kinds, dtype, seed=3)
    rng = np.random.default_rng(4)
    x = rng.standard_normal((12, 6)).astype(dtype)
    z = x
    for weight, bias, kind, constant in spec.layers:
        if kind in (R, L):
            rows = rng.integers(0, len(x), len(bias))
            bias[:] = h * rng.uniform(-0.5, 0.5, len(bias)) - (z @ weight)[rows, range(len(bias))]
        z = _numpy.activation(kind, z @ weight + bias, constant)
    return spec, x, np.arange(12) % 4


def crossings(spec, x, h):
    """By trying every perturbation: for each layer, shape (rows, units), whether one of a unit's crosses any kink."""

    def sides():
        z, signs = x, []
        for weight, bias, kind, constant in spec.layers:
            a = z @ weight + bias
            signs.append(a > 0 if kind in (R, L) else np.zeros_like(a, bool))
            z = _numpy.activation(kind, a, constant)
        return np.hstack(signs)

    before, found = sides(), []
    for weight, bias, *_ in spec.layers:
        crossed = np.zeros((len(x), len(bias)), bool)
        for array in (weight, bias[None]):
            for (i, j), value in np.ndenumerate(array.copy()):
                for array[i, j] in (value + h, value - h):
                    crossed[:, j] |= (sides() != before).any(axis=1)
                array[i, j] = value
        found.append(crossed)
    return found


@pytest.mark.parametrize("kinds", [(R, R, R, I), (L, R, L, I)])
def test_kinks_are_found(backend, kinds):
    """Exactly the units and rows that a count by force finds."""
    spec, x, t = kinked_case("float64", kinds)
    expected = crossings(spec, x, 1e-2)
    assert 30 < sum(c.sum() for c in expected) < 200
    for algorithm in exact(backend):
        _, diagnostics = getattr(backend, algorithm)(spec, x, t, 1e-2)
        assert_same_bits(diagnostics.kinked, [c.any(axis=0) for c in expected])
        if algorithm == "nodal":
            assert diagnostics.kinks == sum(c.sum() for c in expected)
            assert diagnostics.fallbacks >= diagnostics.kinks


@compiled
@pytest.mark.parametrize("kinds", [(R, R, R, I), (R, S, L, I), (T, R, R, S)])
def test_nodal_is_incremental_at_kinks(both, dtype, kinds):
    spec, x, t = kinked_case(dtype, kinds)
    difference, of_nodal, of_incremental = both(spec, x, t, 1e-2)
    assert difference <= AGREEMENT[dtype]
    assert of_nodal.fallbacks >= of_nodal.kinks > 10
    assert_same_bits(of_nodal.kinked, of_incremental.kinked)
