"""Layers and losses of one's own in a network."""

from __future__ import annotations

import numpy as np
import pytest

import fastnet
from fastnet import layers
from fastnet.layers import Affine, BatchNorm, Dropout, Sigmoid, SoftmaxWithLoss, Tanh
from layer_networks import affine, assert_same, batch_of, snapshot


class Scale(layers.Layer):
    """x·factors, written as the docstring of `Layer` tells."""

    def __init__(self, factors):
        self.params = {"factors": factors}

    def forward(self, x):
        self.x = x
        return x * self.params["factors"]

    def backward(self, dout):
        self.grads = {"factors": (dout * self.x).sum(axis=0)}
        return dout * self.params["factors"]


class Noise(layers.Layer):
    """Random numbers in training, whose generator's position is state."""

    decayed = ("size",)

    def __init__(self, size):
        self.params = {"size": np.array([size])}
        self.state = {"position": np.zeros(1, int)}

    def forward(self, x, train_flg=True):
        if not train_flg:
            return x
        self.noise = np.random.default_rng(int(self.state["position"][0])).standard_normal(x.shape)
        self.state["position"] += 1  # in place: the network passes a copy
        return x + self.params["size"] * self.noise

    def backward(self, dout):
        self.grads["size"] = np.array([(dout * self.noise).sum()])
        return dout


class Flatten(layers.Layer):
    """Images as rows."""

    def forward(self, x):
        self.shape = x.shape
        return x.reshape(len(x), -1)

    def backward(self, dout):
        return dout.reshape(self.shape)


class AbsoluteError(layers.LossLayer):
    def forward(self, x, t):
        self.sign, self.n = np.sign(x - t), len(x)
        return np.abs(x - t).sum() / self.n

    def backward(self, dout):
        return dout * self.sign / self.n


def test_layers_of_ones_own(backend):
    rng = np.random.default_rng(0)
    stack = [Scale(rng.standard_normal(6)), affine(rng, 6, 5), Noise(0.1), Scale(rng.standard_normal(5)), Tanh()]
    net = fastnet.Network([*stack, affine(rng, 5, 4)], SoftmaxWithLoss(), weight_decay_lambda=0.2)
    assert list(net.params) == ["factors1", "W1", "b1", "size1", "factors2", "W2", "b2"]
    assert list(net.state) == ["position1"]
    x, t = batch_of()
    for _ in range(2):
        check = fastnet.check_gradient(net, net.gradient(x, t), (x, t))
        assert check.passed, str(check)
    assert net.state["position1"] == 2
    assert net.loss(x, t) != net.training_loss(x, t)
    net.params["factors1"] = np.zeros(6)
    np.testing.assert_allclose(net.gradient(x, t)["W1"], 0.2 * net.params["W1"], rtol=1e-13)


def test_a_loss_of_ones_own(backend):
    rng = np.random.default_rng(0)
    net = fastnet.Network([affine(rng, 6, 5), Sigmoid(), affine(rng, 5, 2)], AbsoluteError())
    x, t = batch_of()[0], rng.standard_normal((20, 2))
    expected = abs(net.predict(x) - t).sum() / 20
    assert net.loss(x, t) == pytest.approx(expected, rel=1e-14)
    assert type(net.loss(x, t)) is float
    assert fastnet.check_gradient(net, net.gradient, (x, t)).passed


def test_batches_of_images(backend):
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((8, 2, 3)), rng.integers(0, 4, 8)
    net = fastnet.Network([Flatten(), affine(rng, 6, 4)], SoftmaxWithLoss())
    np.testing.assert_allclose(
        net.predict(x), fastnet.Network([net.layers[1]], SoftmaxWithLoss()).predict(x.reshape(8, 6)), rtol=1e-13
    )
    assert net.accuracy(x, net.predict(x).argmax(axis=1), 3) == 1
    assert fastnet.check_gradient(net, net.gradient, (x, t)).passed


def test_names_are_numbered():
    rng = np.random.default_rng(0)
    stack = [Affine(rng.standard_normal((6, 6))), affine(rng, 6, 6), Affine(rng.standard_normal((6, 6)))]
    stack += [BatchNorm(np.ones(6), np.zeros(6)), affine(rng, 6, 6)]
    net = fastnet.Network(stack, SoftmaxWithLoss())
    assert list(net.params) == ["W1", "W2", "b2", "W3", "gamma1", "beta1", "W4", "b4"]


@pytest.mark.parametrize("error", [ZeroDivisionError, KeyboardInterrupt, SystemExit])
@pytest.mark.parametrize("at", [1, 2, 3, 30, 31])
def test_whatever_ends_a_numerical_gradient_leaves_the_network_as_it_was(error, at):
    class Fails(Flatten):
        calls = 0

        def forward(self, x):
            self.calls += 1
            if self.calls == at:
                raise error
            return x

    rng = np.random.default_rng(0)
    norm, failing = BatchNorm(np.ones(5), np.zeros(5)), Fails()
    net = fastnet.Network([affine(rng, 6, 5), norm, Dropout(seed=0), failing, affine(rng, 5, 3)], SoftmaxWithLoss())
    x, t = batch_of(classes=3)
    for call in (net.numerical_gradient, net.gradient, net.training_loss):
        before = snapshot(net)
        failing.calls = 0 if call == net.numerical_gradient else at - 1
        with pytest.raises(error):
            call(x, t)
        assert_same(net, before)
        assert norm.running_mean is net.state["running_mean1"]
        assert net.layers[0].W is net.params["W1"]
