"""Each layer: forward against its definition, backward against central differences of forward."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import fastnet
from fastnet.layers import (
    Add,
    Affine,
    BatchNorm,
    Dropout,
    IdentityWithLoss,
    LeakyReLU,
    Mul,
    ReLU,
    Sigmoid,
    SoftmaxWithLoss,
    Step,
    Tanh,
)

Long = np.longdouble
STEP = {"float64": 1e-4, "float32": 2.0**-6}
# The error of a central difference of a sum of n terms near 1: its truncation h²/6·f‴ and its rounding eps·n/h. The
# third derivatives here are below 10.
TOLERANCE = {dtype: 10 * h * h / 6 + 40 * float(np.finfo(dtype).eps) / h for dtype, h in STEP.items()}
shapes = st.tuples(st.integers(1, 5), st.integers(1, 4))
seeds = st.integers(0, 2**32 - 1)
# For tests of few shapes, which also run for each kind of layer, backend and dtype.
fewer = settings(max_examples=settings().max_examples // 2)


def scaled(tolerance, expected):
    """The tolerance for arrays with entries of the size of `expected`."""
    return tolerance * max(1.0, float(np.abs(expected).max()))


def differences(f, x, v, h):
    """The gradient by `x` of Σ v·f(), element by element; x is what f computes with."""
    total = lambda _: float((np.asarray(f(), np.float64) * v).sum())  # noqa: E731
    return fastnet.numerical_gradient(total, x, h)


def check_backward(layer, forward, x, v, h, tolerance):
    """`backward` of v after ``forward()``: that by `x`, and by each of the layer's parameters."""
    forward()
    dx = layer.backward(v)
    grads = dict(layer.grads)
    assert dx.dtype == x.dtype
    for array, gradient in [(x, dx), *((layer.params[name], grads[name]) for name in layer.params)]:
        assert gradient.shape == array.shape
        assert gradient.dtype == array.dtype
        expected = differences(forward, array, v, h)
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=scaled(tolerance, expected))


# The computation graph ------------------------------------------------------------------------------------


def test_the_apples():
    """Two apples of 100 yen with 10 % tax: the book's first graph."""
    apples, tax = Mul(), Mul()
    price = tax.forward(apples.forward(100, 2), 1.1)
    assert price == pytest.approx(220, rel=1e-15)
    dapple_price, dtax = tax.backward(1)
    dapple, dapple_num = apples.backward(dapple_price)
    assert [dapple, dapple_num, dtax] == pytest.approx([2.2, 110, 200], rel=1e-15)


def test_the_apples_and_the_oranges():
    apples, oranges, fruit, tax = Mul(), Mul(), Add(), Mul()
    total = fruit.forward(apples.forward(100, 2), oranges.forward(150, 3))
    assert tax.forward(total, 1.1) == pytest.approx(715, rel=1e-15)
    dfruit, dtax = tax.backward(1)
    dapples, doranges = fruit.backward(dfruit)
    gradients = [*apples.backward(dapples), *oranges.backward(doranges), dtax]
    assert gradients == pytest.approx([2.2, 110, 3.3, 165, 650], rel=1e-15)


BROADCASTS = [((), ()), ((3,), (3,)), ((2, 3), (2, 3)), ((2, 3), (3,)), ((3,), (2, 1)), ((), (2, 3)), ((1, 1), (2, 3))]


@pytest.mark.parametrize("kind", [Add, Mul])
@pytest.mark.parametrize("shapes", BROADCASTS, ids=str)
def test_two_inputs(kind, shapes, dtype):
    rng = np.random.default_rng(0)
    x, y = (np.array(rng.standard_normal(shape), dtype) for shape in shapes)
    layer = kind()
    out = layer.forward(x, y)
    np.testing.assert_array_equal(out, x + y if kind is Add else x * y)
    assert out.dtype == dtype
    v = rng.standard_normal(out.shape)
    for array, gradient in zip((x, y), layer.backward(v), strict=True):
        assert np.shape(gradient) == array.shape
        assert gradient.dtype == dtype
        expected = differences(lambda: layer.forward(x, y), array, v, STEP[dtype])
        np.testing.assert_allclose(gradient, expected, rtol=0, atol=scaled(TOLERANCE[dtype], expected))


def test_a_number_keeps_the_dtype_of_the_array_beside_it():
    prices = np.array([100, 150], np.float32)
    for tax, pair in ((1.1, (prices, 1.1)), (2, (2, prices))):
        layer = Mul()
        out = layer.forward(*pair)
        assert out.dtype == np.float32
        np.testing.assert_allclose(out, prices.astype(float) * tax, rtol=1e-6)
        assert [g.dtype for g in layer.backward(np.ones(2))] == [np.float32, np.float32]
    mixed = Mul()
    assert mixed.forward(prices, np.ones(2)).dtype == np.float64
    assert [g.dtype for g in mixed.backward(np.ones(2))] == [np.float32, np.float64]


# Activations ----------------------------------------------------------------------------------------------


ACTIVATIONS = {
    Step: fastnet.step_function,
    Sigmoid: fastnet.sigmoid,
    Tanh: fastnet.tanh,
    ReLU: fastnet.relu,
    LeakyReLU: fastnet.leaky_relu,
}


@pytest.mark.parametrize("kind", ACTIVATIONS)
def test_activations(backend, dtype, kind):
    layer = kind()

    @fewer
    @given(shapes, seeds)
    def check(shape, seed):
        rng = np.random.default_rng(seed)
        # Away from the kink at 0, by more than a step.
        x = ((0.1 + 2 * rng.random(shape)) * rng.choice([-1, 1], shape)).astype(dtype)
        out = layer.forward(x)
        assert out.dtype == dtype
        np.testing.assert_array_equal(out, ACTIVATIONS[kind](x))
        v = rng.standard_normal(shape).astype(dtype)
        check_backward(layer, lambda: layer.forward(x), x, v, STEP[dtype], TOLERANCE[dtype])

    check()


def test_the_slope_of_a_leaky_relu(backend, dtype):
    layer = LeakyReLU(0.25)
    x = np.array([-4, -0.5, 0, 0.5, 4], dtype)
    np.testing.assert_array_equal(layer.forward(x), [-1, -0.125, 0, 0.5, 4])
    np.testing.assert_array_equal(layer.backward(np.ones(5)), [0.25, 0.25, 0.25, 1, 1])
    assert layer.slope == 0.25


def test_derivatives_at_the_kink(backend):
    for layer, expected in ((ReLU(), 0), (LeakyReLU(), 0.01), (Step(), 0)):
        layer.forward(0.0)
        assert layer.backward(1.0) == expected


@pytest.mark.parametrize("kind", [*ACTIVATIONS, Dropout])
def test_shapes_without_two_dimensions(backend, kind):
    layer = kind()
    for shape in ((), (3,), (0,), (0, 4), (2, 3, 4)):
        x = np.full(shape, 0.5)
        assert np.shape(layer.forward(x)) == shape
        assert np.shape(layer.backward(x)) == shape


# Affine ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("biased", [True, False])
def test_affine(backend, dtype, biased):
    @given(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4), seeds)
    def check(rows, inputs, outputs, seed):
        rng = np.random.default_rng(seed)
        x, W, b, v = (
            rng.standard_normal(shape).astype(dtype)
            for shape in ((rows, inputs), (inputs, outputs), outputs, (rows, outputs))
        )
        layer = Affine(W, b) if biased else Affine(W)
        assert layer.W is W
        assert layer.dW is None
        out = layer.forward(x)
        assert out.dtype == dtype
        exact = x.astype(Long) @ W.astype(Long) + (b.astype(Long) if biased else 0)
        size = abs(x).astype(Long) @ abs(W).astype(Long) + abs(b).astype(Long)
        assert (abs(out - exact) <= (inputs + 2) * np.finfo(dtype).eps * size).all()
        check_backward(layer, lambda: layer.forward(x), x, v, STEP[dtype], TOLERANCE[dtype])
        assert layer.dW is layer.grads["W"]
        assert (layer.db is None) == (not biased)

    check()


def test_affine_of_an_empty_batch(backend):
    layer = Affine(np.ones((3, 2)), np.ones(2))
    assert layer.forward(np.empty((0, 3))).shape == (0, 2)
    assert layer.backward(np.empty((0, 2))).shape == (0, 3)
    np.testing.assert_array_equal(layer.dW, np.zeros((3, 2)))
    np.testing.assert_array_equal(layer.db, np.zeros(2))


def test_affine_sees_its_arrays_where_they_are(backend):
    W, b = np.ones((2, 2)), np.zeros(2)
    layer = Affine(W, b)
    W[0, 0] = 5
    layer.b = np.array([10.0, 20.0])
    np.testing.assert_array_equal(layer.forward([[1, 1]]), [[16, 22]])
    assert layer.params["b"] is layer.b


@pytest.mark.parametrize("layout", ["fortran", "strided", "byte-swapped", "read-only"])
def test_parameters_of_other_layouts(backend, layout):
    rng = np.random.default_rng(0)
    W, b, x, v = (rng.standard_normal(shape) for shape in ((3, 4), 4, (5, 3), (5, 4)))
    plain, other = Affine(W, b), Affine(laid_out(W, layout), laid_out(b, layout))
    normal, strange = BatchNorm(W[0].copy(), b), BatchNorm(laid_out(W[0], layout), laid_out(b, layout))
    for left, right, given_x in ((plain, other, x), (normal, strange, v)):
        np.testing.assert_array_equal(left.forward(given_x), right.forward(given_x))
        np.testing.assert_array_equal(left.backward(v), right.backward(v))
        for name, gradient in right.grads.items():
            assert gradient.dtype == np.dtype("=f8")
            np.testing.assert_array_equal(left.grads[name], gradient)


def laid_out(array, layout):
    if layout == "fortran":
        return np.asfortranarray(array)
    if layout == "strided":
        return np.repeat(array, 2, axis=-1)[..., ::2]
    if layout == "byte-swapped":
        return array.astype(">f8")
    array = array.copy()
    array.flags.writeable = False
    return array


# Dropout --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0, 0.1, 0.5, 0.9])
def test_dropout(dtype, ratio):
    layer = Dropout(ratio, seed=0)
    x = np.random.default_rng(0).standard_normal((400, 50)).astype(dtype)
    out = layer.forward(x)
    assert out.dtype == layer.mask.dtype == dtype
    kept = layer.mask != 0
    # The share of n numbers that are kept is within 5 of its standard deviations.
    assert kept.mean() == pytest.approx(1 - ratio, abs=5 * np.sqrt(ratio * (1 - ratio) / x.size))
    np.testing.assert_array_equal(layer.mask[kept], np.full(kept.sum(), 1 / (1 - ratio), dtype))
    np.testing.assert_array_equal(out, x * layer.mask)
    v = np.random.default_rng(1).standard_normal(x.shape).astype(dtype)
    np.testing.assert_array_equal(layer.backward(v), v * layer.mask)


def test_dropout_keeps_the_expected_value():
    """The scale is that of training: inference passes x on."""
    layer = Dropout(0.3, seed=0)
    x = np.array([1.0, -2.0, 3.0])
    mean = np.mean([layer.forward(x) for _ in range(10_000)], axis=0)
    deviation = np.sqrt(0.3 / 0.7 / 10_000)  # of the mean of so many masks, whose values have variance r/(1 - r)
    np.testing.assert_allclose(mean, x, rtol=5 * deviation)
    np.testing.assert_array_equal(layer.forward(x, train_flg=False), x)
    np.testing.assert_array_equal(layer.backward(x), x)
    assert layer.mask is None


def test_masks_come_from_the_seed_and_their_number():
    x = np.ones((7, 9))
    masks = [layer.forward(x) for layer in (Dropout(seed=3), Dropout(seed=3), Dropout(seed=4), Dropout(), Dropout())]
    np.testing.assert_array_equal(masks[0], masks[1])
    for one, other in itertools.combinations(masks[1:], 2):
        assert not np.array_equal(one, other)
    layer = Dropout(seed=3)
    drawn = [layer.forward(x) for _ in range(3)]
    assert not np.array_equal(drawn[0], drawn[1])
    assert not np.array_equal(drawn[1], drawn[2])
    layer.forward(x, train_flg=False)  # draws nothing
    fourth = layer.forward(x)
    single = Dropout(seed=3)
    single.state["masks"][2] = 3
    np.testing.assert_array_equal(single.forward(x.astype(np.float32)), fourth)
    # With fewer rows, the first of them.
    single.state["masks"][2] = 3
    np.testing.assert_array_equal(single.forward(x[:4]), fourth[:4])


# Losses ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "targets"),
    [
        *((SoftmaxWithLoss, targets) for targets in ("labels", "one-hot", "probabilities")),
        *((IdentityWithLoss, targets) for targets in ("one-hot", "probabilities")),
    ],
)
def test_losses(backend, dtype, kind, targets):
    @fewer
    @given(st.integers(1, 5), st.integers(1, 5), seeds)
    def check(rows, classes, seed):
        rng = np.random.default_rng(seed)
        x = rng.standard_normal((rows, classes)).astype(dtype)
        t = rng.integers(0, classes, rows)
        if targets != "labels":
            t = np.eye(classes)[t] if targets == "one-hot" else rng.dirichlet(np.ones(classes), rows)
        layer = kind()
        loss = layer.forward(x, t)
        assert type(loss) is float
        assert layer.loss == loss
        y = fastnet.softmax(x) if kind is SoftmaxWithLoss else x
        np.testing.assert_array_equal(layer.y, y)
        np.testing.assert_array_equal(layer.answer(x), y)
        error = fastnet.cross_entropy_error if kind is SoftmaxWithLoss else fastnet.mean_squared_error
        assert loss == error(y, t)
        dx = layer.backward()
        assert dx.dtype == dtype
        expected = fastnet.numerical_gradient(lambda at: kind().forward(at, t), x, STEP[dtype])
        np.testing.assert_allclose(dx, expected, rtol=0, atol=scaled(TOLERANCE[dtype], expected))
        np.testing.assert_allclose(layer.backward(-3), -3 * dx, rtol=4 * np.finfo(dtype).eps)

    check()


def test_the_constant_in_the_logarithm_is_differentiated(backend, dtype):
    """Where an answer is far below 1e-7, the loss is flat, and (y − t)/batch is no derivative."""
    layer = SoftmaxWithLoss()
    x = np.array([[0.0, 20.0], [0.0, 16.0]], dtype)
    layer.forward(x, [0, 0])
    y = np.exp(-x[:, 1].astype(Long)) / (1 + np.exp(-x[:, 1].astype(Long)))
    expected = -(y / (y + Long(1e-7)) * (1 - y)).astype(float) / 2
    assert (abs(expected) < 0.4).all()
    np.testing.assert_allclose(layer.backward()[:, 0], expected, rtol=20 * np.finfo(dtype).eps)


@pytest.mark.parametrize("kind", [SoftmaxWithLoss, IdentityWithLoss])
def test_losses_of_one_row(backend, kind):
    layer, rows = kind(), kind()
    x = np.array([0.3, -0.2, 0.5])
    targets = [([0.0, 1.0, 0.0], [[0.0, 1.0, 0.0]])]
    for t, same in [*targets, (1, [1])] if kind is SoftmaxWithLoss else targets:
        assert layer.forward(x, t) == rows.forward(x[None], same)
        np.testing.assert_array_equal(layer.backward(), rows.backward()[0])
