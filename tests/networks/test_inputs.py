"""The gradient with respect to a network's inputs, and regressions."""

from __future__ import annotations

import numpy as np
import pytest

import fastnet
from fastnet.layers import Affine, IdentityWithLoss, Tanh
from layer_networks import affine, batch_of

NETS = {
    "two layers": lambda dtype: fastnet.TwoLayerNet(6, 5, 4, weight_init_std=0.5, dtype=dtype, seed=0),
    "one layer": lambda dtype: fastnet.Network(
        [affine(np.random.default_rng(0), 6, 4, dtype)], fastnet.layers.SoftmaxWithLoss(), 0.3
    ),
    "deep": lambda dtype: fastnet.MultiLayerNet(6, [5, 7], 4, weight_decay_lambda=0.1, dtype=dtype, seed=0),
    "batchnorm and dropout": lambda dtype: fastnet.MultiLayerNet(
        6, [5, 7], 4, use_batchnorm=True, dropout_ratio=0.3, dtype=dtype, seed=0
    ),
}


@pytest.mark.parametrize("name", NETS)
def test_input_gradient(backend, dtype, name, monkeypatch):
    rows = 8
    monkeypatch.setattr("fastnet.networks.numerical.ROWS_AT_ONCE", 6)  # fewer than there are
    net, (x, t) = NETS[name](dtype), batch_of(rows)
    before = x.copy()
    gradient = net.input_gradient(x, t)
    assert gradient.shape == x.shape
    assert gradient.dtype == dtype
    h = {"float64": 1e-4, "float32": 1e-2}[dtype]
    numerical = net.numerical_input_gradient(x, t, h)
    assert numerical.dtype == dtype
    if dtype == "float64":
        assert np.mean(abs(numerical - gradient) < 2e-8 / rows) > 0.9  # some steps meet a kink
    assert fastnet.check_gradient(net, gradient, (x, t), inputs=True).passed
    for wrong in (0.99 * gradient, -gradient, gradient[::-1]):
        assert fastnet.check_gradient(net, wrong, (x, t), inputs=True).failed
    np.testing.assert_array_equal(x, before)
    row = net.input_gradient(x[0], t[0])
    assert row.shape == (6,)
    if name != "batchnorm and dropout":
        np.testing.assert_allclose(row / rows, gradient[0], rtol=1e-4 if dtype == "float32" else 1e-12)


@pytest.mark.parametrize("name", ["two layers", "one layer", "deep"])
def test_every_algorithm_gives_the_same_input_gradient(backend, name):
    net, (x, t) = NETS[name]("float64"), batch_of(9)
    exact = net.input_gradient(x, t)
    for algorithm in ("auto", *backend.algorithms):
        np.testing.assert_allclose(net.numerical_input_gradient(x, t, algorithm=algorithm), exact, rtol=0, atol=1e-8)


def test_mistakes_of_the_check_of_inputs():
    net, (x, t) = NETS["deep"]("float64"), batch_of(9)
    with pytest.raises(ValueError, match=r"gradient of x must have shape \(9, 6\), not \(6, 9\)"):
        fastnet.check_gradient(net, net.input_gradient(x, t).T, (x, t), inputs=True)
    with pytest.raises(TypeError, match="inputs=True is for networks, but f is function"):
        fastnet.check_gradient(lambda x: 0.0, np.zeros(3), np.zeros(3), inputs=True)


def regression(outputs=1, dtype="float64"):
    rng = np.random.default_rng(0)
    return fastnet.Network([affine(rng, 6, 5, dtype), Tanh(), affine(rng, 5, outputs, dtype)], IdentityWithLoss())


@pytest.mark.parametrize("kind", [float, int, np.uint8])
def test_numbers_of_one_output_are_no_labels(backend, dtype, kind):
    net, (x, _) = regression(dtype=dtype), batch_of()
    t = np.arange(20).astype(kind)
    expected = float(((net.predict(x)[:, 0] - np.arange(20)) ** 2).mean() / 2)
    assert net.loss(x, t) == pytest.approx(expected, rel=1e-6)
    assert net.loss(x, t) == net.loss(x, t[:, None])
    assert fastnet.check_gradient(net, net.gradient, (x, t)).passed
    with pytest.raises(ValueError, match="one output, and every row has the same likeliest class: use loss"):
        net.accuracy(x, t)
    trainer = fastnet.Trainer(net, x, t / 20, batch_size=10, epochs=30)
    losses = trainer.fit().losses
    assert trainer.measured == ("loss",)
    assert np.mean(losses[-5:]) < 0.5 * np.mean(losses[:2])


def test_class_labels_do_not_go_with_a_regression():
    x, t = batch_of()
    with pytest.raises(ValueError, match=r"t has shape \(20,\) .* regression of 4 output\(s\): it must be targets of"):
        regression(4).loss(x, t)
    net = regression(4)
    assert net.loss(x, np.eye(4)[t]) > 0
    assert net.accuracy(x, t) == net.accuracy(x, np.eye(4)[t]) == np.mean(net(x).argmax(axis=1) == t)
    with pytest.raises(TypeError, match="class labels must be integers"):
        net.accuracy(x, t * 1.0)
    with pytest.raises(ValueError, match=r"t\[0\] is 4, which is not a label of 4 classes"):
        net.accuracy(x, np.full(20, 4))


def test_a_training_with_images_of_any_rank():
    class Flatten(fastnet.layers.Layer):
        def forward(self, x):
            self.shape = x.shape
            return x.reshape(len(x), -1)

        def backward(self, dout):
            return dout.reshape(self.shape)

    x, t = fastnet.datasets.make_digits(200, seed=0)
    rng = np.random.default_rng(0)
    first, last = Affine(rng.standard_normal((784, 20)) / 28, np.zeros(20)), affine(rng, 20, 10)
    images = x.reshape(-1, 1, 28, 28)
    net = fastnet.Network([Flatten(), first, Tanh(), last], fastnet.layers.SoftmaxWithLoss())
    history = fastnet.Trainer(net, images, t, images, t, batch_size=50, epochs=15).fit()
    assert history["test_accuracy"][-1] > 0.8
    with pytest.raises(ValueError, match="x_train does not fit the network"):
        fastnet.Trainer(fastnet.TwoLayerNet(784, 5, 10), images, t, epochs=1)


def test_the_default_step_is_by_dtype_where_losses_are_subtracted(backend):
    """In float32 the notes' 1e-4 leaves little but rounding; exact differences keep it."""
    x, t = batch_of()
    for make in (
        lambda dtype: fastnet.MultiLayerNet(6, [5], 4, activation="tanh", use_batchnorm=True, dtype=dtype, seed=0),
        lambda dtype: fastnet.TwoLayerNet(6, 5, 4, weight_init_std=0.5, dtype=dtype, seed=0),
    ):
        narrow, wide = make("float32"), make("float64")
        exact = wide.gradient(x, t)
        for algorithm in ("auto", "loop"):
            found = narrow.numerical_gradient(x, t, algorithm=algorithm)
            for name in ("W1", "W2", "b2"):
                assert abs(found[name] - exact[name]).max() < 2e-3 * abs(exact[name]).max(), (algorithm, name)
