"""Optimizers against the papers' formulas, to 50 digits, and the book's."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest

import fastnet
from fastnet.optimizers import (
    OPTIMIZERS,
    SGD,
    AdaGrad,
    Adam,
    Constant,
    CosineAnnealing,
    Momentum,
    Nesterov,
    RMSprop,
    StepDecay,
)
from updates import KINDS, NAN, SCHEDULE, bits, make_arrays, train

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
