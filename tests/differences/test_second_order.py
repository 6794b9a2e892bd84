"""The Hessian's diagonal by second differences, and its products with vectors, against more digits."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import pytest

import fastnet
from chains import COMPILED, chain, off, two_layers
from differences_in_many_digits import exact_gradient
from fastnet import backends
from fastnet.backends._numpy import second_order
from fastnet.backends.spec import Activation, Loss, NetworkSpec, Output
from fastnet.networks.chain import as_chain

ANSWERS = [(Output.SOFTMAX, loss) for loss in (Loss.CROSS_ENTROPY, Loss.MEAN_SQUARED_ERROR, Loss.HUBER)]
ANSWERS += [(Output.IDENTITY, loss) for loss in Loss if loss != Loss.CROSS_ENTROPY]
STEPS = (2.0**-30, 2.0**-17, 2.0**-7, 0.25, 2.0)  # the same number in both dtypes
CASES = list(enumerate(itertools.product(Activation, ANSWERS)))
# Relative to the largest entry: the roundings of the forward pass, of some forty operations on each move, and of the
# sum over the rows; in float32 the weights' roundings are none, because both dtypes have the same weights.
UNITS = 100


# The other backends compute it by the reference.
own = pytest.mark.parametrize("backend", [name for name in COMPILED if name != "numba"] + ["numpy"], indirect=True)


def diagonal(spec, x, t, h):
    """The diagonal as a network computes it on the backend in use."""
    backend = backends.active()
    compute = (backend if hasattr(backend, "hessian_diagonal") else second_order).hessian_diagonal
    return compute(spec, x, t, h)


@functools.cache
def case(number):
    """A chain with that activation, answer, depth and step, its batch, and the exact second differences."""
    kind, answer = CASES[number][1]
    depth, h = 1 + number % 3, STEPS[number % len(STEPS)]
    other = Activation(number * 7 % 10) if number % 2 else kind
    spec = chain([3, *[3] * (depth - 1), 2], [*[kind] * (depth - 1), other if depth > 1 else kind], "float32", answer)
    spec = NetworkSpec.chain(
        [layer.weight for layer in spec.layers],
        [layer.bias for layer in spec.layers],
        [layer.activation for layer in spec.layers],
        *answer,
        weight_decay=0.125 * (number % 2),
        constants=[0.25] * depth,
        loss_constant=0.5,
    )
    rng = np.random.default_rng(number)
    x = rng.choice([0, 1, -0.5, 0.25, 0.8], (2, 3)).astype("float32")
    t = (
        rng.integers(0, 2, 2)
        if answer[1] == Loss.CROSS_ENTROPY and number % 3
        else rng.random((2, 2)).astype("float32")
    )
    return spec, x, t, h, exact_gradient(spec, x, t, h, 60, second=True)


def in_dtype(dtype, spec, x, t):
    wide = spec.with_parameters(p.astype(dtype) for p in spec.parameters)
    return wide, x.astype(dtype), t if t.ndim == 1 else t.astype(dtype)


@own
@pytest.mark.parametrize("number", range(len(CASES)))
def test_every_activation_and_loss(backend, dtype, number):
    spec, x, t, h, exact = case(number)
    found, _ = diagonal(*in_dtype(dtype, spec, x, t), h)
    assert [d.dtype for d in found] == [dtype] * len(found)
    largest = max(abs(e).max() for e in exact)
    if largest == 0:
        assert all((d == 0).all() for d in found)
    else:
        assert off(found, exact) <= UNITS * np.finfo(dtype).eps


@pytest.mark.parametrize("h", [1e-90, 1e-8, 1e-5])
def test_reference(core, h):
    """On digits, where one moves many pixels at once, against the reference at the same step."""
    net = fastnet.MultiLayerNet(784, [5, 4], 3, activation="sigmoid", seed=0)
    x, t = fastnet.datasets.make_digits(6, seed=0)
    spec = as_chain(net).spec
    expected, _ = second_order.hessian_diagonal(spec, x[:, :784].astype(float), t % 3, h)
    found, _ = core.hessian_diagonal(spec, x.astype(float), t % 3, h)
    assert off(found, expected) < 1e-13


@own
def test_fallbacks(backend):
    """At a long step the polynomial misses, and at a kink it is not tried: the moves are evaluated one by one."""
    if not hasattr(backend, "hessian_diagonal"):
        pytest.skip("the reference has no polynomial")
    spec = chain([6, 5, 4, 3], [Activation.TANH, Activation.RELU, Activation.IDENTITY])
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((7, 6)), rng.integers(0, 3, 7)
    for h, misses in ((0.3, True), (1e-3, False)):
        found, diagnostics = backend.hessian_diagonal(spec, x, t, h)
        expected, of_reference = second_order.hessian_diagonal(spec, x, t, h)
        assert off(found, expected) < 1e-13
        assert (diagnostics.fallbacks > 0) >= misses
        for kinked, wanted in zip(diagnostics.kinked, of_reference.kinked, strict=True):
            assert (kinked >= wanted).all()
    assert diagnostics.loss == pytest.approx(of_reference.loss)


def test_kink():
    """At a kink it is what the definition says: half a unit's slope of each side, over h."""
    spec = NetworkSpec.chain((np.array([[0.0]]),), (None,), (Activation.RELU,), Output.IDENTITY, Loss.ABSOLUTE_ERROR)
    for name in ("cpp", "numpy"):
        if name in backends.available():
            with fastnet.use_backend(name):
                (found,), diagnostics = diagonal(spec, np.array([[1.0]]), np.array([[-1.0]]), 2.0**-20)
            assert found[0, 0] == 2.0**20
            assert diagnostics.kinked[0].all()


def test_bits_do_not_depend_on_threads(core, with_threads):
    spec = as_chain(two_layers()).spec
    x, t = fastnet.datasets.make_digits(100, seed=0)
    found = []
    for count in (1, 2, 3):
        with_threads(count)
        found.append(core.hessian_diagonal(spec, x.astype(float), t, 1e-5)[0])
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_array_equal(a, b)


# Products with vectors ------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", range(0, len(CASES), 3))
def test_product_is_the_derivative_of_backprop(dtype, number):
    """Against backprop at both ends of a step, with Richardson's extrapolation, in float64."""
    spec, x, t = in_dtype(dtype, *case(number)[:3])
    rng = np.random.default_rng(number)
    v = [rng.standard_normal(p.shape).astype(dtype) for p in spec.parameters]
    found = second_order.hessian_vector_product(spec, x, t, v)
    wide, wide_x, wide_t = in_dtype("float64", spec, x, t)

    def slope(h):
        ends = [
            backends.get("numpy").gradient(
                wide.with_parameters(p + sign * h * d for p, d in zip(wide.parameters, v, strict=True)), wide_x, wide_t
            )
            for sign in (1, -1)
        ]
        return [(above - below) / (2 * h) for above, below in zip(*ends, strict=True)]

    h = 2.0**-11
    expected = [(4 * fine - coarse) / 3 for fine, coarse in zip(slope(h / 2), slope(h), strict=True)]
    assert [p.dtype for p in found] == [dtype] * len(found)
    scale = max(1e-3, max(abs(e).max() for e in expected))
    for product, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(product, wanted, rtol=0, atol=scale * (1e-9 if dtype == "float64" else 1e-5))


def test_product_and_diagonal_agree(backend):
    net = fastnet.MultiLayerNet(5, [4, 3], 3, activation="sigmoid", weight_decay_lambda=0.1, seed=0)
    rng = np.random.default_rng(0)
    x, t = rng.standard_normal((6, 5)), rng.integers(0, 3, 6)
    found = net.hessian_diagonal(x, t, 1e-7)
    largest = max(abs(d).max() for d in found.values())
    for name, parameter in net.params.items():
        for at in itertools.islice(np.ndindex(parameter.shape), 3):
            v = {other: np.zeros(p.shape) for other, p in net.params.items()}
            v[name][at] = 1
            product = net.hessian_vector_product(x, t, v)
            assert abs(product[name][at] - found[name][at]) < 1e-13 * largest


def test_symmetry():
    net = fastnet.TwoLayerNet(6, 5, 4, seed=0)
    rng = np.random.default_rng(1)
    x, t = rng.standard_normal((8, 6)), rng.integers(0, 4, 8)
    u, v = ({name: rng.standard_normal(p.shape) for name, p in net.params.items()} for _ in range(2))
    one, other = net.hessian_vector_product(x, t, v), net.hessian_vector_product(x, t, u)
    left = sum((u[name] * one[name]).sum() for name in u)
    assert left == pytest.approx(sum((v[name] * other[name]).sum() for name in v), rel=1e-12)


# Bad input ------------------------------------------------------------------------------------------------


@pytest.fixture
def small():
    net = fastnet.TwoLayerNet(3, 4, 2, seed=0)
    return net, np.ones((2, 3)), np.array([0, 1])


@pytest.mark.parametrize(
    ("h", "error", "message"),
    [
        (0, ValueError, "h must be positive, not 0"),
        (-1e-4, ValueError, "h must be positive"),
        (float("nan"), ValueError, "h must be"),
        (float("inf"), ValueError, "h must be"),
        ("1e-4", TypeError, "h must be"),
        (1e-101, ValueError, "h must be from 1e-100 to 1e\\+100 for second differences in float64, not 1e-101"),
        (1e101, ValueError, "h must be from 1e-100"),
    ],
)
def test_bad_step(small, h, error, message):
    net, x, t = small
    with pytest.raises(error, match=message):
        net.hessian_diagonal(x, t, h)


def test_bad_step_in_float32():
    net = fastnet.TwoLayerNet(3, 4, 2, dtype="float32", seed=0)
    with pytest.raises(ValueError, match="h must be from 1e-12 to 1e\\+12 for second differences in float32"):
        net.hessian_diagonal(np.ones((2, 3)), [0, 1], 1e-13)


@pytest.mark.parametrize(
    ("x", "t", "message"),
    [
        (np.ones((2, 4)), [0, 1], "x has 4"),
        (np.ones((2, 3)), [0, 2], "t "),
        (np.ones((2, 3)), [0], "t has"),
    ],
)
def test_bad_batch(small, x, t, message):
    net, *_ = small
    with pytest.raises(ValueError, match=message):
        net.hessian_diagonal(x, t)
    with pytest.raises(ValueError, match=message):
        net.hessian_vector_product(x, t, net.params)


def test_bad_vector(small):
    net, x, t = small
    for v, error, message in (
        ([1.0], TypeError, "v must be a dict with an array for each parameter, not list"),
        ({"W1": net.params["W1"]}, KeyError, "v has no 'b1'"),
        (net.params | {"W9": 0}, ValueError, "v has 'W9': the parameters are 'W1', 'b1', 'W2', 'b2'"),
        (
            net.params | {"b2": np.ones(3)},
            ValueError,
            r"v\['b2'\] has shape \(3,\), but params\['b2'\] has shape \(2,\)",
        ),
        (net.params | {"b2": ["a", "b"]}, TypeError, r"v\['b2'\]"),
    ):
        with pytest.raises(error, match=message):
            net.hessian_vector_product(x, t, v)


def test_other_networks():
    x, t = np.ones((2, 3)), np.array([0, 1])
    net = fastnet.MultiLayerNet(3, [4], 2, use_batchnorm=True, seed=0)
    with pytest.raises(NotImplementedError, match="hessian_diagonal: it has layers other than affine ones"):
        net.hessian_diagonal(x, t)
    with pytest.raises(NotImplementedError, match=r"Use fastnet\.numerical_hessian of a function"):
        net.hessian_vector_product(x, t, net.params)

    class Own(fastnet.TwoLayerNet):
        def loss(self, x, t):
            return 2 * super().loss(x, t)

    own = Own(3, 4, 2, seed=0)
    for call in (lambda: own.hessian_diagonal(x, t), lambda: own.hessian_vector_product(x, t, own.params)):
        with pytest.raises(TypeError, match="Own has its own loss"):
            call()


def test_a_loss_without_a_difference_is_refused():
    class Bare(fastnet.TwoLayerNet):
        _output = Output.IDENTITY

    with pytest.raises(ValueError, match="without softmax has no exact second difference"):
        Bare(3, 4, 2, seed=0).hessian_diagonal(np.ones((2, 3)), [0, 1])


def test_loss_that_is_not_finite(backend):
    net = fastnet.TwoLayerNet(3, 4, 2, seed=0)
    found = net.hessian_diagonal(np.array([[1.0, np.nan, 0.0], [1.0, 1.0, 1.0]]), [0, 1])
    assert all(np.isnan(d).all() for d in found.values())
