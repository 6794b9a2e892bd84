"""Layers of one's own among the library's: the same as layer by layer, and exact differences behind them."""

from __future__ import annotations

import copy

import numpy as np
import pytest

import fastnet
from fastnet.layers import (
    BatchNorm,
    Convolution,
    Dropout,
    Flatten,
    IdentityWithLoss,
    L1Loss,
    Layer,
    LossLayer,
    MaxPooling,
    ReLU,
    SoftmaxWithLoss,
    Tanh,
)
from fastnet.networks.layerwise import Layerwise
from fastnet.networks.mixed import Mixed
from layer_networks import affine, assert_same, batch_of, snapshot


class Scale(Layer):
    """x·factors, of rows or of images."""

    def __init__(self, factors):
        self.params = {"factors": factors}

    def forward(self, x):
        self.x = x
        return x * self.params["factors"]

    def backward(self, dout):
        self.grads = {"factors": (dout * self.x).sum(axis=0)}
        return dout * self.params["factors"]


class OwnSquaredError(LossLayer):
    """½·Σ(x − t)² of the rows, averaged."""

    regression = True

    def forward(self, x, t):
        self.difference = (x - t) / len(x)
        return 0.5 * np.square(x - t).sum() / len(x)

    def backward(self, dout):
        return dout * self.difference


@pytest.fixture
def parts(backend):
    return backend


def norm(units, dtype):
    return BatchNorm(np.ones(units, dtype), np.zeros(units, dtype))


def network(kind, dtype="float64"):
    rng = np.random.default_rng(0)
    first, second = Scale(np.linspace(0.5, 2, 5).astype(dtype)), Scale(np.linspace(2, 0.5, 4).astype(dtype))
    before = [affine(rng, 6, 5, dtype), norm(5, dtype), Tanh(), Dropout(0.3, seed=1)]
    behind = [affine(rng, 5, 7, dtype), norm(7, dtype), ReLU(), affine(rng, 7, 4, dtype)]
    stack = {
        "middle": [*before, first, *behind],
        "first": [Scale(np.linspace(0.5, 2, 6).astype(dtype)), *before, *behind],
        "last": [*before, *behind, second],
        "several": [*before, first, affine(rng, 5, 5, dtype), Scale(np.ones(5, dtype)), *behind],
        "own loss": [*before, *behind],
    }[kind]
    loss = OwnSquaredError() if kind == "own loss" else SoftmaxWithLoss()
    return fastnet.Network(stack, loss, weight_decay_lambda=0.1)


def images(dtype="float64"):
    rng = np.random.default_rng(0)
    filters = [(rng.standard_normal(shape) / 3).astype(dtype) for shape in ((3, 1, 3, 3), (2, 3, 2, 2))]
    stack = [
        Convolution(filters[0], pad=1),
        norm(3, dtype),
        ReLU(),
        Scale(rng.standard_normal((3, 6, 6)).astype(dtype)),
    ]
    stack += [MaxPooling(2, 2, stride=2), Convolution(filters[1], np.zeros(2, dtype)), Tanh(), Flatten()]
    return fastnet.Network([*stack, affine(rng, 8, 4, dtype)], SoftmaxWithLoss(), 0.1)


KINDS = ("middle", "first", "last", "several", "own loss")
BEHIND = {  # the names of the parameters behind the last layer of one's own
    "middle": ["W2", "b2", "gamma2", "beta2", "W3", "b3"],
    "first": ["W1", "b1", "gamma1", "beta1", "W2", "b2", "gamma2", "beta2", "W3", "b3"],
    "last": [],
    "several": ["W3", "b3", "gamma2", "beta2", "W4", "b4"],
    "own loss": [],
}


def both(kind, dtype="float64"):
    """The network, the same computed layer by layer, and a batch."""
    net = images(dtype) if kind == "images" else network(kind, dtype)
    twin = copy.deepcopy(net)
    twin._mixed = False
    assert type(net._computation()) is Mixed
    assert type(twin._computation()) is Layerwise
    rng = np.random.default_rng(1)
    x = rng.standard_normal((9, 1, 6, 6) if kind == "images" else (9, 6)).astype(dtype)
    t = rng.standard_normal((9, 4)).astype(dtype) if kind == "own loss" else np.arange(9) % 4
    return net, twin, (x, t)


def assert_close(found, expected, dtype, ulps=500):
    """Close relative to the largest number of all."""
    assert list(found) == list(expected)
    scale = max(float(np.abs(array).max()) for array in expected.values())
    for name, array in found.items():
        assert np.asarray(array).dtype == np.asarray(expected[name]).dtype, name
        atol = ulps * np.finfo(dtype).eps * scale
        np.testing.assert_allclose(array, expected[name], rtol=0, atol=atol, err_msg=name)


@pytest.mark.parametrize("kind", [*KINDS, "images"])
def test_the_same_as_layer_by_layer(parts, dtype, kind):
    net, twin, (x, t) = both(kind, dtype)
    for _ in range(3):  # the state goes on from pass to pass
        (loss, gradient), (other_loss, other) = (n.loss_and_gradient(x, t) for n in (net, twin))
        assert loss == pytest.approx(other_loss, rel=50 * float(np.finfo(dtype).eps))
        assert_close(gradient, other, dtype)
        assert_close(net.state, twin.state, dtype)
        assert net.training_loss(x, t) == pytest.approx(twin.training_loss(x, t), rel=50 * float(np.finfo(dtype).eps))
    assert net.loss(x, t) == pytest.approx(twin.loss(x, t), rel=50 * float(np.finfo(dtype).eps))
    assert_close({"y": net.predict(x)}, {"y": twin.predict(x)}, dtype)
    assert_close({"x": net.input_gradient(x, t)}, {"x": twin.input_gradient(x, t)}, dtype)
    assert net.layers[0].params.keys() == twin.layers[0].params.keys()


def algorithms_behind(kind, backend):
    """What `auto` takes: the first algorithm for the last two affine layers, behind which one norm at most follows."""
    affine_names = [name for name in BEHIND[kind] if name[0] in "Wb" and not name.startswith("beta")][-4:]
    return {name: backend.algorithms[0] if name in affine_names else "incremental" for name in BEHIND[kind]}


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_behind_has_exact_differences(parts, kind):
    """At a step where the loop has no digit left, they have all. The answer says what was computed how."""
    net, twin, (x, t) = both(kind)
    gradient = net.gradient(x, t)
    twin.gradient(x, t)
    before, exact = snapshot(net), BEHIND[kind]
    expected = twin.numerical_gradient(x, t, 1e-4)
    for algorithm in ("auto", "loop"):
        found = net.numerical_gradient(x, t, 1e-4, algorithm=algorithm)
        assert_same(net, before)
        assert_close(found, expected, "float64", ulps=5e6)  # the loop's rounding, and kinks
        by = dict.fromkeys(net.params, "loop") | ({} if algorithm == "loop" else algorithms_behind(kind, parts))
        assert found.algorithms == by
        assert found.diagnostics.loss == pytest.approx(expected.diagnostics.loss, rel=1e-14)
    for algorithm in (*parts.algorithms[:-1], "auto"):
        if exact:
            fine = net.numerical_gradient(x, t, 1e-9, algorithm=algorithm, names=exact)
            assert_close(fine, {name: gradient[name] for name in exact}, "float64")
            incremental = dict.fromkeys(exact, "incremental")
            assert fine.algorithms == (incremental if algorithm == "incremental" else algorithms_behind(kind, parts))
            assert fine.diagnostics.evaluations > 0
        if algorithm != "auto":
            who = "the loss, OwnSquaredError," if kind == "own loss" else r"layers\[\d\], Scale,"
            with pytest.raises(
                ValueError, match=f"algorithm '{algorithm}' .* act through {who} which it does not know"
            ):
                net.numerical_gradient(x, t, algorithm=algorithm)


def test_the_passes_of_a_numerical_gradient(parts):
    """An own layer sees a batch for each parameter in it and before it, twice, and none for those behind it."""
    calls = []

    class Counted(Scale):
        def forward(self, x):
            calls.append(x.shape)
            return super().forward(x)

    rng = np.random.default_rng(0)
    stack = [affine(rng, 6, 5), ReLU(), Counted(np.ones(5)), affine(rng, 5, 4)]
    net = fastnet.Network(stack, SoftmaxWithLoss())
    x, t = batch_of(8)
    net.numerical_gradient(x, t, names=("W2", "b2"))
    few = len(calls)
    assert few <= 3
    calls.clear()
    net.numerical_gradient(x, t)
    assert len(calls) == 2 * (6 * 5 + 5 + 5) + few


def test_state_of_a_run(parts):
    """Masks and statistics go on as layer by layer, whatever is given as the state."""
    net, twin, (x, t) = both("middle", "float32")
    for n in (net, twin):
        n.state["running_mean1"] = n.state["running_mean1"].astype("float64")
        n.gradient(x, t)
    assert net.state["running_mean1"].dtype == np.float32
    assert [net.state["masks1"].tolist(), net.state["passes1"].tolist()] == [
        twin.state["masks1"].tolist(),
        twin.state["passes1"].tolist(),
    ]


def test_checks_and_training(parts):
    """A right gradient passes; a wrong one behind or before the own layer fails; an optimizer makes it learn."""
    for kind in ("middle", "own loss", "images"):
        net, _, (x, t) = both(kind)
        assert fastnet.check_gradient(net, net.gradient, (x, t)).passed, kind
        for name in ("W1", "W2") if kind == "middle" else ():
            wrong = net.gradient(x, t)
            wrong[name] = wrong[name] * 1.01
            assert not fastnet.check_gradient(net, wrong, (x, t)).passed, (kind, name)
    net, twin, _ = both("middle")
    rng = np.random.default_rng(3)
    x = rng.standard_normal((60, 6))
    t = (x[:, 0] > 0).astype(int) + 2 * (x[:, 1] > 0)
    histories = []
    for n in (net, twin):
        trainer = fastnet.Trainer(
            n, x, t, optimizer=fastnet.optimizers.Adam(lr=0.02), epochs=8, batch_size=10, seed=0, progress=False
        )
        histories.append(trainer.fit().losses)
    np.testing.assert_allclose(*histories, rtol=1e-6)
    assert net.accuracy(x, t) > 0.8


def test_shapes_that_do_not_fit_are_reported_by_the_layers(parts):
    class Narrow(Layer):
        def forward(self, x):
            return x[:, :3]

        def backward(self, dout):
            return np.pad(dout, [(0, 0), (0, 2)])

    class Wrong(Narrow):
        def backward(self, dout):
            return dout[:, :1]

    rng, (x, t) = np.random.default_rng(0), batch_of(8)
    last = [affine(rng, 5, 7), ReLU(), affine(rng, 7, 4)]
    net = fastnet.Network([affine(rng, 6, 5), ReLU(), Narrow(), *last], SoftmaxWithLoss())
    for call in (net.predict, lambda x: net.gradient(x, t), lambda x: net.numerical_gradient(x, t)):
        with pytest.raises(ValueError, match="x has 3 columns for"):
            call(x)
    net = fastnet.Network([affine(rng, 6, 5), ReLU(), Wrong(), affine(rng, 3, 4)], IdentityWithLoss())
    with pytest.raises(ValueError, match=r"dout must have the shape of the output of forward, \(8, 5\), not \(8, 1\)"):
        net.gradient(x, np.zeros((8, 4)))


@pytest.mark.parametrize("algorithm", ["nodal", "incremental"])
def test_kinks_of_the_loss_are_counted(parts, algorithm):
    """An answer that is nearer to its target than a step: the absolute error's kink lies between the moves."""
    if algorithm not in parts.algorithms:
        pytest.skip(f"the {parts.name} backend has no {algorithm}")
    rng = np.random.default_rng(0)
    net = fastnet.Network([affine(rng, 6, 5), norm(5, "float64"), Tanh(), affine(rng, 5, 4)], L1Loss())
    x = rng.standard_normal((8, 6))
    t = rng.standard_normal((8, 4)) * 9
    assert net.numerical_gradient(x, t, 1e-5, algorithm=algorithm).diagnostics.kinks == 0
    y = x
    for layer in copy.deepcopy(net.layers):
        y = layer.forward(y)
    t[2, 1] = y[2, 1] + 1e-7
    found = net.numerical_gradient(x, t, 1e-5, algorithm=algorithm)
    assert found.diagnostics.kinks >= 6  # the bias of that output and its five weights
    assert fastnet.check_gradient(net, net.gradient, (x, t), h=1e-5).passed
    row = fastnet.compare_gradients(net, x, t, h=1e-5, methods=[algorithm], repeat=1)[algorithm]
    assert row.check.passed
    assert row.check.excused > 0
