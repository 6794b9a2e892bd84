"""Pooling, and the layers that reshape: against their definitions in nested loops, backward passes, and mistakes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import fastnet
from fastnet.layers import AveragePooling, Flatten, MaxPooling, Reshape

# The size of the windows, the stride and the pad; images are 5 high and 4 wide.
WINDOWS = [
    *itertools.product([(2, 2), (3, 2)], [1, 2, 3], [0, 1]),
    ((1, 1), 1, 0),
    ((3, 3), (2, 1), (1, 2)),
    ((2, 1), (1, 3), (1, 0)),
    ((5, 4), 1, 0),
    ((7, 6), 2, (6, 5)),
]
windows = pytest.mark.parametrize(("size", "stride", "pad"), WINDOWS, ids=str)
KINDS = [MaxPooling, AveragePooling]


def pair(value):
    return (value, value) if isinstance(value, int) else value


def by_definition(kind, x, size, stride, pad):
    """For each window in row order: its number, and the share of dout that each of its elements has."""
    (down, across), (up, left) = pair(stride), pair(pad)
    height, width = x.shape[2:]
    rows = range(-up, height + up - size[0] + 1, down)
    columns = range(-left, width + left - size[1] + 1, across)
    out = np.empty((*x.shape[:2], len(rows), len(columns)), np.longdouble)
    shares = np.zeros((*out.shape, height, width))
    for n, c, (i, top), (j, first) in itertools.product(*map(range, x.shape[:2]), enumerate(rows), enumerate(columns)):
        places = [
            (row, column)
            for row in range(max(0, top), min(height, top + size[0]))
            for column in range(max(0, first), min(width, first + size[1]))
        ]
        values = [x[n, c][place].astype(np.longdouble) for place in places]
        if kind is AveragePooling:
            out[n, c, i, j] = sum(values) / (size[0] * size[1])
            for place in places:
                shares[n, c, i, j][place] = 1 / (size[0] * size[1])
        else:
            winner = 0
            for k, value in enumerate(values):
                if value > values[winner] or (np.isnan(value) and not np.isnan(values[winner])):
                    winner = k
            out[n, c, i, j] = values[winner]
            shares[n, c, i, j][places[winner]] = 1
    return out, shares


def images(dtype, content):
    rng = np.random.default_rng(0)
    shape = (2, 3, 5, 4)
    values = {
        "normal": lambda: rng.standard_normal(shape),
        "negative": lambda: -1 - rng.random(shape),
        "ties": lambda: rng.integers(-1, 2, shape),
        "nan": lambda: rng.choice([np.nan, -np.inf, np.inf, 1, 2], shape),
        "-inf": lambda: np.full(shape, -np.inf),
    }[content]()
    return values.astype(dtype)


@windows
@pytest.mark.parametrize("content", ["normal", "negative", "ties", "nan", "-inf"])
def test_max_pooling(dtype, size, stride, pad, content):
    """The padding never wins, a NaN does, and the first of equal ones has the derivative: all of it, to the bit."""
    x, layer = images(dtype, content), MaxPooling(*size, stride, pad)
    out = layer.forward(x)
    expected, shares = by_definition(MaxPooling, x, size, stride, pad)
    assert out.dtype == dtype
    np.testing.assert_array_equal(out, expected.astype(dtype))
    v = np.random.default_rng(1).integers(-9, 9, out.shape).astype(dtype)  # whose sums are exact
    dx = layer.backward(v)
    assert dx.dtype == dtype
    np.testing.assert_array_equal(dx, np.einsum("ncij,ncijhw->nchw", v, shares))


@windows
def test_average_pooling(dtype, size, stride, pad):
    x, layer = images(dtype, "normal"), AveragePooling(*size, stride, pad)
    out = layer.forward(x)
    expected, shares = by_definition(AveragePooling, x, size, stride, pad)
    assert out.shape == expected.shape
    assert out.dtype == dtype
    eps = np.finfo(dtype).eps
    np.testing.assert_allclose(out, expected.astype(float), rtol=0, atol=2 * eps)
    v = np.random.default_rng(1).standard_normal(out.shape).astype(dtype)
    dx = layer.backward(v)
    assert dx.dtype == dtype
    terms = out.shape[2] * out.shape[3] + 1
    np.testing.assert_allclose(dx, np.einsum("ncij,ncijhw->nchw", v, shares), rtol=0, atol=4 * terms * eps)


@windows
@pytest.mark.parametrize("kind", KINDS)
def test_backward(dtype, kind, size, stride, pad):
    check = fastnet.check_layer(kind(*size, stride, pad), images(dtype, "normal"), raise_exception=True)
    assert check.passed


@pytest.mark.parametrize("x", [np.zeros((1, 1, 4, 4)), np.ones((1, 2, 3, 3)) + 1e-9 * np.arange(9).reshape(3, 3)])
def test_near_ties_do_not_decide_a_check(x):
    """The smooth branch keeps its winners, so the step may cross a kink."""
    assert fastnet.check_layer(MaxPooling(2, 2, 1), x).passed


@pytest.mark.parametrize("kind", KINDS)
def test_what_the_layer_says(kind):
    layer = kind(3, 2, stride=(2, 1), pad=1)
    assert (layer.window, layer.stride, layer.pad) == ((3, 2), (2, 1), (1, 1))
    assert layer.widths() is None
    assert layer.params == {}
    assert kind(2, 2).stride == (1, 1)
    assert kind(2, 2, 2).forward(np.ones((1, 1, 5, 7))).shape == (1, 1, 2, 3)


def test_the_average_counts_the_padding_as_zeros():
    np.testing.assert_array_equal(AveragePooling(2, 2, 1, 1).forward([[[[4.0]]]]), [[[[1, 1], [1, 1]]]])


def test_a_network_with_a_wrong_pooling_is_told_so():
    class WrongPooling(MaxPooling):
        def backward(self, dout):
            return 2 * super().backward(dout)

    rng = np.random.default_rng(0)
    right, wrong = (
        fastnet.Network(
            [
                fastnet.layers.Convolution(rng.standard_normal((2, 1, 3, 3)), np.zeros(2)),
                kind(2, 2, 2),
                Flatten(),
                fastnet.layers.Affine(rng.standard_normal((8, 3)), np.zeros(3)),
            ],
            fastnet.layers.SoftmaxWithLoss(),
        )
        for kind in (MaxPooling, WrongPooling)
    )
    x, t = rng.standard_normal((4, 1, 6, 6)), [0, 1, 2, 0]
    assert fastnet.check_gradient(right, right.gradient, (x, t)).passed
    check = fastnet.check_gradient(wrong, wrong.gradient, (x, t))
    assert check.failed
    assert "layers[1], WrongPooling" in str(check)


@pytest.mark.parametrize("shape", [(2, 3), (2, 3, 4), (2, 1, 3, 4)])
def test_flatten(dtype, shape):
    x = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
    layer = Flatten()
    out = layer.forward(x)
    np.testing.assert_array_equal(out, x.reshape(2, -1))
    dx = layer.backward(2 * out)
    np.testing.assert_array_equal(dx, 2 * x)
    assert out.dtype == dx.dtype == dtype
    assert fastnet.check_layer(layer, x).passed


@pytest.mark.parametrize("given", [(2, 12), (2, 1, 3, 4)])
def test_reshape(dtype, given):
    x = np.arange(24).reshape(given).astype(dtype)
    layer = Reshape((1, 3, 4))
    assert layer.shape == (1, 3, 4)
    out = layer.forward(x)
    np.testing.assert_array_equal(out, x.reshape(2, 1, 3, 4))
    dx = layer.backward(2 * out)
    np.testing.assert_array_equal(dx, 2 * x)
    assert out.dtype == dx.dtype == dtype
    assert fastnet.check_layer(layer, x).passed


IMAGE = np.ones((1, 2, 5, 4))
MISTAKES = [
    *(
        mistake
        for kind in KINDS
        for mistake in [
            (lambda kind=kind: kind(0, 2), ValueError, "pool_h must be at least 1, not 0"),
            (lambda kind=kind: kind(2, 2.0), TypeError, "pool_w must be an integer, not float"),
            (lambda kind=kind: kind(2, 2, 0), ValueError, "stride must be at least 1, not 0"),
            (lambda kind=kind: kind(2, 2, (1, -1)), ValueError, "stride[1] must be at least 1, not -1"),
            (lambda kind=kind: kind(2, 2, pad=-1), ValueError, "pad must be at least 0, not -1"),
            (lambda kind=kind: kind(2, 3, pad=2), ValueError, "pad must be less than pool_h, 2, not 2"),
            (lambda kind=kind: kind(3, 2, pad=2), ValueError, "pad must be less than pool_w, 2, not 2"),
            (lambda kind=kind: kind(2, 2, pad=[0, 0, 0]), ValueError, "pad must be an integer or a pair (vertical, ho"),
            (lambda kind=kind: kind(2, 2).forward(IMAGE[0]), ValueError, "x must have shape (batch, channels, height"),
            (lambda kind=kind: kind(2, 2).forward(IMAGE[:0]), ValueError, "x of shape (0, 2, 5, 4) is an empty batch"),
            (lambda kind=kind: kind(2, 2).forward(IMAGE[:, :0]), ValueError, "x of shape (1, 0, 5, 4) holds no pixels"),
            (lambda kind=kind: kind(6, 2).forward(IMAGE), ValueError, "a window of 6×2 does not fit into x of shape"),
        ]
    ),
    (lambda: Flatten().forward([1.0, 2.0]), ValueError, "x must have shape (batch, …), not (2,)"),
    (lambda: Reshape(12), TypeError, "shape must be a tuple of integers, not int"),
    (lambda: Reshape(()), ValueError, "shape is empty"),
    (lambda: Reshape((3, -1)), ValueError, "shape[1] must be at least 1, not -1"),
    (lambda: Reshape((3, 4)).forward(np.ones((2, 11))), ValueError, "x must have shape (batch, 12) or (batch, 3, 4), "),
    (lambda: Reshape((3, 4)).forward(1.0), ValueError, "x must have shape (batch, 12) or (batch, 3, 4), not ()"),
]


@pytest.mark.parametrize(("call", "error", "message"), MISTAKES)
def test_mistakes(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert caught.type is error
    assert message in str(caught.value)
