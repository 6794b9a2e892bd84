"""`fastnet.book.common`: functions, layers, optimizers and helpers against the formulas of the book in plain NumPy."""

from __future__ import annotations

import numpy as np
import pytest

import fastnet
from fastnet.book.common import functions, gradient, layers, optimizer, util

RNG = np.random.default_rng(0)


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def cross_entropy(y, labels):
    return -np.log(y[np.arange(len(y)), labels] + 1e-7).mean()


# Functions ------------------------------------------------------------------------------------------------

X = np.array([[-3.0, -0.5, 0.0], [0.5, 2.0, 40.0]])


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("identity_function", X),
        ("step_function", [[0, 0, 0], [1, 1, 1]]),
        ("sigmoid", 1 / (1 + np.exp(-X))),
        ("sigmoid_grad", np.exp(-X) / (1 + np.exp(-X)) ** 2),
        ("relu", np.maximum(X, 0)),
        ("relu_grad", [[0, 0, 1], [1, 1, 1]]),
        ("softmax", softmax(X)),
    ],
)
def test_functions(name, expected):
    x = X.copy()
    found = getattr(functions, name)(x)
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    assert found.dtype == (int if name == "step_function" else float)
    np.testing.assert_array_equal(x, X)
    np.testing.assert_allclose(getattr(functions, name)(x[0]), found[0], rtol=1e-14)


def test_functions_of_half_precision():
    assert functions.sigmoid(np.float16(0)) == 0.5
    np.testing.assert_allclose(functions.softmax(X.astype(np.float16)), softmax(X), atol=1e-3)
    assert functions.step_function(np.nan) == 0


def test_losses():
    y, labels = softmax(RNG.standard_normal((4, 3))), np.array([0, 2, 1, 1])
    expected = cross_entropy(y, labels)
    for t in (labels, labels.astype(np.uint8), labels[:, np.newaxis], np.eye(3)[labels]):
        assert functions.cross_entropy_error(y, t) == pytest.approx(expected, rel=1e-14)
        assert functions.softmax_loss(np.log(y), t) == pytest.approx(expected, rel=1e-14)
    assert functions.cross_entropy_error(y[0], np.array([1, 0, 0])) == pytest.approx(-np.log(y[0, 0] + 1e-7))
    assert functions.sum_squared_error(y, np.eye(3)[labels]) == pytest.approx(
        0.5 * np.sum((y - np.eye(3)[labels]) ** 2)
    )
    with pytest.raises(ValueError, match=r"y has shape \(4, 3\), but t has \(4,\)"):
        functions.sum_squared_error(y, labels)
    with pytest.raises(ValueError, match="4 row"):
        functions.cross_entropy_error(y, labels[:3])


def test_gradients():
    x = np.array([[3.0, 4.0], [0.0, 2.0]])
    np.testing.assert_allclose(gradient.numerical_gradient(lambda x: np.sum(x**2), x), 2 * x, atol=1e-9)
    np.testing.assert_allclose(gradient.numerical_gradient_2d(lambda x: np.sum(x**2), x), 2 * x, atol=1e-9)
    np.testing.assert_allclose(gradient._numerical_gradient_1d(lambda x: np.sum(x**2), x[0]), 2 * x[0], atol=1e-9)
    with pytest.raises(ValueError, match=r"shape \(n,\), not \(2, 2\)"):
        gradient.numerical_gradient_1d(np.sum, x)


# Layers ---------------------------------------------------------------------------------------------------


def test_relu():
    relu = layers.Relu()
    assert relu.mask is None
    np.testing.assert_array_equal(relu.forward(X), np.maximum(X, 0))
    np.testing.assert_array_equal(relu.mask, X <= 0)
    dout = np.ones_like(X)
    np.testing.assert_array_equal(relu.backward(dout), X > 0)
    assert dout.all()  # the book's backward changes it


def test_sigmoid():
    sigmoid = layers.Sigmoid()
    assert sigmoid.out is None
    np.testing.assert_allclose(sigmoid.forward(X), 1 / (1 + np.exp(-X)))
    np.testing.assert_allclose(sigmoid.backward(X), X * sigmoid.out * (1 - sigmoid.out), atol=1e-15)


def test_affine_takes_rows_and_images():
    W, b = RNG.standard_normal((12, 4)), RNG.standard_normal(4)
    affine, x, d = layers.Affine(W, b), RNG.standard_normal((5, 3, 2, 2)), RNG.standard_normal((5, 4))
    assert affine.x is affine.original_x_shape is affine.dW is affine.db is None
    for shape in ((5, 3, 2, 2), (5, 12)):
        given, rows = x.reshape(shape), x.reshape(5, 12)
        np.testing.assert_allclose(affine.forward(given), rows @ W + b, rtol=1e-12)
        np.testing.assert_allclose(affine.backward(d), (d @ W.T).reshape(shape), rtol=1e-12)
        np.testing.assert_allclose(affine.dW, rows.T @ d, rtol=1e-12)
        np.testing.assert_allclose(affine.db, d.sum(axis=0), rtol=1e-12)
        np.testing.assert_array_equal(affine.x, rows)
        assert affine.original_x_shape == shape
    with pytest.raises(ValueError, match="x has 11 columns"):
        affine.forward(x.reshape(5, 12)[:, 1:])
    assert affine.original_x_shape == (5, 12)


def test_softmax_with_loss():
    x, labels = RNG.standard_normal((4, 3)), np.array([0, 2, 1, 1])
    for t in (labels, labels[:, np.newaxis], np.eye(3)[labels]):
        last = layers.SoftmaxWithLoss()
        assert last.loss is last.y is last.t is None
        assert last.forward(x, t) == pytest.approx(cross_entropy(softmax(x), labels), rel=1e-14)
        np.testing.assert_allclose(last.y, softmax(x))
        # The book's derivative leaves out the 1e-7 of the logarithm.
        np.testing.assert_allclose(last.backward(), (softmax(x) - np.eye(3)[labels]) / 4, atol=1e-6)


def test_dropout_draws_from_numpy_and_scales_in_inference():
    x, d = RNG.standard_normal((50, 20)), RNG.standard_normal((50, 20))
    dropout = layers.Dropout(0.3)
    assert dropout.mask is None
    np.random.seed(1)
    mask = np.random.rand(50, 20) > 0.3
    np.random.seed(1)
    np.testing.assert_array_equal(dropout.forward(x), x * mask)
    np.testing.assert_array_equal(dropout.mask, mask)
    np.testing.assert_array_equal(dropout.backward(d), d * mask)
    np.testing.assert_allclose(dropout.forward(x, train_flg=False), x * 0.7)
    np.testing.assert_allclose(dropout.backward(d), d * 0.7)
    assert layers.Dropout().dropout_ratio == 0.5
    with pytest.raises(ValueError, match="dropout_ratio must be at least 0 and less than 1, not 1"):
        layers.Dropout(1)


def batch_norm(x, gamma, beta):
    return gamma * (x - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-6) + beta


@pytest.mark.parametrize("shape", [(6, 8), (6, 2, 2, 2)])
def test_batch_normalization(shape):
    x, gamma, beta = RNG.standard_normal(shape), RNG.standard_normal(8), RNG.standard_normal(8)
    norm, rows = layers.BatchNormalization(gamma, beta), x.reshape(6, 8)
    np.testing.assert_array_equal(norm.running_mean, np.zeros(8))
    np.testing.assert_array_equal(norm.running_var, np.zeros(8))
    np.testing.assert_allclose(norm.forward(x), batch_norm(rows, gamma, beta).reshape(shape), rtol=1e-10)
    assert (norm.batch_size, norm.input_shape, norm.momentum) == (6, shape, 0.9)
    np.testing.assert_allclose(norm.running_mean, 0.1 * rows.mean(axis=0), rtol=1e-10)
    np.testing.assert_allclose(norm.running_var, 0.1 * rows.var(axis=0), rtol=1e-10)
    normal = (rows - norm.running_mean) / np.sqrt(norm.running_var + 1e-6)
    np.testing.assert_allclose(norm.forward(x, train_flg=False), (gamma * normal + beta).reshape(shape), rtol=1e-10)
    norm.forward(x)
    d = RNG.standard_normal(shape)
    expected = gradient.numerical_gradient(lambda x: np.sum(d * norm.forward(x)), x)
    norm.forward(x)
    np.testing.assert_allclose(norm.backward(d), expected, rtol=1e-5, atol=1e-7)
    np.testing.assert_allclose(norm.dbeta, d.reshape(6, 8).sum(axis=0), rtol=1e-10)
    np.testing.assert_allclose(norm.dgamma, (d.reshape(6, 8) * batch_norm(rows, 1, 0)).sum(axis=0), rtol=1e-10)


def test_batch_normalization_starts_where_it_is_told():
    mean, var = np.arange(3.0), np.arange(1.0, 4.0)
    norm = layers.BatchNormalization(np.ones(3), np.zeros(3), 0.5, running_mean=mean, running_var=var)
    x = RNG.standard_normal((4, 3))
    np.testing.assert_allclose(norm.forward(x, False), (x - mean) / np.sqrt(var + 1e-6), rtol=1e-12)
    norm.forward(x)
    np.testing.assert_allclose(norm.running_mean, 0.5 * mean + 0.5 * x.mean(axis=0), rtol=1e-12)
    np.testing.assert_array_equal(mean, np.arange(3.0))
    with pytest.raises(ValueError, match="running_mean"):
        layers.BatchNormalization(np.ones(3), np.zeros(3), running_mean=np.zeros(2), running_var=np.ones(3))


def test_naive_layers():
    from fastnet.book.ch05.layer_naive import AddLayer, MulLayer

    mul, add = MulLayer(), AddLayer()
    assert mul.forward(100, 2) == 200
    assert mul.backward(1.5) == (3.0, 150.0)
    assert add.forward(200, 450) == 650
    assert add.backward(1.1) == (1.1, 1.1)


# Helpers --------------------------------------------------------------------------------------------------


def test_smooth_curve():
    x = RNG.standard_normal(40)
    window = np.kaiser(11, 2)
    window /= window.sum()
    found = util.smooth_curve(list(x))
    np.testing.assert_allclose(found[5:35], [window @ x[i - 5 : i + 6] for i in range(5, 35)])
    assert len(found) == 40
    assert found[0] == pytest.approx(window @ x[[5, 4, 3, 2, 1, 0, 1, 2, 3, 4, 5]])
    assert found[-1] == pytest.approx(window @ x[[-6, -5, -4, -3, -2, -1, -1, -2, -3, -4, -5]])
    np.testing.assert_allclose(util.smooth_curve(np.ones(1)), [1.0])
    with pytest.raises(ValueError, match="x must have shape"):
        util.smooth_curve([])


def test_shuffle_dataset():
    for shape in ((6, 2), (6, 1, 2, 2)):
        x, t = np.arange(6)[(...,) + (np.newaxis,) * (len(shape) - 1)] * np.ones(shape), np.arange(6)
        np.random.seed(2)
        order = np.random.permutation(6)
        np.random.seed(2)
        shuffled, labels = util.shuffle_dataset(x, t)
        np.testing.assert_array_equal(labels, order)
        np.testing.assert_array_equal(shuffled, x[order])
    with pytest.raises(ValueError, match="t has 5 rows for the 6 rows of x"):
        util.shuffle_dataset(x, t[:5])


# Optimizers -----------------------------------------------------------------------------------------------


def sgd(p, g, k, s):
    return p - 0.1 * g


def momentum(p, g, k, s):
    s["v"] = 0.9 * s.get("v", 0) - 0.1 * g
    return p + s["v"]


def nesterov(p, g, k, s):
    s["v"] = 0.9 * s.get("v", 0) - 0.1 * g
    return p + 0.9 * s["v"] - 0.1 * g


def adagrad(p, g, k, s):
    s["h"] = s.get("h", 0) + g * g
    return p - 0.1 * g / (np.sqrt(s["h"]) + 1e-7)


def rmsprop(p, g, k, s):
    s["h"] = 0.99 * s.get("h", 0) + 0.01 * g * g
    return p - 0.1 * g / (np.sqrt(s["h"]) + 1e-7)


def adam(p, g, k, s):
    s["m"] = 0.9 * s.get("m", 0) + 0.1 * g
    s["v"] = 0.999 * s.get("v", 0) + 0.001 * g * g
    return p - 0.1 * np.sqrt(1 - 0.999**k) / (1 - 0.9**k) * s["m"] / (np.sqrt(s["v"]) + 1e-7)


RULES = {"SGD": sgd, "Momentum": momentum, "Nesterov": nesterov, "AdaGrad": adagrad, "RMSprop": rmsprop, "Adam": adam}


@pytest.mark.parametrize("name", RULES)
def test_optimizers_of_arrays_and_of_numbers(name):
    of_arrays, of_numbers = (getattr(optimizer, name)(lr=0.1) for _ in range(2))
    p = RNG.standard_normal(3)
    params = {"W": p.copy()}
    same = params["W"]
    numbers = {"x": float(p[0]), "y": p[1]}
    state: dict[str, object] = {}
    for k in range(1, 6):
        g = 10.0 ** -RNG.integers(0, 8, 3) * RNG.standard_normal(3)  # small ones show what is added to the root
        p = RULES[name](p, g, k, state)
        of_arrays.update(params, {"W": g, "more": g})
        of_numbers.update(numbers, {"x": float(g[0]), "y": g[1]})
        np.testing.assert_allclose(params["W"], p, rtol=1e-9)
        np.testing.assert_allclose([numbers["x"], numbers["y"]], p[:2], rtol=1e-9)
    assert params["W"] is same
    assert all(isinstance(number, float) for number in numbers.values())
    for attribute, expected in state.items():
        np.testing.assert_allclose(getattr(of_arrays, attribute)["W"], expected, rtol=1e-9)
    assert name != "Adam" or of_arrays.iter == 5


def test_optimizers_have_no_state_at_first():
    assert optimizer.Momentum().v is optimizer.Nesterov().v is optimizer.AdaGrad().h is optimizer.RMSprop().h is None
    assert optimizer.Adam().m is optimizer.Adam().v is None
    assert optimizer.Adam().iter == 0


@pytest.mark.parametrize(
    ("params", "grads", "error", "message"),
    [
        ({"x": "a"}, {"x": 1.0}, TypeError, r"params\['x'\] must be a number, not str"),
        ({"x": 1.0, "y": 1.0}, {"x": 1.0}, ValueError, "'y' missing"),
        ({"x": np.ones(2)}, {"x": np.ones(3)}, ValueError, r"grads\['x'\] has shape"),
        ([1.0], {"x": 1.0}, TypeError, "params must be a dict, not list"),
        ({"x": 1.0}, 1.0, TypeError, "grads must be a dict, not float"),
        ({"x": np.ones(2, np.float16)}, {"x": np.ones(2)}, TypeError, r"params\['x'\] must be float32 or float64"),
    ],
)
def test_wrong_arguments_change_nothing(params, grads, error, message):
    before = dict(params) if isinstance(params, dict) else params[:]
    with pytest.raises(error, match=message):
        optimizer.Adam().update(params, grads)
    assert params == before or np.array_equal(params["x"], before["x"])


def test_they_are_optimizers_of_fastnet():
    net = fastnet.TwoLayerNet(784, 5, 10, seed=0)
    x, t = fastnet.datasets.make_digits(20, seed=0)
    before = net.loss(x, t)
    fastnet.Trainer(net, x, t, optimizer=optimizer.Adam(lr=0.01), batch_size=10, epochs=3).fit()
    assert net.loss(x, t) < before
