"""The settings of optimizers and schedules, and the rates of schedules."""

from __future__ import annotations

import numpy as np
import pytest

from fastnet.optimizers import (
    SGD,
    AdaGrad,
    Adam,
    Constant,
    CosineAnnealing,
    Momentum,
    Nesterov,
    RMSprop,
    Schedule,
    StepDecay,
)
from updates import INF, KINDS, NAN, SCHEDULE, T, V, good

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
