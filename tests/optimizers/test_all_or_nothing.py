"""An update that is refused changes nothing."""

from __future__ import annotations

import numpy as np
import pytest

import fastnet
from fastnet.optimizers import SGD, AdaGrad, Adam, Momentum, Schedule
from updates import INF, KINDS, NAN, T, V, bits, good, make_arrays, replaced, train


def read_only(array):
    array.flags.writeable = False
    return array


# What is put in place of parameters and of gradients, and the exception.
MISTAKES = [
    ("missing", {}, {"p2": None}, V, "grads must have the names of params: 'p2' missing"),
    ("unexpected", {}, {"W": np.ones(2)}, V, "grads must have the names of params: 'W' unexpected"),
    ("renamed", {}, {"p3": None, "W": np.ones(2)}, V, "params: 'p3' missing; 'W' unexpected"),
    ("shape", {}, {"p3": np.ones(1)}, V, "grads['p3'] has shape (1,), but params['p3'] has ()"),
    ("transposed", {}, {"p2": np.ones((2, 4))}, V, "grads['p2'] has shape (2, 4), but params['p2'] has (4, 2)"),
    ("broadcastable", {}, {"p2": np.ones((1, 2))}, V, "grads['p2'] has shape (1, 2), but params['p2'] has (4, 2)"),
    ("float32", {}, {"p2": np.ones((4, 2), "f4")}, T, "grads['p2'] is float32, but params['p2'] is float64"),
    ("integers", {}, {"p2": np.ones((4, 2), int)}, T, "grads['p2'] must be float32 or float64, not int64"),
    ("swapped", {}, {"p2": np.ones((4, 2), ">f8")}, T, "grads['p2'] must be float32 or float64, not >f8"),
    ("a list", {}, {"p1": [0.0] * 4}, T, "grads['p1'] must be a NumPy array, not list"),
    ("a number", {}, {"p3": 1.0}, T, "grads['p3'] must be a NumPy array, not float"),
    ("None", {}, {"p1": NotImplemented}, T, "grads['p1'] must be a NumPy array, not NotImplementedType"),
    ("no string", {}, {1: np.ones(2)}, T, "grads must have strings as names, not 1"),
    ("params: a number", {"p3": 1.0}, {}, T, "params['p3'] must be a NumPy array, not float"),
    ("params: a scalar", {"p3": np.float64(1)}, {}, T, "params['p3'] must be a NumPy array, not float64"),
    ("params: a list", {"p1": [0.0] * 4}, {}, T, "params['p1'] must be a NumPy array, not list"),
    ("params: integers", {"p2": np.ones((4, 2), int)}, {}, T, "params['p2'] must be float32 or float64, not int64"),
    ("params: float16", {"p2": np.ones((4, 2), "f2")}, {}, T, "params['p2'] must be float32 or float64, not float16"),
    ("params: read-only", {"p3": read_only(np.array(1.0))}, {}, V, "params['p3'] is read-only"),
    ("params: missing", {"p0": None}, {}, V, "grads must have the names of params: 'p0' unexpected"),
]


@pytest.mark.parametrize("updated", [False, True], ids=["new", "updated"])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("name", "params", "grads", "error", "message"), MISTAKES, ids=[row[0] for row in MISTAKES])
def test_a_mistake_changes_nothing(kind, name, params, grads, error, message, updated):
    optimizer, arrays = kind(), good()
    if updated:
        train(optimizer, arrays, 2)
    before = bits(optimizer, arrays)
    with pytest.raises(error) as caught:
        optimizer.update(replaced(arrays, params), replaced(make_arrays(seed=9), grads))
    assert message in str(caught.value)
    assert bits(optimizer, arrays) == before


@pytest.mark.parametrize("argument", [None, [np.ones(2)], "W", fastnet.SimpleNet(seed=0)])
def test_no_dict(argument):
    kind = type(argument).__name__
    with pytest.raises(TypeError, match=f"params must be a dict of arrays, not {kind}"):
        SGD().update(argument, {})
    with pytest.raises(TypeError, match=f"grads must be a dict of arrays, not {kind}"):
        SGD().update({}, argument)
    with pytest.raises(TypeError, match=f"params must be a dict of arrays, not {kind}"):
        Adam().prepare(argument)
    with pytest.raises(TypeError, match=f"state must be a dict of arrays, not {kind}"):
        Adam().load_state_dict(argument)


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (SGD(lr=1e300), "SGD(lr=1e+300) has a scalar that is not finite in float32: at iteration 0"),
        (Adam(lr=1e38), "Adam(lr=1e+38, "),
        (Adam(eps=1e300), "eps=1e+300) has a scalar that is not finite in float32"),
        (AdaGrad(eps=1e-60), "AdaGrad(lr=0.01, eps=1e-60) has the constant 1e-60, which is 0 in float32"),
    ],
)
def test_scalars_that_the_dtype_can_not_hold(optimizer, message):
    params = make_arrays("float32")
    before = bits(optimizer, params)
    with pytest.raises(ValueError, match="has ") as caught:
        optimizer.update(params, make_arrays("float32", 1))
    assert message in str(caught.value)
    assert bits(optimizer, params) == before
    optimizer.update(make_arrays(), make_arrays(seed=1))  # float64 can


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("value", [NAN, INF, -0.1, "0.1", None, True, 1j])
def test_a_schedule_that_gives_no_rate(kind, value):
    class Broken(Schedule):
        def __call__(self, iteration):
            return 0.1 if iteration < 2 else value

        def __repr__(self):
            return "Broken()"

    optimizer, params = kind(lr=Broken()), good()
    train(optimizer, params, 2)
    before = bits(optimizer, params)
    with pytest.raises((TypeError, ValueError), match=r"lr at iteration 2, by Broken\(\), must be "):
        train(optimizer, params, 1)
    assert bits(optimizer, params) == before


def test_another_network_needs_another_optimizer():
    optimizer, params = Momentum(), good()
    train(optimizer, params, 1)
    before = bits(optimizer, params)
    other = good() | {"p1": np.ones(5)}
    message = r"params\['p1'\] is float64 of shape \(5,\), but this optimizer's velocity for it is float64 "
    with pytest.raises(ValueError, match=message):
        optimizer.update(other, other)
    with pytest.raises(ValueError, match=r"params\['p0'\] is float32 of shape \(3, 4\), but this optimizer's velocity"):
        optimizer.prepare(make_arrays("float32"))
    assert bits(optimizer, params) == before


def test_some_parameters_may_wait():
    """Those that are not passed keep what they have, and new ones start from 0."""
    optimizer, params = Momentum(lr=1, momentum=0.5), {"a": np.zeros(1), "b": np.zeros(1)}
    one = np.ones(1)
    optimizer.update({"a": params["a"]}, {"a": one})
    optimizer.update(params, {"a": one, "b": one})
    optimizer.update({"b": params["b"]}, {"b": one})
    assert params == {"a": [-2.5], "b": [-2.5]}
    assert optimizer.state == {"velocity": {"a": [1.5], "b": [1.5]}}


@pytest.mark.parametrize("kind", KINDS)
def test_gradients_are_left_alone(kind):
    params, grads = good(), make_arrays(seed=2)
    before = {name: g.tobytes() for name, g in grads.items()}
    for g in grads.values():
        g.flags.writeable = False
    kind().update(params, grads)
    assert {name: g.tobytes() for name, g in grads.items()} == before


def test_a_matrix_is_an_array_here():
    with pytest.warns(PendingDeprecationWarning):
        params = {"W": np.asmatrix(np.ones((2, 2)))}
    expected = {"W": np.ones((2, 2))}
    for p in (params, expected):
        AdaGrad().update(p, {"W": p["W"] * 1.0})
    assert params["W"].tobytes() == expected["W"].tobytes()
