"""Checks of networks that are computed layer by layer, and of other people's: no false alarm, and no mistake missed."""

from __future__ import annotations

import math

import numpy as np
import pytest

import fastnet
from fastnet.checking.lines import ChainLines
from fastnet.layers import Affine, BatchNorm, Dropout, Layer, ReLU, SoftmaxWithLoss
from fastnet.networks.chain import chain_of
from layer_networks import batch_of
from random_networks import MISTAKES, mistaken, network_of


@pytest.mark.parametrize("seed", range(0, 64, 9))
def test_right_gradients_pass_and_mistakes_fail(seed):
    """A few of what `benchmarks/bench_verdicts.py` looks at."""
    net, (x, t) = network_of(seed)
    check = fastnet.check_gradient(net, net.gradient, (x, t))
    assert check.passed, str(check)
    gradient = net.gradient(x, t)
    for kind in MISTAKES:
        wrong, where = mistaken(kind, net, gradient, x, t, seed)
        found = fastnet.check_gradient(net, wrong, (x, t), worst=10**6)
        assert not found.passed, f"{kind}: {found}"
        if where is not None:
            assert {entry.name for entry in found.worst[: found.failed]} == where, kind


def test_a_gradient_that_is_zero_passes():
    """Of the sum of a BatchNorm's output, which is constant, and of the biases before a BatchNorm."""
    x = np.random.default_rng(0).standard_normal((50, 8))

    def f(x):
        return BatchNorm(np.ones(8), np.zeros(8)).forward(x).sum()

    norm = BatchNorm(np.ones(8), np.zeros(8))
    norm.forward(x)
    gradient = norm.backward(np.ones((50, 8)))
    check = fastnet.check_gradient(f, gradient, x)
    assert check.passed, str(check)
    assert check.agreeing == 400
    wrong = gradient.copy()
    wrong[3, 4] = 1e-3
    assert fastnet.check_gradient(f, wrong, x).failed == 1


def test_a_network_that_draws_numbers_by_itself_is_named():
    rng = np.random.default_rng(0)

    class Noisy:
        def __init__(self):
            self.params = {"W": np.ones((3, 2))}

        def loss(self, x, t):
            return float((x @ self.params["W"]).sum() * rng.random())

    with pytest.raises(ValueError, match=r"f is not deterministic: two calls .* differ by"):
        fastnet.check_gradient(Noisy(), {"W": np.ones((3, 2))}, (np.ones((2, 3)), [0, 1]))


class BookNet:
    """As the book writes one: params, predict, loss, gradient, and perhaps numerical_gradient(x, t) without h."""

    def __init__(self, ratio=0.0):
        rng = np.random.default_rng(0)
        self.ratio = ratio
        self.params = {
            "W1": 0.5 * rng.standard_normal((6, 5)),
            "b1": np.zeros(5),
            "W2": 0.5 * rng.standard_normal((5, 4)),
            "b2": np.zeros(4),
        }

    def predict(self, x, train_flg=False):
        self.hidden = np.maximum(x @ self.params["W1"] + self.params["b1"], 0)
        if self.ratio:
            self.mask = np.random.rand(*self.hidden.shape) > self.ratio if train_flg else 1 - self.ratio  # noqa: NPY002
            self.hidden = self.hidden * self.mask
        return fastnet.softmax(self.hidden @ self.params["W2"] + self.params["b2"])

    def loss(self, x, t, train_flg=False):
        y = self.predict(x, train_flg)
        return -np.sum(np.log(y[np.arange(len(t)), t] + 1e-7)) / len(t)

    def gradient(self, x, t):
        dy = (self.predict(x, train_flg=True) - np.eye(4)[t]) / len(t)
        da = (dy @ self.params["W2"].T) * (self.hidden > 0) * (self.mask if self.ratio else 1)
        return {"W1": x.T @ da, "b1": da.sum(axis=0), "W2": self.hidden.T @ dy, "b2": dy.sum(axis=0)}


class BookNetWithLoop(BookNet):
    def numerical_gradient(self, x, t):
        raise AssertionError("params and loss are enough")


@pytest.mark.parametrize("ratio", [0.0, 0.4])
@pytest.mark.parametrize("kind", [BookNet, BookNetWithLoop])
def test_the_books_own_classes(kind, ratio):
    np.random.seed(7)  # noqa: NPY002 - the book's networks draw from there
    net, (x, t) = kind(ratio), batch_of(15)
    before = {name: p.copy() for name, p in net.params.items()}
    check = fastnet.check_gradient(net, net.gradient, (x, t))
    assert check.passed, str(check)
    for name, p in net.params.items():
        np.testing.assert_array_equal(p, before[name])

    def wrong(x, t):
        gradient = net.gradient(x, t)
        places.append(np.unravel_index(np.abs(gradient["W1"]).argmax(), (6, 5)))
        gradient["W1"][places[-1]] *= 1.01
        return gradient

    places = []
    check = fastnet.check_gradient(net, wrong, (x, t))
    assert (check.failed, check.worst[0].label) == (1, f"W1[{places[-1][0]}, {places[-1][1]}]")
    if ratio:
        with pytest.raises(ValueError, match="f is not deterministic"):
            fastnet.check_gradient(net, {name: np.zeros_like(p) for name, p in net.params.items()}, (x, t))


def test_a_network_that_changes_its_batch_is_refused():
    class Centred(BookNet):
        def loss(self, x, t):
            x -= x.mean(axis=0)
            return super().loss(x, t)

    net, (x, t) = Centred(), batch_of()
    before = x.copy()
    with pytest.raises(ValueError, match="f changes its argument, 'x',"):
        fastnet.check_gradient(net, BookNet().gradient(x, t), (x, t))
    np.testing.assert_array_equal(x, before)


class LeftReLU(Layer):
    """With a wrong backward pass."""

    def forward(self, x):
        self.x = x
        return np.maximum(x, 0)

    def backward(self, dout):
        return dout * (self.x > -0.3)


@pytest.mark.parametrize("place", [1, 4])
def test_the_first_wrong_layer_going_back_from_the_loss_is_named(place):
    rng = np.random.default_rng(0)
    weights = [rng.standard_normal(shape) / 2 for shape in ((6, 8), (8, 7), (7, 4))]
    layers = [Affine(weights[0], np.zeros(8)), ReLU(), Affine(weights[1], np.zeros(7)), Dropout(0.2, seed=0), ReLU()]
    layers[place] = LeftReLU()
    net = fastnet.Network([*layers, Affine(weights[2], np.zeros(4))], SoftmaxWithLoss())
    check = fastnet.check_gradient(net, net.gradient, batch_of())
    assert check.first_wrong == f"layers[{place}], LeftReLU"
    assert f"going back from the loss, the mistakes begin in layers[{place}], LeftReLU" in str(check)
    x, t = batch_of()
    net = fastnet.MultiLayerNet(6, [5, 5], 4, use_batchnorm=True, seed=0)
    gradient = net.gradient(x, t)
    gradient["W1"] *= 2
    gradient["gamma2"] *= 2
    assert fastnet.check_gradient(net, gradient, (x, t)).first_wrong == "gamma2 (layers[4], BatchNorm)"


def test_the_result_raises_and_shows_itself():
    net, (x, t) = fastnet.MultiLayerNet(6, [5], 4, activation="tanh", seed=0), batch_of()
    gradient = net.gradient(x, t)
    assert fastnet.check_gradient(net, gradient, (x, t), raise_exception=True)
    gradient["W2"][1, 2] *= -1
    with pytest.raises(fastnet.GradientCheckError, match=r"FAILED: 1 of 59 .*(?s:.*)W2\[1, 2\]") as caught:
        fastnet.check_gradient(net, gradient, (x, t), raise_exception=True)
    assert isinstance(caught.value, AssertionError)
    html = fastnet.check_gradient(net, gradient, (x, t))._repr_html_()
    assert "<b>FAILED: 1 of 59 entries differ</b>" in html
    assert html.count("<tr>") == 6
    assert "<td>W2[1, 2]</td>" in html
    assert "<table" not in fastnet.check_gradient(net, net.gradient, (x, t))._repr_html_()


def test_the_order_of_the_taylor_remainder():
    net, (x, t) = fastnet.MultiLayerNet(6, [5], 4, activation="tanh", seed=0), batch_of()
    gradient = net.gradient(x, t)
    right = fastnet.check_gradient(net, gradient, (x, t))
    assert all(order == pytest.approx(2, abs=0.05) for order in right.orders.values())
    assert list(right.orders) == list(net.params)
    wrong = fastnet.check_gradient(net, gradient | {"b1": 1.5 * gradient["b1"]}, (x, t))
    assert wrong.orders["b1"] == pytest.approx(1, abs=0.05)
    assert wrong.order == wrong.orders["b1"]
    assert "b1 1.0" in str(wrong)
    linear = fastnet.check_gradient(lambda x: float(x.sum()), np.ones(4), np.arange(4.0))
    assert math.isnan(linear.order)


@pytest.mark.parametrize("inputs", [False, True])
def test_the_remainders_of_a_chain_are_those_of_its_loss(inputs):
    net = fastnet.MultiLayerNet(6, [5, 3], 4, activation="tanh", weight_decay_lambda=0.3, seed=0)
    x, t = batch_of()
    lines = ChainLines(chain_of(net), x, t, inputs)
    assert 0 < lines.noise() < 1e-14
    start = net.loss(x, t)
    for name, array in ({"x": x} if inputs else net.params).items():
        along = lines._line(name).along
        direction = np.array([along(unit.reshape(array.shape)) for unit in np.eye(array.size)]).reshape(array.shape)
        np.testing.assert_allclose(np.linalg.norm(direction), 1, rtol=1e-14)
        before, gradient = array.copy(), np.linspace(-1, 1, array.size)
        array += 0.5 * direction
        expected = abs(net.loss(x, t) - start - 0.5 * gradient @ direction.ravel())
        array[...] = before
        np.testing.assert_allclose(lines.remainders(name, gradient, [0.5]), [expected], rtol=1e-12)


def test_rows_of_zeros_at_a_kink_of_several_units():
    """Backprop takes one side of all kinks at once, which need not lie between the slopes of the two directions."""
    net = fastnet.MultiLayerNet(1, [3], 4, activation="relu", dtype="float32", seed=0)
    net.params["W1"][...] = [[-1.5, 0.5, 0.7]]
    x, t = np.array([[0.9], [0.0], [-1.1], [0.0]], np.float32), np.array([1, 0, 2, 3])
    gradient = net.input_gradient(x, t)
    check = fastnet.check_gradient(net, gradient, (x, t), inputs=True)
    assert (check.passed, check.agreeing) == (True, 4), str(check)
    gradient[1] += 0.01
    assert fastnet.check_gradient(net, gradient, (x, t), inputs=True).failed == 1


def test_steps_for_each_entry():
    x = np.array([1e-6, 1.0, 1e6])

    def f(x):
        return float(np.sum(np.sin(x / np.array([1e-6, 1.0, 1e6])))) * 1e-3

    gradient = np.cos(1.0) / np.array([1e-6, 1.0, 1e6]) * 1e-3
    steps = np.array([1e-10, 1e-4, 1e2])
    assert fastnet.check_gradient(f, gradient, x, h=steps).passed
    assert fastnet.check_gradient(lambda p: f(p["x"]), {"x": gradient}, {"x": x}, h={"x": steps}).passed
    wrong = gradient * [1, 1, 1.01]
    assert fastnet.check_gradient(f, gradient * [1.01, 1, 1], x, h=steps).failed == 1
    assert fastnet.check_gradient(lambda p: f(p["x"]), {"x": wrong}, {"x": x}, h={"x": steps}, atol=0.0).failed == 1
    with pytest.raises(ValueError, match=r"h of shape \(2,\) does not fit x of shape \(3,\)"):
        fastnet.check_gradient(f, gradient, x, h=steps[:2])
    with pytest.raises(ValueError, match="h has no 'x'"):
        fastnet.check_gradient(lambda p: f(p["x"]), {"x": gradient}, {"x": x}, h={})


def test_float32_functions_take_steps_that_float32_holds():
    for scale in (1.0, 500.0):
        x = (np.arange(1.0, 6.0) * scale).astype(np.float32)
        check = fastnet.check_gradient(lambda x: np.log(x).sum(), lambda x: 1 / x, x)
        assert check.passed, str(check)
        assert fastnet.check_gradient(lambda x: np.log(x).sum(), lambda x: 1.2 / x, x).failed
