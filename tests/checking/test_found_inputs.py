"""Networks and layers that Hypothesis draws: right gradients are never called wrong, and mistakes are found."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as st_numpy

import fastnet
from fastnet import layers
from random_networks import MISTAKES, mistaken, network_of

SEEDS = st.integers(0, 2**32 - 1)
VALUES = st.floats(-3, 3).map(lambda value: round(value, 2))  # with zeros and equal values, where kinks are


def inputs(*shape):
    return st_numpy.arrays("float64", shape, elements=VALUES)


@settings(max_examples=12)
@given(seed=SEEDS, kind=st.sampled_from(MISTAKES))
def test_networks(seed, kind):
    net, (x, t) = network_of(seed)
    right = fastnet.check_gradient(net, net.gradient, (x, t))
    assert right.failed == 0, str(right)
    wrong, _ = mistaken(kind, net, net.gradient(x, t), x, t, seed)
    assert not fastnet.check_gradient(net, wrong, (x, t)).passed


LAYERS = {
    "affine": lambda rng: layers.Affine(rng.standard_normal((4, 3)), rng.standard_normal(3)),
    "batch norm": lambda rng: layers.BatchNorm(rng.standard_normal(4), rng.standard_normal(4)),
    "dropout": lambda rng: layers.Dropout(0.4, seed=int(rng.integers(100))),
    "leaky relu": lambda rng: layers.LeakyReLU(0.1),
    "relu": lambda rng: layers.ReLU(),
    "sigmoid": lambda rng: layers.Sigmoid(),
    "tanh": lambda rng: layers.Tanh(),
}


@pytest.mark.parametrize("name", LAYERS)
@given(x=inputs(5, 4), seed=SEEDS)
def test_layers(name, x, seed):
    layer = LAYERS[name](np.random.default_rng(seed))
    check = fastnet.check_layer(layer, x)
    assert check.failed == 0, str(check)

    class Wrong(type(layer)):
        def backward(self, dout):
            dx = super().backward(dout).copy()
            dx.flat[dx.argmax()] += 0.05 * max(abs(dx).max(), 1e-3)
            return dx

    layer.__class__ = Wrong
    assert not fastnet.check_layer(layer, x).passed


@given(seed=SEEDS, decay=st.floats(1e-3, 10), rows=st.integers(1, 5), h=st.sampled_from([None, 1e-3, 1e-5]))
def test_a_subclass_with_a_penalty_of_its_own(seed, decay, rows, h):
    class Penalised(fastnet.TwoLayerNet):
        def loss(self, x, t):
            return super().loss(x, t) + 0.5 * decay * float((self.params["W1"] ** 2).sum())

    rng = np.random.default_rng(seed)
    x, t = rng.standard_normal((rows, 5)), rng.integers(0, 3, rows)
    own, plain = (kind(5, 4, 3, 0.5, seed=seed) for kind in (Penalised, fastnet.TwoLayerNet))
    found, expected = own.numerical_gradient(x, t, h), plain.gradient(x, t)
    expected["W1"] += decay * plain.params["W1"]
    largest = max(np.abs(g).max() for g in expected.values())
    for name, gradient in found.items():
        np.testing.assert_allclose(gradient, expected[name], rtol=0, atol=1e-5 * largest, err_msg=name)


@given(seed=SEEDS, rows=st.integers(1, 5), integers=st.booleans())
def test_targets_of_one_output(seed, rows, integers):
    rng = np.random.default_rng(seed)
    net = fastnet.Network([layers.Affine(rng.standard_normal((4, 1)), np.zeros(1))], layers.IdentityWithLoss())
    x = rng.standard_normal((rows, 4))
    t = rng.integers(-5, 5, rows) if integers else rng.standard_normal(rows)
    y = net.predict(x)[:, 0]
    assert net.loss(x, t) == pytest.approx(0.5 * np.mean((y - t) ** 2), rel=1e-13)
    assert net.loss(x, t) == net.loss(x, t[:, np.newaxis])
    assert fastnet.check_gradient(net, net.gradient, (x, t)).passed


@given(
    seed=SEEDS,
    rows=st.integers(1, 5),
    hidden=st.lists(st.integers(1, 6), min_size=1, max_size=3),
    activation=st.sampled_from(["sigmoid", "tanh"]),
)
def test_input_gradients(seed, rows, hidden, activation):
    rng = np.random.default_rng(seed)
    net = fastnet.MultiLayerNet(4, hidden, 3, activation=activation, weight_init_std=0.7, seed=seed)
    x, t = rng.standard_normal((rows, 4)), rng.integers(0, 3, rows)
    expected = net.input_gradient(x, t)
    np.testing.assert_allclose(
        net.numerical_input_gradient(x, t, 1e-6), expected, rtol=0, atol=1e-10 * np.abs(expected).max()
    )
