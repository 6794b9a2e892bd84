"""The rounding that the optimizers promise, to the last bit; NaN and infinities."""

from __future__ import annotations

import math

import numpy as np
import pytest

from fastnet.optimizers import Adam, Schedule
from updates import INF, KINDS, NAN, SCHEDULE, make_arrays, train

# The order of rounding: one entry at a time, in scalars of the dtype --------------------------------------


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
