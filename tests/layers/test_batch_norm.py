"""BatchNorm: against long double, its backward pass, and the statistics that inference uses."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastnet
from fastnet.layers import BatchNorm

Long = np.longdouble
seeds = st.integers(0, 2**32 - 1)
# Of rows or images of three columns or channels.
SHAPES = [(6, 3), (2, 3, 2, 4), (1, 3, 5, 1), (5, 3, 1, 1)]


def as_rows(x):
    """The numbers of images as rows, with a column for each channel."""
    return x if x.ndim == 2 else np.moveaxis(x, 1, -1).reshape(-1, x.shape[1])


def drawn(shape, dtype="float64", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def long_batch_norm(x, gamma, beta, v):
    """Answer, dx, dgamma, dbeta, mean and biased variance, in long double and by the chain rule, step by step."""
    x, gamma, beta, v = (np.asarray(a, Long) for a in (x, gamma, beta, v))
    n = Long(len(x))
    mean = x.sum(axis=0) / n
    centred = x - mean
    variance = (centred**2).sum(axis=0) / n
    deviation = np.sqrt(variance + Long(1e-6))
    out = gamma * centred / deviation + beta
    dnormal = v * gamma
    dvariance = (dnormal * centred).sum(axis=0) * Long(-0.5) / deviation**3
    dmean = -dnormal.sum(axis=0) / deviation - 2 * dvariance * centred.sum(axis=0) / n
    dx = dnormal / deviation + dvariance * 2 * centred / n + dmean / n
    return out, dx, (v * centred / deviation).sum(axis=0), v.sum(axis=0), mean, variance


@pytest.mark.parametrize("offset", [0, 1000])
@pytest.mark.parametrize("pixels", [None, (3, 2)])
def test_against_long_double(oracle, dtype, offset, pixels):
    """Also where the mean is far from 0: the variance is of the differences from it."""

    @given(st.integers(2, 60), st.integers(1, 4), seeds)
    def check(rows, columns, seed):
        rng = np.random.default_rng(seed)
        shape = (rows, columns, *(pixels or ()))
        x, v = (offset + rng.standard_normal(shape)).astype(dtype), rng.standard_normal(shape).astype(dtype)
        gamma, beta = (rng.standard_normal(columns).astype(dtype) for _ in range(2))
        layer = BatchNorm(gamma, beta)
        found = [as_rows(layer.forward(x)), as_rows(layer.backward(v)), layer.dgamma, layer.dbeta]
        expected = long_batch_norm(as_rows(x), gamma, beta, as_rows(v))
        # Sums of float64, whose terms x - mean lose the digits that the offset has; then a few roundings to dtype.
        lost = 8 * len(as_rows(x)) * 2.0**-53 * (1 + offset / float(np.sqrt(expected[5].min() + 1e-6)))
        scale = max(1.0, float(1 / np.sqrt(expected[5].min() + 1e-6)))
        for answer, exact in zip(found, expected[:4], strict=True):
            assert answer.dtype == dtype
            atol = (6 * np.finfo(dtype).eps + 20 * lost) * scale * max(1, float(abs(exact).max()))
            np.testing.assert_allclose(answer, exact.astype(float), rtol=0, atol=atol)
        # The first pass alone makes the running statistics.
        rtol = 2 * np.finfo(dtype).eps
        np.testing.assert_allclose(layer.running_mean, expected[4].astype(float), rtol=rtol, atol=lost)
        np.testing.assert_allclose(layer.running_var, expected[5].astype(float), rtol=rtol, atol=10 * lost * scale)
        assert layer.running_mean.dtype == layer.running_var.dtype == dtype

    assert oracle.IS_WIDE
    check()


@pytest.mark.parametrize("training", [True, False])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_backward(dtype, training, shape):
    x = drawn(shape, dtype)
    layer = BatchNorm(drawn(3, dtype, 1), drawn(3, dtype, 2))
    layer.forward(2 * x + 1)
    assert fastnet.check_layer(layer, x, train_flg=training, raise_exception=True).passed


@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_images_are_rows_of_channels(dtype, shape):
    one, other = (BatchNorm(drawn(3, dtype, 1), drawn(3, dtype, 2)) for _ in range(2))
    for training in (True, False):
        x, v = drawn(shape, dtype, 3), drawn(shape, dtype, 4)
        pairs = [(one.forward(x, training), other.forward(as_rows(x), training))]
        pairs += [(one.backward(v), other.backward(as_rows(v))), (one.dgamma, other.dgamma), (one.dbeta, other.dbeta)]
        for images, rows in pairs:
            assert images.dtype == dtype
            expected = as_rows(images) if images.ndim > 1 else images
            np.testing.assert_allclose(expected, rows, rtol=0, atol=20 * np.finfo(dtype).eps)


# Running statistics ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0, 0.5, 0.9, 0.999, 1])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_running_statistics_are_averages_of_all_passes(momentum, shape):
    """Pass k of n has the weight momentum^(n − k) over the sum of these: with momentum 1, that is 1/n."""
    layer = BatchNorm(np.ones(3), np.zeros(3), momentum)
    means, variances = [], []
    for n in range(1, 6):
        x = 3 + n * drawn(shape, seed=n)
        layer.forward(x)
        means.append(as_rows(x).mean(axis=0))
        variances.append(as_rows(x).var(axis=0))
        weights = np.array([float(momentum) ** (n - k) for k in range(1, n + 1)])
        weights /= weights.sum()
        np.testing.assert_allclose(layer.running_mean, weights @ means, rtol=1e-12)
        np.testing.assert_allclose(layer.running_var, weights @ variances, rtol=1e-12)
        np.testing.assert_array_equal(layer.passes, [n])
        assert layer.passes.dtype == np.int64


def test_given_running_statistics_go_on_from_there(dtype):
    mean, variance = np.array([1, -1, 0], dtype), np.array([1, 2, 0], dtype)
    layer = BatchNorm(np.ones(3, dtype), np.zeros(3, dtype), 0.75, running_mean=mean, running_var=variance)
    assert layer.passes is None
    assert set(layer.state) == {"running_mean", "running_var"}
    x = drawn((20, 3), dtype)
    expected = (x - mean) / np.sqrt(variance + 1e-6)
    np.testing.assert_allclose(layer.forward(x, train_flg=False), expected, rtol=1e-6)
    layer.forward(x)
    rtol = 4 * np.finfo(dtype).eps
    wide = x.astype(float)
    for found, given_one, batch in (
        (layer.running_mean, mean, wide.mean(axis=0)),
        (layer.running_var, variance, wide.var(axis=0)),
    ):
        np.testing.assert_allclose(found, 0.75 * given_one + 0.25 * batch, rtol=rtol, atol=rtol)
        assert found.dtype == dtype
    np.testing.assert_array_equal(mean, [1, -1, 0])  # the given arrays are copied
    np.testing.assert_array_equal(variance, [1, 2, 0])


def test_inference_uses_the_running_statistics_and_leaves_them_alone():
    layer = BatchNorm(np.array([2.0, 1.0]), np.array([0.0, 1.0]))
    at_first = layer.forward([[3.0, -1.0]], train_flg=False)  # with mean 0 and variance 1
    np.testing.assert_allclose(at_first, np.array([[6, -1]]) / np.sqrt(1 + 1e-6) + [0, 1], rtol=0, atol=1e-15)
    x = np.random.default_rng(0).normal([3, -1], [2, 0.5], (20, 2))
    layer.forward(x)
    before = copy.deepcopy(layer.state)
    answer = layer.forward([[3.0, -1.0]], train_flg=False)
    expected = np.array([2, 1]) * ([3, -1] - x.mean(axis=0)) / np.sqrt(x.var(axis=0) + 1e-6) + [0, 1]
    np.testing.assert_allclose(answer, [expected], rtol=1e-13)
    for name, array in before.items():
        np.testing.assert_array_equal(layer.state[name], array)


def test_inference_serves_from_the_first_pass_on():
    """After one training pass, inference on its batch gives what training gave."""
    layer, x = BatchNorm(np.ones(3), np.zeros(3)), 5 + 9 * drawn((8, 3, 2, 2))
    np.testing.assert_allclose(layer.forward(x), layer.forward(x, train_flg=False), rtol=1e-12)


def test_columns_and_batches_without_variance(dtype):
    layer = BatchNorm(np.array([2, 3], dtype), np.array([5, 7], dtype))
    for x in ([[1.0, 2.0]], [[4.0, 2.0]] * 6):
        np.testing.assert_array_equal(layer.forward(x), [[5, 7]] * len(x))
        np.testing.assert_array_equal(layer.backward(np.ones((len(x), 2))), np.zeros((len(x), 2)))


def test_in_networks_of_images():
    """The statistics of each channel are saved, loaded and checked like those of columns; also as the first layer."""

    def net():
        layers = [
            BatchNorm(np.ones(2), np.zeros(2)),
            fastnet.layers.Convolution(drawn((3, 2, 2, 2)), np.zeros(3)),
            BatchNorm(np.ones(3), np.zeros(3)),
            fastnet.layers.ReLU(),
            fastnet.layers.Flatten(),
        ]
        return fastnet.Network(layers, fastnet.layers.SoftmaxWithLoss())

    one, x, t = net(), drawn((5, 2, 2, 3)), np.array([0, 1, 2, 5, 4])
    assert fastnet.check_gradient(one, one.gradient, (x, t)).passed
    assert one.state["passes2"].tolist() == [1]
    assert one.predict(x).shape == (5, 6)
    with pytest.raises(ValueError, match=r"x has 3 channel\(s\) for BatchNorm of 2"):
        one.predict(np.ones((1, 3, 2, 3)))
