"""`numerical_gradient` of the networks: its algorithms, its step, and its mistakes."""

from __future__ import annotations

import functools
import re

import numpy as np
import pytest

import fastnet
from chains import AGREEMENT, ANSWERS, I, L, R, S, T, assert_same_bits, chain, compiled, exact, off, reference_of
from fastnet.backends import _numpy
from fastnet.backends.spec import Diagnostics


@pytest.fixture
def net():
    return fastnet.TwoLayerNet(6, 5, 4, weight_init_std=0.5, seed=0)


@pytest.fixture
def batch():
    rng = np.random.default_rng(0)
    return rng.standard_normal((9, 6)), rng.integers(0, 4, 9)


def test_the_result_is_a_dict_with_diagnostics(backend, net, batch):
    x, t = batch
    counts = {}
    for algorithm in backend.algorithms:
        gradient = net.numerical_gradient(x, t, algorithm=algorithm)
        assert isinstance(gradient, dict)
        assert {name: g.shape for name, g in gradient.items()} == {name: p.shape for name, p in net.params.items()}
        assert type(gradient.diagnostics) is Diagnostics
        assert gradient.diagnostics.fallbacks == gradient.diagnostics.kinks == 0
        counts[algorithm] = gradient.diagnostics.evaluations
        if algorithm != "loop":
            assert [k.shape for k in gradient.diagnostics.kinked] == [(5,), (4,)]
            assert not any(k.any() for k in gradient.diagnostics.kinked)
    assert counts["loop"] == 2 * 9 * (6 * 5 + 5 + 5 * 4 + 4)
    assert 0 < counts["incremental"] <= counts["loop"]
    automatic = net.numerical_gradient(x, t)
    fastest = net.numerical_gradient(x, t, algorithm=backend.algorithms[0])
    assert_same_bits(automatic.values(), fastest.values())


@compiled
def test_what_is_zero_or_repeated_is_not_evaluated(backend):
    """An input of 0 moves nothing, an input of 1 what the bias does, and equal inputs the same."""
    spec = chain((6, 5, 4), (S, I))
    x = np.array([[0, 1, 0.5, 0.5, 0, -1], [0, 0, 0, 0, 0, 0], [1, 2, 3, 4, 5, 6]], float)
    _, diagnostics = backend.incremental(spec, x, np.array([0, 1, 2]), 1e-4)
    first = 5 * (3 + 1 + 6)  # units times distinct moves: 1 with the bias, 0.5, -1; the bias; six with it
    second = 3 * 4 * 6  # rows times units times five hidden values and the bias
    assert diagnostics.evaluations == 2 * (first + second)


T_, V = TypeError, ValueError
MISTAKES = [
    ({"algorithm": "exact"}, V, "algorithm must be one of 'auto', 'nodal', 'incremental', 'loop', not 'exact'"),
    ({"algorithm": None}, V, "algorithm must be one of 'auto', 'nodal', 'incremental', 'loop', not None"),
    ({"algorithm": ""}, V, "algorithm must be one of "),
    ({"h": 0}, V, "h must be positive, not 0"),
    ({"h": -1e-4}, V, "h must be positive, not -0.0001"),
    ({"h": float("nan")}, V, "h must be finite, not nan"),
    ({"h": float("inf")}, V, "h must be finite, not inf"),
    ({"h": -float("inf")}, V, "h must be finite, not -inf"),
    ({"h": True}, T_, "h must be a number, not bool"),
    ({"h": "1e-4"}, T_, "h must be a number, not str"),
    ({"h": 1j}, T_, "h must be a number, not complex"),
]


@pytest.mark.parametrize(("arguments", "error", "message"), MISTAKES)
def test_mistakes(backend, net, batch, arguments, error, message):
    algorithms = ["auto", *backend.algorithms]
    for call in [arguments] if "algorithm" in arguments else [{"algorithm": a, **arguments} for a in algorithms]:
        with pytest.raises(error, match=f"^{re.escape(message)}") as raised:
            net.numerical_gradient(*batch, **call)
        assert type(raised.value) is error


@pytest.mark.parametrize("h", [1e-50, 1e50])
def test_h_out_of_the_range_of_float32(backend, batch, h):
    net = fastnet.TwoLayerNet(6, 5, 4, dtype="float32", seed=0)
    for algorithm in ("auto", *backend.algorithms):
        with pytest.raises(ValueError, match=f"^h must be positive and finite in float32, not {re.escape(str(h))}$"):
            net.numerical_gradient(*batch, h=h, algorithm=algorithm)


def test_an_algorithm_of_other_backends(net, batch):
    message = "^the 'numpy' backend has no algorithm 'nodal': it has 'incremental', 'loop'$"
    with fastnet.use_backend("numpy"), pytest.raises(ValueError, match=message):
        net.numerical_gradient(*batch, algorithm="nodal")


@pytest.mark.parametrize("where", ["W1", "b1", "W2", "b2", "x", "all"])
@pytest.mark.parametrize("kinds", [(S, I), (R, I), (T, S), (L, T)])
def test_nan_gives_nan(backend, dtype, kinds, where):
    """The loss is NaN: so is every difference of two. Diagnostics and time stay sane."""
    for answer in ANSWERS:
        spec = chain((6, 5, 4), kinds, dtype, answer)
        x, t = np.random.default_rng(0).random((9, 6)).astype(dtype), np.arange(9) % 4
        arrays = {
            "W1": spec.weights[0],
            "b1": spec.layers[0].bias,
            "W2": spec.weights[1],
            "b2": spec.layers[1].bias,
            "x": x,
        }
        for array in arrays.values() if where == "all" else [arrays[where]]:
            array.flat[1] = np.nan
            if where == "all":
                array[:] = np.nan
        for algorithm in exact(backend):
            gradients, diagnostics = getattr(backend, algorithm)(spec, x, t, 1e-3)
            assert all(np.isnan(g).all() for g in gradients)
            assert diagnostics.fallbacks >= diagnostics.kinks >= 0


@pytest.mark.parametrize("where", ["W1", "x"])
@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinities(backend, dtype, value, where):
    """Where the loss is infinite or NaN, every difference is NaN; a saturated unit has a loss that is a number."""
    for kinds, finite in (((R, I), value < 0 and where == "W1"), ((S, I), True)):
        spec = chain((3, 4, 3), kinds, dtype)
        x, t = np.abs(np.random.default_rng(0).standard_normal((5, 3))).astype(dtype) + 1, np.arange(5) % 3
        (spec.weights[0] if where == "W1" else x).flat[0] = value
        assert np.isfinite(backend.loss(spec, x, t)) == finite
        for algorithm in exact(backend):
            gradients, _ = getattr(backend, algorithm)(spec, x, t, 1e-3)
            if not finite:
                assert all(np.isnan(g).all() for g in gradients)
            elif where == "W1":  # the unit stays where it is
                assert all(np.isfinite(g).all() for g in gradients)
                assert not gradients[0][:, 0].any()
                assert off(gradients, reference_of(spec, x, t, 1e-3)[0]) <= 2 * AGREEMENT[dtype]
            else:  # its weights move by infinity times h, the others do not
                assert all(np.isfinite(g).all() for g in gradients[2:])


@functools.cache  # for every implementation
def ragged(widths, dtype):
    """A network, its batch, and which units meet kinks in the reference."""
    spec = chain(widths, (R,) * (len(widths) - 2) + (I,), dtype, ANSWERS[2], seed=11)
    rng = np.random.default_rng(12)
    x, t = rng.standard_normal((2, widths[0])).astype(dtype), rng.integers(0, widths[-1], 2)
    kinked = _numpy.incremental(spec, x, t, 1e-4)[1].kinked
    return (spec, x, t), [np.flatnonzero(k).tolist() for k in kinked]


@pytest.mark.parametrize("widths", [(6, 20, 33, 20, 17, 10), (5, 9, 31, 3, 12, 4)])
def test_layers_of_ragged_widths_meet_no_kinks_that_are_not_there(backend, dtype, widths):
    """Layers' rows end in the middle of a vector, and narrow layers follow wide ones."""
    if backend.name == "numpy":
        pytest.skip("the reference is what the others are compared with")
    case, expected = ragged(widths, dtype)
    for algorithm in ("incremental", "nodal"):
        _, found = getattr(backend, algorithm)(*case, 1e-4)
        assert [np.flatnonzero(k).tolist() for k in found.kinked] == expected
