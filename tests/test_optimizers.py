"""Optimizers and schedules: against PyTorch's numbers, the papers' formulas, and the rounding that is promised."""

from __future__ import annotations

import copy
import doctest
import json
import math
import pickle
from pathlib import Path

import mpmath
import numpy as np
import pytest

import fastnet
from fastnet import optimizers
from fastnet.optimizers import (
    OPTIMIZERS,
    SGD,
    AdaGrad,
    Adam,
    Constant,
    CosineAnnealing,
    Momentum,
    Nesterov,
    Optimizer,
    RMSprop,
    Schedule,
    StepDecay,
    base,
    rules,
    schedules,
)

INF, NAN = float("inf"), float("nan")
KINDS = list(OPTIMIZERS.values())
SCHEDULE = CosineAnnealing(0.02, iterations=30, warmup=4, final=0.001)


def make_arrays(dtype="float64", seed=0, shapes=((3, 4), (4,), (4, 2), ())):
    """Arrays as of a network's parameters or gradients; about a third of the entries are 0."""
    rng = np.random.default_rng(seed)
    return {
        f"p{i}": np.asarray(rng.standard_normal(shape) * (rng.random(shape) > 0.3), dtype)
        for i, shape in enumerate(shapes)
    }


def train(optimizer, params, steps, seed=1):
    """`params` after some updates; those of the same `optimizer.iteration` have the same gradients."""
    for _ in range(steps):
        g = make_arrays(params["p0"].dtype, (seed, optimizer.iteration), [p.shape for p in params.values()])
        optimizer.update(params, g)
    return params


def bits(optimizer, params):
    """All that an update changes."""
    arrays = params | {f"{s}/{n}": a for s, named in optimizer.state.items() for n, a in named.items()}
    return optimizer.iteration, {name: (a.shape, a.dtype, a.tobytes()) for name, a in arrays.items()}


# Against PyTorch ------------------------------------------------------------------------------------------

with np.load(Path(__file__).parent / "data" / "optimizers.npz") as _file:  # see make_optimizer_reference.py
    STORED = {name: _file[name] for name in _file.files}
CASES, SCHEDULES = json.loads(str(STORED["cases"])), json.loads(str(STORED["schedules"]))
NAMES = [name.removeprefix("start/") for name in STORED if name.startswith("start/")]


def make_schedule(name):
    kind, settings = SCHEDULES[name]
    return getattr(optimizers, kind)(**settings)


@pytest.mark.parametrize("case", CASES)
def test_parameters_are_pytorchs(case, dtype):
    kind, settings = CASES[case]
    if isinstance(settings.get("lr"), str):
        settings = settings | {"lr": make_schedule(settings["lr"])}
    optimizer = getattr(optimizers, kind)(**settings)
    params = {name: STORED[f"start/{name}"].astype(dtype) for name in NAMES}
    expected = {name: STORED[f"{case}/{dtype}/{name}"] for name in NAMES}
    after = STORED["after"].tolist()[: len(expected["W1"])]
    largest = {name: abs(p) for name, p in params.items()}
    for k in range(after[-1]):
        optimizer.update(params, {name: STORED[f"gradients/{name}"][k].astype(dtype) for name in NAMES})
        for name, p in params.items():
            largest[name] = np.maximum(largest[name], abs(p))
            assert p.dtype == expected[name].dtype == dtype
            if k + 1 not in after:
                continue
            # PyTorch fuses some multiply-adds and computes some means as m + (g − m)·(1 − beta1). Each of the k + 1
            # updates rounds p by up to half an ulp on either side, and its step by a few of the step's: that adds up
            # like a random walk.
            bound = (2 + math.sqrt(k + 1)) * np.finfo(dtype).eps * largest[name]
            difference = abs(p - expected[name][after.index(k + 1)])
            assert np.all(difference <= bound), f"{name} after {k + 1} updates: {(difference / bound).max()}"


@pytest.mark.parametrize("name", SCHEDULES)
def test_rates_are_pytorchs(name):
    schedule, expected = make_schedule(name), STORED[f"rates/{name}"]
    rates = [schedule(k) for k in range(len(expected))]
    # PyTorch's cosine is computed from the rate before it: its rounding errors are of the largest rate's size.
    np.testing.assert_allclose(rates, expected, rtol=0, atol=8 * np.finfo(float).eps * schedule.lr)


# Against the papers, to 50 digits -------------------------------------------------------------------------


def paper_sgd(p, gradients, lr):
    for g in gradients:
        p -= lr * g
    return p


def paper_momentum(p, gradients, lr, momentum):
    """Polyak: p_{k+1} = p_k − lr·g + momentum·(p_k − p_{k−1})."""
    before = p
    for g in gradients:
        before, p = p, p - lr * g + momentum * (p - before)
    return p


def paper_nesterov(p, gradients, lr, momentum):
    """Nesterov: y = p + momentum·(p − p before); p = y − lr·gradient(y). What is updated here are the y."""
    y, before = p, p
    for g in gradients:
        p = y - lr * g
        y, before = p + momentum * (p - before), p
    return y


def paper_adagrad(p, gradients, lr, eps):
    for k, g in enumerate(gradients):
        p -= lr * g / (mpmath.sqrt(sum(past**2 for past in gradients[: k + 1])) + eps)
    return p


def paper_rmsprop(p, gradients, lr, decay_rate, eps):
    for k, g in enumerate(gradients):
        mean = (1 - decay_rate) * sum(decay_rate ** (k - i) * past**2 for i, past in enumerate(gradients[: k + 1]))
        p -= lr * g / (mpmath.sqrt(mean) + eps)
    return p


def paper_adam(p, gradients, lr, beta1, beta2, eps):
    """Algorithm 1, with the moments as the sums of their equation 1."""
    for k in range(1, len(gradients) + 1):
        m = (1 - beta1) * sum(beta1 ** (k - i) * past for i, past in enumerate(gradients[:k], start=1))
        v = (1 - beta2) * sum(beta2 ** (k - i) * past**2 for i, past in enumerate(gradients[:k], start=1))
        p -= lr * (m / (1 - beta1**k)) / (mpmath.sqrt(v / (1 - beta2**k)) + eps)
    return p


@pytest.mark.parametrize(
    ("kind", "paper", "settings"),
    [
        (SGD, paper_sgd, {"lr": 0.3}),
        (Momentum, paper_momentum, {"lr": 0.1, "momentum": 0.8}),
        (Nesterov, paper_nesterov, {"lr": 0.1, "momentum": 0.8}),
        (AdaGrad, paper_adagrad, {"lr": 0.1, "eps": 1e-3}),
        (RMSprop, paper_rmsprop, {"lr": 0.1, "decay_rate": 0.9, "eps": 1e-3}),
        (Adam, paper_adam, {"lr": 0.1, "beta1": 0.8, "beta2": 0.95, "eps": 1e-3}),
    ],
)
def test_the_papers_formula(kind, paper, settings):
    steps = 40
    gradients = np.random.default_rng(3).standard_normal((steps, 5))
    gradients[::3, 1] = 0
    start = np.array([1.0, -2.0, 0.5, 0.0, 3.0])
    params = {"p": start.copy()}
    optimizer = kind(**settings)
    for g in gradients:
        optimizer.update(params, {"p": g})
    with mpmath.workdps(50):
        exact = {name: mpmath.mpf(value) for name, value in settings.items()}
        expected = [
            float(paper(mpmath.mpf(start[i]), [mpmath.mpf(g) for g in gradients[:, i].tolist()], **exact))
            for i in range(5)
        ]
    # All values are below 8: each update rounds by less than a few ulps of that, in turn up and down.
    np.testing.assert_allclose(params["p"], expected, rtol=0, atol=8 * np.finfo(float).eps * math.sqrt(steps))


def test_the_cosine_to_50_digits():
    schedule = CosineAnnealing(0.3, iterations=47, warmup=5, final=0.01)
    with mpmath.workdps(50):
        for k in range(5, 47):
            half = (1 + mpmath.cos(mpmath.pi * (k - 5) / mpmath.mpf(42))) / 2
            exact = mpmath.mpf(0.01) + (mpmath.mpf(0.3) - mpmath.mpf(0.01)) * half
            assert abs(schedule(k) - exact) < 4 * np.finfo(float).eps * 0.3


# The order of rounding: one entry at a time, in scalars of the dtype ---------------------------------------


def scalar_sgd(T, p, g, state, o, lr):
    return p - lr * g, ()


def scalar_momentum(T, p, g, state, o, lr):
    v = T(o.momentum) * state[0] + g
    return p - lr * v, (v,)


def scalar_nesterov(T, p, g, state, o, lr):
    v = T(o.momentum) * state[0] + g
    return p - lr * (T(o.momentum) * v + g), (v,)


def scalar_adagrad(T, p, g, state, o, lr):
    s = state[0] + g * g
    return p - (lr * g) / (np.sqrt(s) + T(o.eps)), (s,)


def scalar_rmsprop(T, p, g, state, o, lr):
    s = T(o.decay_rate) * state[0] + (T(1 - o.decay_rate) * g) * g
    return p - (lr * g) / (np.sqrt(s) + T(o.eps)), (s,)


def scalar_adam(T, p, g, state, o, c0, c1):
    m = T(o.beta1) * state[0] + T(1 - o.beta1) * g
    v = T(o.beta2) * state[1] + (T(1 - o.beta2) * g) * g
    return p - (c0 * m) / (np.sqrt(v) / c1 + T(o.eps)), (m, v)


def expected_coefficients(optimizer, k):
    """In float64."""
    lr = optimizer.lr(k) if isinstance(optimizer.lr, Schedule) else optimizer.lr
    if isinstance(optimizer, Adam):
        return lr / (1 - optimizer.beta1 ** (k + 1)), math.sqrt(1 - optimizer.beta2 ** (k + 1))
    return (lr,)


SCALAR = {
    "sgd": scalar_sgd,
    "momentum": scalar_momentum,
    "nesterov": scalar_nesterov,
    "adagrad": scalar_adagrad,
    "rmsprop": scalar_rmsprop,
    "adam": scalar_adam,
}


@pytest.mark.parametrize("schedule", [None, SCHEDULE], ids=["constant", "cosine"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_operation_is_rounded_once_in_the_order_written(kind, schedule, dtype):
    T = np.dtype(dtype).type
    optimizer = kind() if schedule is None else kind(lr=schedule)
    shape = (5, 7)  # no multiple of a vector's length
    rng = np.random.default_rng(5)
    p = rng.standard_normal(shape).astype(dtype)
    params, entries = {"W": p.copy()}, list(p.ravel())
    states = [tuple(T(0) for _ in kind.slots) for _ in entries]
    for k in range(12):
        g = (rng.standard_normal(shape) * 10.0 ** rng.integers(-9, 6, shape)).astype(dtype)
        g[rng.random(shape) < 0.2] = 0
        coefficients = expected_coefficients(optimizer, k)
        assert optimizer.coefficients(k) == coefficients
        optimizer.update(params, {"W": g})
        for i, entry in enumerate(g.ravel()):
            entries[i], states[i] = SCALAR[kind.name](
                T, entries[i], entry, states[i], optimizer, *(T(c) for c in coefficients)
            )
            assert entries[i].dtype == dtype
        assert params["W"].tobytes() == np.array(entries).tobytes()
        for slot, values in zip(kind.slots, zip(*states, strict=True), strict=False):
            assert optimizer.state[slot]["W"].tobytes() == np.array(values).tobytes()
    assert optimizer.iteration == 12


@pytest.mark.parametrize("kind", KINDS)
def test_layout_makes_no_difference(kind, dtype):
    """Transposed, strided and reversed parameters are changed where they are, as contiguous ones."""
    base = {"p0": np.zeros((8, 6), dtype), "p1": np.zeros((4, 3), dtype, order="F"), "p2": np.zeros(10, dtype)}
    views = {"p0": base["p0"][::2, ::-1], "p1": base["p1"], "p2": base["p2"][1:8:3]}
    start = make_arrays(dtype, shapes=[v.shape for v in views.values()])
    for name, view in views.items():
        view[...] = start[name]
    train(kind(), views, 5)
    train(kind(), start, 5)
    for name, view in views.items():
        assert view.tobytes() == start[name].tobytes()
    assert not base["p0"][1::2].any()


@pytest.mark.parametrize("kind", KINDS)
def test_each_parameter_is_changed_in_its_own_dtype(kind):
    both = {"a": np.ones(3, "f4"), "b": np.ones(3, "f8")}
    grads = {"a": np.full(3, 0.1, "f4"), "b": np.full(3, 0.1)}
    kind().update(both, grads)
    for name in both:
        alone = {name: np.ones(3, both[name].dtype)}
        kind().update(alone, {name: grads[name]})
        assert both[name].tobytes() == alone[name].tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_0_and_shape_0(kind, dtype):
    params = {"none": np.ones((0, 3), dtype), "one": np.array(2.0, dtype)}
    one = params["one"]
    optimizer = kind(lr=0.5)
    optimizer.update(
        params, {"none": np.ones((0, 3), dtype), "one": one * one.dtype.type(0.5)}
    )  # of an array (), a NumPy scalar
    assert params["one"] is one
    assert one.shape == ()
    assert one < 2
    assert all(a["none"].shape == (0, 3) for a in optimizer.state.values())
    kind().update({}, {})


# As in the book -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_a_network_learns(backend, kind, dtype):
    x, t = fastnet.datasets.make_digits(60, seed=0)
    net = fastnet.TwoLayerNet(784, 12, 10, weight_init_std=0.1, dtype=dtype, seed=0)
    arrays = dict(net.params)
    optimizer = kind(lr=0.02 if kind not in (SGD, Momentum, Nesterov) else 0.3)
    before = net.loss(x, t)
    for _ in range(30):
        optimizer.update(net.params, net.gradient(x, t))
    assert net.loss(x, t) < 0.95 * before
    assert all(net.params[name] is array for name, array in arrays.items())


def test_the_books_comparison_of_optimizers():
    """f(x, y) = x²/20 + y² from (−7, 2), with the book's rates: all come near the origin."""
    for optimizer in (SGD(0.95), Momentum(0.1), AdaGrad(1.5), Adam(0.3)):
        params = {"x": np.array([-7.0]), "y": np.array([2.0])}
        for _ in range(60):
            optimizer.update(params, {"x": params["x"] / 10, "y": 2 * params["y"]})
        assert abs(params["x"]) < 0.7
        assert abs(params["y"]) < 0.2


def test_defaults():
    shown = "SGD(lr=0.01) Momentum(lr=0.01, momentum=0.9) Nesterov(lr=0.01, momentum=0.9) AdaGrad(lr=0.01, eps=1e-10) "
    shown += "RMSprop(lr=0.01, decay_rate=0.99, eps=1e-08) Adam(lr=0.001, beta1=0.9, beta2=0.999, eps=1e-08)"
    assert " ".join(repr(kind()) for kind in KINDS) == shown
    assert [kind().constants for kind in KINDS] == [(), (0.9,), (0.9,), (1e-10,), (0.99, 1e-8), (0.9, 0.999, 1e-8)]
    assert list(OPTIMIZERS) == ["sgd", "momentum", "nesterov", "adagrad", "rmsprop", "adam"]
    assert repr(SGD(SCHEDULE)) == "SGD(lr=CosineAnnealing(lr=0.02, iterations=30, warmup=4, final=0.001))"


@pytest.mark.parametrize("module", [base, rules, schedules])
def test_examples_in_docstrings(module):
    assert doctest.testmod(module).failed == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_rate_can_be_assigned(kind):
    assigned, scheduled = kind(lr=0.5), kind(lr=StepDecay(0.5, step_size=3))
    params, expected = make_arrays(), make_arrays()
    for rate in (0.5, scheduled.lr(3)):
        assigned.lr = rate
        train(assigned, params, 3)
    train(scheduled, expected, 6)
    assert bits(assigned, params) == bits(scheduled, expected)
    for wrong, error in ((0, ValueError), (NAN, ValueError), ("0.1", TypeError), (lambda k: 0.1, TypeError)):
        with pytest.raises(error, match="lr must be "):
            assigned.lr = wrong
        assert assigned.lr == rate


@pytest.mark.parametrize("kind", KINDS)
def test_a_constant_schedule_is_a_number(kind):
    number, schedule = kind(lr=0.25), kind(lr=Constant(0.25))
    assert bits(number, train(number, make_arrays(), 4)) == bits(schedule, train(schedule, make_arrays(), 4))


# NaN and infinities ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_what_is_not_finite_gets_into_the_parameters(kind, dtype, bad):
    params = {"W": np.ones(4, dtype), "b": np.ones(2, dtype)}
    optimizer = kind()
    optimizer.update(params, {"W": np.array([1, bad, 1, 1], dtype), "b": np.ones(2, dtype)})
    assert np.isfinite(params["W"]).tolist() == [True, False, True, True]
    assert np.isfinite(params["b"]).all()
    assert optimizer.iteration == 1


@pytest.mark.parametrize("kind", KINDS)
def test_the_largest_and_smallest_gradients_give_no_warning(kind, dtype):
    info = np.finfo(dtype)
    params = {"W": np.ones(4, dtype)}
    for _ in range(3):
        kind(lr=1e-3).update(params, {"W": np.array([info.max, -info.max, info.tiny, info.smallest_subnormal], dtype)})
    assert not np.isnan(params["W"]).any()


# All or nothing -------------------------------------------------------------------------------------------

T, V = TypeError, ValueError


def read_only(array):
    array.flags.writeable = False
    return array


def good():
    return make_arrays()


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
    ("no string", {}, {1: np.ones(2)}, T, "grads must have names that are strings, not 1"),
    ("params: a number", {"p3": 1.0}, {}, T, "params['p3'] must be a NumPy array, not float"),
    ("params: a scalar", {"p3": np.float64(1)}, {}, T, "params['p3'] must be a NumPy array, not float64"),
    ("params: a list", {"p1": [0.0] * 4}, {}, T, "params['p1'] must be a NumPy array, not list"),
    ("params: integers", {"p2": np.ones((4, 2), int)}, {}, T, "params['p2'] must be float32 or float64, not int64"),
    ("params: float16", {"p2": np.ones((4, 2), "f2")}, {}, T, "params['p2'] must be float32 or float64, not float16"),
    ("params: read-only", {"p3": read_only(np.array(1.0))}, {}, V, "params['p3'] is read-only"),
    ("params: missing", {"p0": None}, {}, V, "grads must have the names of params: 'p0' unexpected"),
]


def replaced(arrays, changes):
    return {name: a for name, a in (arrays | changes).items() if a is not None}


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
    message = r"params\['p1'\] is float64 of shape \(5,\), but the velocity that this optimizer has for it is float64 "
    with pytest.raises(ValueError, match=message):
        optimizer.update(other, other)
    with pytest.raises(ValueError, match=r"params\['p0'\] is float32 of shape \(3, 4\), but the velocity"):
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


# Settings -------------------------------------------------------------------------------------------------

NUMBERS = [
    (0, V, "must be positive, not 0"),
    (-0.1, V, "must be positive, not -0.1"),
    (NAN, V, "must be finite, not nan"),
    (INF, V, "must be finite, not inf"),
    (10**400, V, "must be finite, not 10000"),
    (True, T, "must be a number, not bool"),
    (np.True_, T, "must be a number, not bool"),
    ("0.1", T, "must be a number, not str"),
    (None, T, "must be a number, not NoneType"),
    (1j, T, "must be a number, not complex"),
    (np.array([0.1]), T, "must be a number, not ndarray"),
]
FRACTIONS = [
    (1, V, "must be at least 0 and less than 1, not 1"),
    (1.5, V, "must be at least 0 and less than 1, not 1.5"),
    (-1e-9, V, "must be at least 0 and less than 1, not -1e-09"),
    *(row for row in NUMBERS[3:]),
    (NAN, V, "must be finite, not nan"),
]
COUNTS = [
    (2.0, T, "must be an integer, not float"),
    (True, T, "must be an integer, not bool"),
    ("3", T, "must be an integer, not str"),
    (None, T, "must be an integer, not NoneType"),
    (-1, V, "must be at least "),
]


def wrong_settings():
    for kind in KINDS:
        yield from ((kind, "lr", row) for row in NUMBERS)
        yield kind, "lr", (SGD, T, "must be a number, not ABCMeta")
    for kind, names in ((AdaGrad, ["eps"]), (RMSprop, ["eps"]), (Adam, ["eps"])):
        yield from ((kind, name, row) for name in names for row in NUMBERS)
    for kind, names in ((Momentum, ["momentum"]), (Nesterov, ["momentum"]), (RMSprop, ["decay_rate"])):
        yield from ((kind, name, row) for name in names for row in FRACTIONS)
    yield from ((Adam, name, row) for name in ("beta1", "beta2") for row in FRACTIONS)
    yield from ((kind, "lr", row) for kind in (Constant, StepDecay, CosineAnnealing) for row in NUMBERS)
    yield from ((StepDecay, "gamma", row) for row in (*NUMBERS, (1.5, V, "must be at most 1, not 1.5")))
    yield from ((StepDecay, "step_size", row) for row in (*COUNTS, (0, V, "must be at least 1, not 0")))
    yield from ((CosineAnnealing, "iterations", row) for row in (*COUNTS, (0, V, "must be at least 1, not 0")))
    yield from ((CosineAnnealing, "warmup", row) for row in COUNTS)
    for warmup in (50, 60):
        yield CosineAnnealing, "warmup", (warmup, V, f"must be less than the 50 iterations, not {warmup}")
    for final in (-0.1, 0.2):
        yield CosineAnnealing, "final", (final, V, f"must be from 0 to the lr of 0.1, not {final}")
    yield from ((CosineAnnealing, "final", row) for row in NUMBERS[2:])


SETTINGS = {
    Constant: {"lr": 0.1},
    StepDecay: {"lr": 0.1, "step_size": 3},
    CosineAnnealing: {"lr": 0.1, "iterations": 50},
}


@pytest.mark.parametrize(("kind", "name", "row"), list(wrong_settings()))
def test_wrong_settings(kind, name, row):
    value, error, message = row
    with pytest.raises(error) as caught:
        kind(**(SETTINGS.get(kind, {}) | {name: value}))
    assert f"{name} {message}" in str(caught.value)


def test_numbers_of_other_types():
    for lr in (np.float32(0.5), np.float64(0.5), np.array(0.5)[()]):
        optimizer = Momentum(lr, momentum=np.float32(0))
        assert type(optimizer.lr) is type(optimizer.momentum) is float
        assert optimizer.coefficients(np.int64(3)) == (0.5,)
    assert StepDecay(np.float32(1), np.int64(2), np.float32(0.5))(np.int32(5)) == 0.25
    assert SGD(lr=1).lr == 1.0
    for beta in (0, 0.5):
        Adam(beta1=beta, beta2=beta).update(good(), good())


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("iteration", "error", "message"), COUNTS)
def test_no_iteration(kind, iteration, error, message):
    for call in (kind().coefficients, kind(lr=SCHEDULE).coefficients, SCHEDULE, StepDecay(1, 2)):
        with pytest.raises(error, match=f"iteration {message}"):
            call(iteration)


# Schedules ------------------------------------------------------------------------------------------------


def test_constant():
    assert [Constant(0.3)(k) for k in (0, 1, 10**9)] == [0.3] * 3


def test_step_decay():
    assert [StepDecay(0.8, 2, 0.5)(k) for k in range(7)] == [0.8, 0.8, 0.4, 0.4, 0.2, 0.2, 0.1]
    assert StepDecay(0.8, 1)(10**6) == 0
    assert StepDecay(0.8, 1, 1)(10**6) == 0.8


@pytest.mark.parametrize("final", [0.0, 0.02, 0.4])
@pytest.mark.parametrize(("iterations", "warmup"), [(1, 0), (2, 1), (9, 0), (10, 4), (1000, 100)])
def test_cosine_annealing(iterations, warmup, final):
    schedule = CosineAnnealing(0.4, iterations, warmup, final)
    rates = np.array([schedule(k) for k in range(iterations + 3)])
    up, down, end = np.split(rates, [warmup, iterations])
    np.testing.assert_allclose(up, 0.4 * np.arange(1, warmup + 1) / max(warmup, 1), rtol=1e-15)
    assert down[0] == 0.4
    assert np.all(np.diff(down) <= 0)
    assert down[-1] > final or final == 0.4
    assert np.all(end == final)
    down = rates[warmup : iterations + 1]  # half a cosine is symmetric about its middle
    np.testing.assert_allclose(down + down[::-1], 0.4 + final, rtol=1e-15)


def test_schedules_are_values():
    assert StepDecay(0.1, 3) == StepDecay(lr=0.1, step_size=3, gamma=0.1) != StepDecay(0.1, 4)
    assert len({CosineAnnealing(0.1, 5), CosineAnnealing(0.1, 5, 0, 0.0), Constant(0.1)}) == 2
    with pytest.raises(AttributeError):
        Constant(0.1).lr = 0.2
    with pytest.raises(TypeError, match="abstract"):
        Schedule()


# Saving ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("prepared", [False, True], ids=["new", "prepared"])
@pytest.mark.parametrize("kind", KINDS)
def test_resuming_gives_the_same_bits(kind, dtype, prepared):
    optimizer, params = kind(lr=SCHEDULE), make_arrays(dtype)
    train(optimizer, params, 7)
    saved, middle = optimizer.state_dict(), {name: p.copy() for name, p in params.items()}
    assert all(type(a) is np.ndarray for a in saved.values())
    assert list(saved) == ["iteration", *(f"{slot}/{name}" for slot in kind.slots for name in params)]
    train(optimizer, params, 7)  # what was saved must not change with it
    resumed = kind(lr=SCHEDULE)
    if prepared:
        resumed.prepare(middle)
    resumed.load_state_dict(saved)
    assert resumed.iteration == 7
    train(resumed, middle, 7)
    assert bits(resumed, middle) == bits(optimizer, params)
    for a in saved.values():
        a[...] = 0
    assert bits(resumed, middle) == bits(optimizer, params)


@pytest.mark.parametrize("kind", KINDS)
def test_the_state_before_the_first_update(kind):
    fresh = kind().state_dict()
    assert fresh == {"iteration": 0}
    optimizer, params = kind(), good()
    expected = bits(kind(), train(kind(), good(), 2))[1]
    train(optimizer, good(), 3)
    optimizer.load_state_dict(fresh)
    assert (optimizer.iteration, optimizer.state) == (0, {})
    train(optimizer, params, 2)
    assert {name: row for name, row in bits(optimizer, params)[1].items() if name in params} == expected


def test_prepare():
    for kind in KINDS:
        optimizer, params = kind(), good()
        optimizer.prepare(params)
        assert list(optimizer.state) == list(kind.slots)
        for arrays in optimizer.state.values():
            assert list(arrays) == list(params)
            assert all(a.flags.c_contiguous and not a.any() for a in arrays.values())
        arrays = {slot: dict(named) for slot, named in optimizer.state.items()}
        optimizer.prepare(params)
        train(optimizer, params, 1)
        assert all(optimizer.state[slot][name] is a for slot, named in arrays.items() for name, a in named.items())


def test_names_with_slashes():
    params = {"block/W": np.ones(2), "/": np.ones(2), "": np.ones(1), "iteration": np.ones(3), "ä/ö": np.ones(1)}
    optimizer, resumed = Adam(), Adam()
    optimizer.update(params, params)
    resumed.load_state_dict(optimizer.state_dict())
    assert bits(resumed, {}) == bits(optimizer, {})


STATES = [
    ("no iteration", {"iteration": None}, V, "state has no 'iteration'"),
    ("negative", {"iteration": np.array(-1)}, V, "state['iteration'] must be at least 0, not -1"),
    ("float", {"iteration": np.array(2.0)}, T, "state['iteration'] must be an integer, not float64"),
    ("bool", {"iteration": True}, T, "state['iteration'] must be an integer, not bool"),
    ("text", {"iteration": "2"}, T, "state['iteration'] must be an integer, not str"),
    ("vector", {"iteration": np.array([1, 2])}, T, "state['iteration'] must be an integer, not ndarray"),
    ("missing", {"first_moment/p1": None}, V, "the first_moment in state does not fit the parameters: 'p1' missing"),
    ("other missing", {"second_moment/p1": None}, V, "the second_moment in state does not fit the parameters: "),
    ("slot", {"velocity/p1": np.ones(4)}, V, "the slots of Adam are 'first_moment', 'second_moment'"),
    ("no slash", {"first_moment": np.ones(4)}, V, "state has 'first_moment', but the slots of Adam are"),
    ("shape", {"second_moment/p1": np.ones(5)}, V, "state['second_moment/p1'] is float64 of shape (5,), not float64"),
    ("dtype", {"second_moment/p1": np.ones(4, "f4")}, V, "state['second_moment/p1'] is float32 of shape (4,), not "),
    ("integers", {"second_moment/p1": np.ones(4, int)}, T, "state['second_moment/p1'] must be float32 or float64"),
    ("a list", {"second_moment/p1": [1.0] * 4}, T, "state['second_moment/p1'] must be a NumPy array, not list"),
    ("no string", {1: np.ones(4)}, T, "state must have names that are strings, not 1"),
]


@pytest.mark.parametrize("used", [False, True], ids=["new", "used"])
@pytest.mark.parametrize(("name", "changes", "error", "message"), STATES, ids=[row[0] for row in STATES])
def test_a_state_that_does_not_fit(name, changes, error, message, used):
    other = Adam()
    train(other, good(), 3)
    state = replaced(other.state_dict(), changes)
    optimizer = Adam()
    if used:
        train(optimizer, good(), 1)
    before = bits(optimizer, {})
    with pytest.raises(error) as caught:
        optimizer.load_state_dict(state)
    assert message in str(caught.value)
    assert bits(optimizer, {}) == before


def test_the_state_of_other_parameters():
    other, optimizer = Momentum(), Momentum()
    train(other, make_arrays(shapes=[(3, 4), (5,)]), 1)
    optimizer.prepare(good())
    with pytest.raises(ValueError, match="the velocity in state does not fit the parameters: 'p2', 'p3' missing"):
        optimizer.load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match="the velocity in state does not fit the parameters: 'p0', 'p1', 'p2', 'p3'"):
        optimizer.load_state_dict({"iteration": 3})
    with pytest.raises(ValueError, match="the velocity in state does not fit the parameters: it has none"):
        Momentum().load_state_dict({"iteration": 3})
    with pytest.raises(ValueError, match="but the slots of SGD are none"):
        SGD().load_state_dict(other.state_dict())
    adagrad = AdaGrad()
    train(adagrad, good(), 1)
    with pytest.raises(ValueError, match="but the slots of RMSprop are 'mean_square'"):
        RMSprop().load_state_dict(adagrad.state_dict())
    fresh = Momentum()  # without parameters to compare with: at the first update
    fresh.load_state_dict(other.state_dict())
    with pytest.raises(ValueError, match=r"but the velocity that this optimizer has for it is float64 of shape \(5,\)"):
        train(fresh, good(), 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("again", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))], ids=["copy", "pickle"])
def test_copies_go_on_by_themselves(kind, again):
    optimizer, params = kind(lr=SCHEDULE), good()
    train(optimizer, params, 3)
    other, others = again(optimizer), copy.deepcopy(params)
    train(optimizer, params, 3)
    train(other, others, 3)
    assert bits(other, others) == bits(optimizer, params)
    assert repr(other) == repr(optimizer)


# Optimizers of one's own ----------------------------------------------------------------------------------


class Lion(Optimizer):
    """X. Chen et al., Symbolic discovery of optimization algorithms, 2023: with everything that a subclass may have."""

    name = "lion"
    slots = ("momentum",)

    def __init__(self, lr=1e-4, beta1=0.9, beta2=0.99, damping=0.5):
        super().__init__(lr)
        self.beta1, self.beta2, self.damping = beta1, beta2, damping
        self._calls = 0

    @property
    def constants(self):
        return self.beta1, self.beta2

    def coefficients(self, iteration):
        (lr,) = super().coefficients(iteration)
        return lr, lr * self.damping**iteration

    def step(self, p, g, state, constants, coefficients):
        (m,), (b1, b2), (_, damped) = state, constants, coefficients
        assert {type(s) for s in (b1, b2, damped)} == {p.dtype.type}
        self._calls += 1
        p -= damped * np.sign(b1 * m + (1 - b1) * g)
        m *= b2
        m += (1 - b2) * g


def test_an_optimizer_of_ones_own(dtype):
    lion, params = Lion(lr=0.25), {"W": np.array([1, 2, 3], dtype)}
    g = {"W": np.array([0.5, -0.5, 0], dtype)}
    for _ in range(3):
        lion.update(params, g)
    assert params["W"].tolist() == [1 - 0.4375, 2 + 0.4375, 3]
    assert params["W"].dtype == dtype
    assert (lion.iteration, lion._calls) == (3, 3)
    assert repr(lion) == "Lion(lr=0.25, beta1=0.9, beta2=0.99, damping=0.5)"
    other = Lion(lr=0.25)
    other.load_state_dict(lion.state_dict())
    assert bits(other, {}) == bits(lion, {})
    lion.lr = SCHEDULE
    assert lion.coefficients(0) == (0.005, 0.005)
    with pytest.raises(ValueError, match=r"grads\['W'\] has shape"):
        lion.update(params, {"W": np.ones(4, dtype)})
    with pytest.raises(ValueError, match="lr must be positive"):
        Lion(lr=-1)


def test_step_must_be_written():
    class Nothing(Optimizer):
        name = "nothing"

    with pytest.raises(TypeError, match="abstract"):
        Nothing(0.1)
    with pytest.raises(TypeError, match="abstract"):
        Optimizer(0.1)
