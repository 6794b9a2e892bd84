"""Convolution: against its definition in nested loops, its backward pass, and its mistakes."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

import fastnet
from fastnet.layers import Convolution, convolution
from fastnet.layers.patches import as_windows

# The size of the filters, the stride and the pad; images are 5 high and 4 wide.
WINDOWS = [
    *itertools.product([(1, 1), (2, 2), (3, 2)], [1, 2], [0, 1]),
    ((3, 3), (2, 1), (1, 2)),
    ((1, 2), (3, 2), (0, 1)),
    ((5, 4), 1, 0),
    ((7, 6), (3, 1), (1, 2)),
    ((2, 2), 7, 3),
]
windows = pytest.mark.parametrize(("size", "stride", "pad"), WINDOWS, ids=str)


def drawn(rng, shape, dtype="float64"):
    return rng.standard_normal(shape).astype(dtype)


def padded(x, pad, value):
    """The images in long double, with `value` around them."""
    up, left = (pad, pad) if isinstance(pad, int) else pad
    return np.pad(x.astype(np.longdouble), [(0, 0), (0, 0), (up, up), (left, left)], constant_values=value)


def steps(length, size, stride):
    return range(0, length - size + 1, stride)


def by_definition(x, W, b, stride, pad):
    """Every number of the output is a sum of products over one window."""
    down, across = (stride, stride) if isinstance(stride, int) else stride
    image = padded(x, pad, 0)
    rows, columns = steps(image.shape[2], W.shape[2], down), steps(image.shape[3], W.shape[3], across)
    out = np.empty((len(x), len(W), len(rows), len(columns)), np.longdouble)
    for n, f, (i, top), (j, left) in itertools.product(
        range(len(x)), range(len(W)), enumerate(rows), enumerate(columns)
    ):
        window = image[n, :, top : top + W.shape[2], left : left + W.shape[3]]
        out[n, f, i, j] = (window * W[f].astype(np.longdouble)).sum() + (0 if b is None else b[f])
    return out


@windows
@pytest.mark.parametrize("biased", [True, False])
def test_forward(dtype, size, stride, pad, biased):
    rng = np.random.default_rng(0)
    x, weight = drawn(rng, (2, 3, 5, 4), dtype), drawn(rng, (4, 3, *size), dtype)
    b = drawn(rng, 4, dtype) if biased else None
    layer = Convolution(weight, b, stride, pad)
    out = layer.forward(x)
    expected = by_definition(x, weight, b, stride, pad)
    assert out.shape == expected.shape
    assert out.dtype == dtype
    terms = weight[0].size + 1
    scale = by_definition(abs(x), abs(weight), None if b is None else abs(b), stride, pad).astype(float)
    assert (abs(out - expected) <= terms * np.finfo(dtype).eps * (scale + 1e-300)).all()


@windows
@pytest.mark.parametrize("biased", [True, False])
def test_backward(dtype, size, stride, pad, biased):
    rng = np.random.default_rng(1)
    layer = Convolution(drawn(rng, (3, 2, *size), dtype), drawn(rng, 3, dtype) if biased else None, stride, pad)
    check = fastnet.check_layer(layer, drawn(rng, (2, 2, 5, 4), dtype), raise_exception=True)
    assert check.passed


@windows
def test_backward_is_the_adjoint(size, stride, pad):
    """Without a bias, forward is linear in x and in W: ⟨forward(u), v⟩ = ⟨u, backward(v)⟩, and so for W and dW."""
    rng = np.random.default_rng(2)
    layer = Convolution(drawn(rng, (3, 2, *size)), None, stride, pad)
    x = drawn(rng, (2, 2, 5, 4))
    out = layer.forward(x)
    v = drawn(rng, out.shape)
    dx = layer.backward(v)
    product, scale = (out * v).sum(), abs(out * v).sum()
    assert (x * dx).sum() == pytest.approx(product, abs=1e-13 * scale)
    assert (layer.W * layer.dW).sum() == pytest.approx(product, abs=1e-13 * scale)
    assert layer.db is None


@windows
def test_images_is_the_adjoint_of_columns(size, stride, pad):
    rng = np.random.default_rng(3)
    places, x = as_windows(size, stride, pad), drawn(rng, (2, 3, 5, 4))
    columns = places.columns(x)
    down, across = places.counts(x.shape)
    assert columns.shape == (2 * down * across, 3 * size[0] * size[1])
    c = drawn(rng, columns.shape)
    images = places.images(c, x.shape)
    assert images.shape == x.shape
    assert (columns * c).sum() == pytest.approx((x * images).sum(), abs=1e-13 * abs(columns * c).sum())


def test_large_batches_are_computed_in_parts(monkeypatch):
    rng = np.random.default_rng(4)
    layer, x = Convolution(drawn(rng, (3, 2, 3, 3)), drawn(rng, 3), pad=1), drawn(rng, (7, 2, 5, 4))
    out = layer.forward(x)
    v = drawn(rng, out.shape)
    whole = [out, layer.backward(v), layer.dW, layer.db]
    for at_once in (1, 2 * 20 * 18, 5 * 20 * 18):  # one, two and five images
        monkeypatch.setattr(convolution, "NUMBERS_AT_ONCE", at_once)
        parts = [layer.forward(x), layer.backward(v), layer.dW, layer.db]
        for one, other in zip(parts, whole, strict=True):
            np.testing.assert_allclose(one, other, rtol=0, atol=1e-13)


def test_what_the_layer_says():
    layer = Convolution(np.ones((3, 2, 5, 4)), np.zeros(3), stride=(2, 3), pad=1)
    assert (layer.stride, layer.pad) == ((2, 3), (1, 1))
    assert layer.decayed == ("W",)
    assert layer.widths() is None
    assert layer.W is layer.params["W"]
    assert layer.forward(np.ones((1, 2, 28, 28))).shape == (1, 3, 13, 9)
    layer.params = {"W": np.zeros((3, 2, 5, 4)), "b": np.ones(3)}  # as a network does before each pass
    np.testing.assert_array_equal(layer.forward(np.ones((1, 2, 5, 4)))[0, :, 0, 0], np.ones(3))


def test_the_weights_decay_in_a_network():
    rng = np.random.default_rng(5)
    layers = [Convolution(drawn(rng, (2, 1, 2, 2)), np.zeros(2)), fastnet.layers.Flatten()]
    nets = [fastnet.Network(layers, fastnet.layers.SoftmaxWithLoss(), decay) for decay in (0.0, 0.5)]
    x, t = drawn(rng, (3, 1, 2, 3)), [0, 1, 3]
    plain, decayed = (net.gradient(x, t) for net in nets)
    np.testing.assert_allclose(decayed["W1"] - plain["W1"], 0.5 * nets[0].params["W1"], rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(decayed["b1"], plain["b1"])


FILTERS = np.ones((3, 2, 3, 2))
IMAGES = np.ones((1, 2, 5, 4))
MISTAKES = [
    (lambda: Convolution([[[[1.0]]]]), TypeError, "W must be a NumPy array, not list"),
    (lambda: Convolution(np.ones((1, 1, 2, 2), int)), TypeError, "W must be float32 or float64, not int64"),
    (lambda: Convolution(np.ones((3, 3))), ValueError, "W must have 4 dimension(s), none of them 0, not (3, 3)"),
    (lambda: Convolution(np.ones((3, 1, 0, 2))), ValueError, "W must have 4 dimension(s), none of them 0, not (3, 1"),
    (lambda: Convolution(FILTERS, np.ones(2)), ValueError, "b must have shape (3,) for W of shape (3, 2, 3, 2), not"),
    (lambda: Convolution(FILTERS, np.ones(3, "f4")), TypeError, "b is float32, but W is float64"),
    (lambda: Convolution(FILTERS, [0.0] * 3), TypeError, "b must be a NumPy array, not list"),
    (lambda: Convolution(FILTERS, stride=0), ValueError, "stride must be at least 1, not 0"),
    (lambda: Convolution(FILTERS, stride=(1, -2)), ValueError, "stride[1] must be at least 1, not -2"),
    (lambda: Convolution(FILTERS, stride=1.0), TypeError, "stride must be an integer, not float"),
    (lambda: Convolution(FILTERS, stride=(1, 1, 1)), ValueError, "stride must be an integer or a pair (vertical, hor"),
    (lambda: Convolution(FILTERS, stride="2"), TypeError, "stride must be an integer, not str"),
    (lambda: Convolution(FILTERS, pad=-1), ValueError, "pad must be at least 0, not -1"),
    (lambda: Convolution(FILTERS, pad=(True, 1)), TypeError, "pad[0] must be an integer, not bool"),
    (lambda: Convolution(FILTERS).forward(IMAGES[0]), ValueError, "x must have shape (batch, channels, height, width)"),
    (lambda: Convolution(FILTERS).forward(np.ones((1, 40))), ValueError, "put Reshape((channels, height, width)) bef"),
    (lambda: Convolution(FILTERS).forward(IMAGES[:0]), ValueError, "x of shape (0, 2, 5, 4) is an empty batch"),
    (lambda: Convolution(FILTERS).forward(IMAGES[:, :, :0]), ValueError, "x of shape (1, 2, 0, 4) holds no pixels"),
    (lambda: Convolution(FILTERS).forward(IMAGES[:, :1]), ValueError, "x has 1 channel(s) for filters of shape (3, 2"),
    (
        lambda: Convolution(FILTERS).forward(IMAGES[:, :, :2]),
        ValueError,
        "a window of 3×2 does not fit into x of shape (1, 2, 2, 4) with pad 0 above and below, and 0 on the left",
    ),
    (
        lambda: Convolution(np.ones((1, 2, 3, 9)), pad=(9, 2)).forward(IMAGES),
        ValueError,
        "a window of 3×9 does not fit into x of shape (1, 2, 5, 4) with pad 9 above and below, and 2 on the left",
    ),
]


@pytest.mark.parametrize(("call", "error", "message"), MISTAKES, ids=[message for _, _, message in MISTAKES])
def test_mistakes(call, error, message):
    with pytest.raises(error) as caught:
        call()
    assert caught.type is error
    assert message in str(caught.value)
