"""`MultiLayerNet`: its layers, their names and their first weights."""

from __future__ import annotations

import numpy as np
import pytest

import fastnet
from fastnet.layers import Affine, BatchNorm, Dropout, IdentityWithLoss, ReLU, SoftmaxWithLoss
from layer_networks import batch_of

NAMES = ("identity", "step", "sigmoid", "tanh", "relu", "leaky_relu")


def test_names_and_shapes(dtype):
    net = fastnet.MultiLayerNet(7, [5, 6], 3, use_batchnorm=True, dropout_ratio=0.5, dtype=dtype, seed=0)
    assert {name: p.shape for name, p in net.params.items()} == {
        "W1": (7, 5),
        "b1": (5,),
        "gamma1": (5,),
        "beta1": (5,),
        "W2": (5, 6),
        "b2": (6,),
        "gamma2": (6,),
        "beta2": (6,),
        "W3": (6, 3),
        "b3": (3,),
    }
    assert {name: a.shape for name, a in net.state.items()} == {
        "running_mean1": (5,),
        "running_var1": (5,),
        "passes1": (1,),
        "masks1": (3,),
        "running_mean2": (6,),
        "running_var2": (6,),
        "passes2": (1,),
        "masks2": (3,),
    }
    assert all(p.dtype == dtype for p in net.params.values())
    kinds = [Affine, BatchNorm, ReLU, Dropout] * 2 + [Affine]
    assert [type(layer) for layer in net.layers] == kinds
    assert type(net.last_layer) is SoftmaxWithLoss
    assert not any(net.params[name].any() for name in ("b1", "b2", "b3", "beta1", "beta2"))
    assert (net.params["gamma1"] == 1).all()


STDS = {"he": 2, "relu": 2, "He": 2, "xavier": 1, "sigmoid": 1}


@pytest.mark.parametrize("std", [*STDS, 0.3, 0])
def test_the_scale_of_the_weights(std):
    net = fastnet.MultiLayerNet(400, [300, 200], 100, weight_init_std=std, seed=0)
    for name, inputs in (("W1", 400), ("W2", 300), ("W3", 200)):
        W = net.params[name]
        wanted = np.sqrt(STDS[std] / inputs) if isinstance(std, str) else std
        # The sample standard deviation of n normal numbers is within 5 of its own standard errors, 1/sqrt(2n).
        assert W.std() == pytest.approx(wanted, rel=5 / np.sqrt(2 * W.size))
        assert abs(W.mean()) <= 5 * wanted / np.sqrt(W.size)


def test_seeds():
    x, t = batch_of(classes=3)
    nets = [
        fastnet.MultiLayerNet(6, [5], 3, dropout_ratio=0.5, use_batchnorm=batchnorm, seed=seed)
        for batchnorm, seed in ((False, 7), (False, 7), (True, 7), (False, 8), (False, None), (False, None))
    ]
    grads = [net.gradient(x, t) for net in nets]
    for name in ("W1", "W2"):
        for k, same in ((1, True), (2, True), (3, False), (4, False)):
            assert np.array_equal(nets[0].params[name], nets[k].params[name]) == same
        assert not np.array_equal(nets[4].params[name], nets[5].params[name])
        np.testing.assert_array_equal(grads[0][name], grads[1][name])
    plain = fastnet.MultiLayerNet(6, [5], 3, seed=7)
    np.testing.assert_array_equal(plain.params["W2"], nets[0].params["W2"])
    single = fastnet.MultiLayerNet(6, [5], 3, seed=7, dtype="float32")
    np.testing.assert_array_equal(single.params["W1"], plain.params["W1"].astype(np.float32))


@pytest.mark.parametrize("name", NAMES)
def test_activations_by_name(backend, name):
    functions = {"relu": fastnet.relu, "leaky_relu": fastnet.leaky_relu, "sigmoid": fastnet.sigmoid}
    functions |= {"tanh": fastnet.tanh, "step": fastnet.step_function, "identity": fastnet.identity_function}
    net = fastnet.MultiLayerNet(6, [5], 4, activation=name, seed=0)
    x, _ = batch_of()
    hidden = functions[name](x @ net.params["W1"] + net.params["b1"])
    expected = fastnet.softmax(hidden @ net.params["W2"] + net.params["b2"])
    np.testing.assert_allclose(net.predict(x), expected, rtol=1e-13)


def test_running_statistics_to_go_on_from(backend, dtype):
    """Those of a trained network, and PyTorch's start; each pass then moves them by a tenth."""
    x, t = batch_of()
    options = {"use_batchnorm": True, "dtype": dtype, "seed": 0}
    trained = fastnet.MultiLayerNet(6, [5, 7], 4, **options)
    trained.gradient(x, t)
    running = {name: [trained.state[f"{name}{k}"] for k in (1, 2)] for name in ("running_mean", "running_var")}
    again = fastnet.MultiLayerNet(6, [5, 7], 4, **options, **running)
    np.testing.assert_array_equal(again(x), trained(x))
    assert again.params["W1"].dtype == again.state["running_mean1"].dtype == dtype
    again.gradient(x, t)  # of the same batch: their mean stays where it is
    np.testing.assert_allclose(again.state["running_mean2"], running["running_mean"][1], rtol=1e-4, atol=1e-6)
    as_pytorch = fastnet.MultiLayerNet(6, [5, 7], 4, **options, running_mean=[0, 0], running_var=[1, np.ones(7)])
    as_pytorch.gradient(x, t)
    tenth = {"running_mean": running["running_mean"][0] / 10, "running_var": 0.9 + running["running_var"][0] / 10}
    for name, expected in tenth.items():
        np.testing.assert_allclose(as_pytorch.state[f"{name}1"], expected, rtol=1e-5, atol=1e-6)


def test_losses_by_name(backend):
    x, t = batch_of()
    classes, regression = (
        fastnet.MultiLayerNet(6, [5], 4, use_batchnorm=True, loss=name, seed=0)
        for name in ("cross_entropy", "mean_squared_error")
    )
    assert [type(net.last_layer) for net in (classes, regression)] == [SoftmaxWithLoss, IdentityWithLoss]
    np.testing.assert_allclose(fastnet.softmax(regression(x)), classes(x), rtol=1e-13)
    targets = np.random.default_rng(0).standard_normal((len(x), 4))
    expected = fastnet.mean_squared_error(regression(x), targets)
    assert regression.loss(x, targets) == pytest.approx(expected, rel=1e-14)
    assert classes.loss(x, t) == pytest.approx(fastnet.cross_entropy_error(classes(x), t), rel=1e-14)
    assert fastnet.check_gradient(regression, regression.gradient, (x, targets)).passed


def test_a_call_is_predict(backend):
    for net in (fastnet.TwoLayerNet(6, 5, 4, seed=0), fastnet.MultiLayerNet(6, [5], 4, dropout_ratio=0.5, seed=0)):
        for x in (batch_of()[0], np.ones(6)):
            np.testing.assert_array_equal(net(x), net.predict(x))

    class Reversed(fastnet.TwoLayerNet):
        def predict(self, x):
            return super().predict(x)[..., ::-1]

    x = batch_of()[0]
    np.testing.assert_array_equal(Reversed(6, 5, 4, seed=0)(x), fastnet.TwoLayerNet(6, 5, 4, seed=0)(x)[:, ::-1])


def test_weight_decay(backend, dtype):
    x, t = batch_of()
    for batchnorm in (False, True):
        plain, decayed = (
            fastnet.MultiLayerNet(6, [5], 4, weight_decay_lambda=decay, use_batchnorm=batchnorm, dtype=dtype, seed=0)
            for decay in (0, 0.5)
        )
        penalty = 0.25 * sum(float((plain.params[name].astype(float) ** 2).sum()) for name in ("W1", "W2"))
        assert decayed.loss(x, t) == pytest.approx(plain.loss(x, t) + penalty, rel=1e-14)
        assert decayed.training_loss(x, t) == pytest.approx(plain.training_loss(x, t) + penalty, rel=1e-14)
        without = plain.gradient(x, t)
        for name, gradient in decayed.gradient(x, t).items():
            share = 0.5 * plain.params[name] if name[0] == "W" else 0  # biases, gamma and beta are not decayed
            # Two roundings: of the product (exact for 0.5) and of the sum.
            atol = 2 * np.finfo(dtype).eps * max(abs(gradient).max(), abs(without[name]).max())
            np.testing.assert_allclose(gradient, without[name] + share, rtol=0, atol=atol)
