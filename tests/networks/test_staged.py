"""Networks of stages against the same layers one by one: passes, state, differences and training."""

from __future__ import annotations

import copy
import functools

import numpy as np
import pytest

import fastnet
from fastnet import backends, optimizers
from fastnet.backends import TrainingBackend
from fastnet.layers import (
    Affine,
    AveragePooling,
    BatchNorm,
    Convolution,
    Dropout,
    Flatten,
    LeakyReLU,
    MaxPooling,
    ReLU,
    Reshape,
    Sigmoid,
    SoftmaxWithLoss,
    Tanh,
)
from fastnet.networks.layerwise import Layerwise
from fastnet.networks.mixed import Mixed
from fastnet.networks.staged import Staged
from layer_networks import affine, batch_of

KINDS = {
    "norm": {"use_batchnorm": True},
    "dropout": {"dropout_ratio": 0.3},
    "both": {"use_batchnorm": True, "dropout_ratio": 0.4, "weight_decay_lambda": 0.1},
}


@pytest.fixture
def staged(backend):
    return backend


@pytest.fixture
def training(staged):
    if not isinstance(staged, TrainingBackend):
        pytest.skip(f"the {staged.name} backend trains step by step")
    return staged


def network(kind, dtype="float64", activation="tanh", hidden=(5, 7)):
    return fastnet.MultiLayerNet(6, list(hidden), 4, activation=activation, dtype=dtype, seed=0, **KINDS[kind])


def both(kind, dtype, activation):
    net = network(kind, dtype, activation)
    twin = copy.deepcopy(net)
    twin._staged = False
    assert type(net._computation()) is Staged
    assert type(twin._computation()) is Layerwise
    return net, twin


def close(found, expected, dtype, ulps=100):
    scale = max(float(np.abs(np.asarray(e)).max()) for e in expected)
    for left, right in zip(found, expected, strict=True):
        assert np.asarray(left).dtype == np.asarray(right).dtype
        np.testing.assert_allclose(left, right, rtol=0, atol=ulps * np.finfo(dtype).eps * scale)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("activation", ["relu", "leaky_relu", "sigmoid"])
def test_the_same_as_layer_by_layer(staged, dtype, kind, activation):
    net, twin = both(kind, dtype, activation)
    x, t = batch_of(23)
    x = x.astype(dtype)
    for _ in range(3):  # the state goes on from pass to pass
        (loss, gradient), (other_loss, other) = (n.loss_and_gradient(x, t) for n in (net, twin))
        assert list(gradient) == list(other)
        close(gradient.values(), other.values(), dtype)
        close([loss], [other_loss], dtype)
        close([net.training_loss(x, t)], [twin.training_loss(x, t)], dtype)
        assert list(net.state) == list(twin.state)
        close(net.state.values(), twin.state.values(), dtype)
    close([net.loss(x, t), net.accuracy(x, t)], [twin.loss(x, t), twin.accuracy(x, t)], dtype)
    close([net.predict(x), net.predict(x[0])], [twin.predict(x), twin.predict(x[0])], dtype)
    close([net.input_gradient(x, t)], [twin.input_gradient(x, t)], dtype)


@pytest.mark.parametrize("kind", KINDS)
def test_every_algorithm_repeats_the_last_pass(staged, kind):
    net, twin = both(kind, "float64", "tanh")
    x, t = batch_of(9)
    net.gradient(x, t)
    twin.gradient(x, t)
    before = copy.deepcopy((net.params, net.state))
    loop = twin.numerical_gradient(x, t, 1e-4)
    for algorithm in ("auto", *staged.algorithms):
        found = net.numerical_gradient(x, t, 1e-4, algorithm=algorithm)
        assert list(found) == list(net.params)
        for name, gradient in found.items():
            np.testing.assert_allclose(gradient, loop[name], rtol=0, atol=1e-10, err_msg=f"{algorithm} {name}")
        assert found.diagnostics.loss == pytest.approx(loop.diagnostics.loss, rel=1e-14)
        some = net.numerical_gradient(x, t, 1e-4, algorithm=algorithm, names=("W2", "b1"))
        assert list(some) == ["b1", "W2"]
        np.testing.assert_array_equal(some["W2"], found["W2"])
    for now, then in zip((net.params, net.state), before, strict=True):
        for name, array in now.items():
            np.testing.assert_array_equal(array, then[name])
    with pytest.raises(ValueError, match="algorithm must be one of"):
        net.numerical_gradient(x, t, algorithm="fast")


def trained(kind, dtype, fused, gradient, rule="Adam", epochs=2):
    net = network(kind, dtype, hidden=(8, 5))
    rng = np.random.default_rng(5)
    x, t = rng.standard_normal((70, 6)).astype(dtype), rng.integers(0, 4, 70)
    optimizer = getattr(optimizers, rule)(lr=0.01)
    options = {"epochs": 3, "batch_size": 20, "fused": fused, "gradient": gradient, "seed": 3, "progress": False}
    trainer = fastnet.Trainer(net, x, t, optimizer=optimizer, **options)
    trainer.fit(epochs=epochs)
    return trainer, (x, t)


def bits(trainer):
    net = trainer.net
    arrays = net.params | net.state | trainer.optimizer.state_dict()
    return {name: np.asarray(array).tobytes() for name, array in arrays.items()}, list(trainer.history.losses)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("gradient", ["backprop", "numerical"])
@pytest.mark.parametrize("rule", ["SGD", "Momentum", "Adam"])
def test_training_has_the_bits_of_single_steps(training, dtype, kind, gradient, rule):
    (one, data), (other, _) = (trained(kind, dtype, fused, gradient, rule) for fused in (True, False))
    assert bits(one) == bits(other)
    after = [trainer.net.numerical_gradient(*(part[:20] for part in data)) for trainer in (one, other)]
    for name, array in after[0].items():  # both repeat the last pass of the training
        np.testing.assert_array_equal(array, after[1][name])


def test_training_goes_on_from_a_file(training, tmp_path):
    whole, _ = trained("both", "float64", True, "backprop", epochs=3)
    half, _ = trained("both", "float64", True, "backprop", epochs=1)
    half.save(tmp_path / "half.npz")
    again, _ = trained("both", "float64", True, "backprop", epochs=2)  # of another state, which is replaced
    again.load(tmp_path / "half.npz")
    again.fit(epochs=2)
    assert bits(again) == bits(whole)


def test_a_loss_that_is_not_finite_changes_nothing(training):
    net = network("both")
    net.params["W3"][:] = 1e308
    x, t = np.random.default_rng(0).standard_normal((40, 6)), np.arange(40) % 4
    trainer = fastnet.Trainer(net, x, t, epochs=1, batch_size=20, fused=True, progress=False, keep_best=False)
    before = copy.deepcopy(net.params), copy.deepcopy(net.state)
    with np.errstate(all="ignore"), pytest.raises(fastnet.DivergenceError):
        trainer.fit()
    for now, then in zip((net.params, net.state), before, strict=True):
        for name, array in now.items():
            np.testing.assert_array_equal(array, then[name], err_msg=name)


def test_what_has_stages_and_what_has_not(staged):
    rng = np.random.default_rng(0)

    class OwnReLU(ReLU):
        def forward(self, x):
            return super().forward(x)

    def computed(*layers):
        return type(fastnet.Network(layers, SoftmaxWithLoss())._computation())

    norm = BatchNorm(np.ones(5), np.zeros(5))
    assert computed(affine(rng, 6, 5), norm, LeakyReLU(0.2), Dropout(0.1), affine(rng, 5, 3)) is Staged
    assert computed(ReLU(), affine(rng, 6, 5), ReLU(), ReLU(), affine(rng, 5, 3)) is Staged
    assert computed(affine(rng, 6, 5), OwnReLU(), affine(rng, 5, 3)) is Mixed
    assert computed(OwnReLU()) is Layerwise


def test_wrong_shapes_are_reported_by_the_layers(staged):
    net = network("both")
    with pytest.raises(ValueError, match="x has 5 columns for a network of 6 inputs"):
        net.gradient(np.ones((3, 5)), [0, 1, 2])
    net.params["gamma1"] = np.ones(6)
    with pytest.raises(ValueError, match=r"params\['gamma1'\] must have shape \(5,\), not \(6,\)"):
        net.gradient(np.ones((3, 6)), [0, 1, 2])
    loose = fastnet.Network([Dropout(), Affine(np.ones((6, 4)))], SoftmaxWithLoss())
    with pytest.raises(ValueError, match="x has 5 columns for"):
        loose.gradient(np.ones((3, 5)), [0, 1, 2])


def test_statistics_of_another_dtype(staged):
    net, (x, t) = network("norm", "float32"), batch_of(9)
    net.state["running_mean1"] = net.state["running_mean1"].astype("float64")
    net.gradient(x, t)
    assert net.state["running_mean1"].dtype == np.float32


def test_any_number_of_threads(training):
    answers = []
    for threads in (1, 2, 3):
        backends.set_num_threads(threads)
        trainer, _ = trained("both", "float32", True, "backprop")
        answers.append(bits(trainer))
    assert answers[0] == answers[1] == answers[2]


def convolutional(dtype="float64", pooling=MaxPooling, norm=True):
    """A network of flat rows of 2·6·5 numbers, images from the second layer on."""
    rng = np.random.default_rng(0)

    def draw(*shape):
        return (rng.standard_normal(shape) / np.prod(shape[1:]) ** 0.5).astype(dtype)

    layers = [
        Reshape((2, 6, 5)),
        Convolution(draw(3, 2, 3, 2), draw(3), pad=(1, 0)),
        *([BatchNorm(np.ones(3, dtype), np.zeros(3, dtype))] if norm else []),
        Tanh(),
        pooling(2, 2, stride=2),
        Convolution(draw(4, 3, 2, 2), stride=(1, 2), pad=1),
        Sigmoid(),
        Flatten(),
        affine(rng, 32, 7, dtype),
        *([BatchNorm(np.ones(7, dtype), np.zeros(7, dtype))] if norm else []),
        ReLU(),
        Dropout(0.2, seed=1),
        affine(rng, 7, 4, dtype),
    ]
    return fastnet.Network(layers, SoftmaxWithLoss(), 0.1)


@pytest.mark.parametrize("behind", [Convolution, MaxPooling, AveragePooling, BatchNorm])
def test_units_that_become_images(staged, behind):
    """An affine layer moves one unit, and what is behind it takes whole channels."""
    rng = np.random.default_rng(0)
    layer = {
        Convolution: lambda: Convolution(rng.standard_normal((3, 2, 2, 2))),
        MaxPooling: lambda: MaxPooling(2, 2),
        AveragePooling: lambda: AveragePooling(2, 2),
        BatchNorm: lambda: BatchNorm(np.ones(2), np.zeros(2)),
    }[behind]()
    units = {Convolution: 36, BatchNorm: 40}.get(behind, 24)
    stack = [affine(rng, 6, 40), Reshape((2, 4, 5)), layer, Tanh(), Flatten(), affine(rng, units, 4)]
    net = fastnet.Network(stack, SoftmaxWithLoss())
    x, t = batch_of(9)
    assert type(net._computation()) is Staged
    expected = net.gradient(x, t)
    for algorithm in staged.algorithms[:-1]:
        found = net.numerical_gradient(x, t, 1e-9, algorithm=algorithm)
        close(found.values(), expected.values(), "float64", ulps=1000)


@pytest.mark.parametrize("pooling", [MaxPooling, AveragePooling])
@pytest.mark.parametrize("norm", [False, True])
def test_images(staged, dtype, pooling, norm):
    net = convolutional(dtype, pooling, norm)
    twin = copy.deepcopy(net)
    twin._staged = False
    rng = np.random.default_rng(1)
    x, t = rng.standard_normal((9, 60)).astype(dtype), np.arange(9) % 4
    (loss, gradient), (other_loss, other) = (n.loss_and_gradient(x, t) for n in (net, twin))
    assert type(net._computation()) is Staged
    close(gradient.values(), other.values(), dtype, ulps=1000)  # BatchNorm of a unit that hardly varies
    close([loss], [other_loss], dtype)
    close(net.state.values(), twin.state.values(), dtype)
    close([net.predict(x)], [twin.predict(x)], dtype)
    close([net.predict(x.reshape(9, 2, 6, 5))], [net.predict(x)], dtype)
    h = 1e-8 if dtype == "float64" else 1e-4
    close(net.numerical_gradient(x, t, h).values(), gradient.values(), dtype, ulps=1000)
    close([net.input_gradient(x, t)], [twin.input_gradient(x, t)], dtype)


@pytest.mark.parametrize(("pooling", "norm"), [(MaxPooling, True), (AveragePooling, False)])
def test_checks_of_images(staged, dtype, pooling, norm):
    net, rng = convolutional(dtype, pooling, norm), np.random.default_rng(1)
    x, t = rng.standard_normal((9, 60)).astype(dtype), np.arange(9) % 4
    assert fastnet.check_gradient(net, net.gradient, (x, t)).passed


def test_images_that_do_not_fit_are_reported_by_the_layers(staged):
    net = fastnet.Network([Convolution(np.ones((2, 1, 3, 3))), Flatten(), Affine(np.ones((8, 3)))], SoftmaxWithLoss())
    net.gradient(np.ones((2, 1, 4, 4)), [0, 1])
    with pytest.raises(ValueError, match="does not fit into x of shape"):
        net.gradient(np.ones((2, 1, 2, 2)), [0, 1])
    with pytest.raises(ValueError, match="channel"):
        net.gradient(np.ones((2, 3, 4, 4)), [0, 1])


def with_inputs(name, dtype):
    rng = np.random.default_rng(0)
    if name in KINDS:
        net = network(name, dtype, activation="tanh")
    elif name == "norm first":
        norm = BatchNorm(np.ones(6, dtype), np.zeros(6, dtype))
        net = fastnet.Network([norm, Tanh(), affine(rng, 6, 4, dtype)], SoftmaxWithLoss())
    else:
        net = convolutional(dtype, norm="norms" in name)
    x = rng.standard_normal((9, 6 if "images" not in name else 60)).astype(dtype)
    return net, x, np.arange(9) % 4


@functools.cache
def loop_over_inputs(name, dtype, h):
    """Layer by layer, which is slow: once for all backends."""
    net, x, t = with_inputs(name, dtype)
    net._staged = False
    with fastnet.use_backend("numpy"):
        net.input_gradient(x, t)  # the pass that the numerical gradient repeats
        return net.numerical_input_gradient(x, t, h)


@pytest.mark.parametrize("name", [*KINDS, "images", "images with norms", "norm first"])
def test_differences_with_respect_to_the_inputs(staged, name, dtype):
    """Where a loop has no digit left they are those of backprop; and at any step, those of the loop."""
    net, x, t = with_inputs(name, dtype)
    expected = net.input_gradient(x, t)
    before = copy.deepcopy((net.params, net.state))
    fine = 1e-9 if dtype == "float64" else 1e-5
    for algorithm in ("auto", *staged.algorithms[:-1]):
        found = net.numerical_input_gradient(x, t, fine, algorithm=algorithm)
        close([found], [expected], dtype, ulps=1000)
    coarse = 1e-4 if dtype == "float64" else 1e-2
    by_loop = net.numerical_input_gradient(x, t, coarse, algorithm="loop")
    rounding = 20 * np.finfo(dtype).eps / coarse  # of two losses near 1
    np.testing.assert_allclose(by_loop, loop_over_inputs(name, dtype, coarse), rtol=0, atol=rounding)
    for now, then in zip((net.params, net.state), before, strict=True):
        for key, array in now.items():
            np.testing.assert_array_equal(array, then[key])
    one = net.numerical_input_gradient(x[0], t[0], fine)
    assert one.shape == x[0].shape
    assert one.dtype == dtype


def test_differences_with_respect_to_many_rows(staged, monkeypatch):
    """More rows than are moved at a time."""
    monkeypatch.setattr("fastnet.networks.numerical.ROWS_AT_ONCE", 8)
    net = convolutional("float64", norm=False)
    net = fastnet.Network([layer for layer in net.layers if not isinstance(layer, Dropout)], SoftmaxWithLoss())
    x, t = np.random.default_rng(0).standard_normal((20, 2, 6, 5)), np.arange(20) % 4
    close([net.numerical_input_gradient(x, t, 1e-9)], [net.input_gradient(x, t)], "float64", ulps=1000)
