"""Central differences of any Python function: every shape and layout of x, in place and restored."""

from __future__ import annotations

import numpy as np
import pytest

import fastnet


def cubic(x):
    """A cubic's central difference is its derivative plus h^2, exactly but for rounding."""
    return float((np.asarray(x, float) ** 3).sum())


def rounding(f, x, h):
    """What rounding leaves of a difference of two values near f(x), each good to a few units of 2^-53."""
    size = x.size + 4
    return 2 * size * 2**-53 * float((abs(np.asarray(x, float)) ** 3).sum() + 1) / (2 * h)


LAYOUTS = {
    "scalar": lambda x: x[0, 0].copy(),
    "vector": lambda x: x[0].copy(),
    "matrix": lambda x: x,
    "tensor": lambda x: x.reshape(2, 1, 3, 2),
    "fortran": np.asfortranarray,
    "transposed view": lambda x: x.T,
    "strided view": lambda x: x[::2, ::-1],
    "byte-swapped": lambda x: x.astype(">f8"),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_numerical_gradient_of_every_layout(layout):
    whole = np.random.default_rng(0).normal(size=(4, 3))
    x = np.asarray(LAYOUTS[layout](whole))
    before, whole_before, seen = x.copy(), whole.copy(), []

    def f(at):
        seen.append(at is x)
        return cubic(at)

    gradient = fastnet.numerical_gradient(f, x, h=1e-4)
    assert gradient.shape == x.shape
    assert gradient.dtype == np.float64
    assert gradient.dtype.isnative
    assert gradient is not x
    # x itself, twice for each element; before, twice at one point to see that it gives the same, and once with a copy
    assert seen == [True, True, False] + [True] * (2 * x.size)
    np.testing.assert_allclose(
        gradient, 3 * before.astype(float) ** 2 + 1e-8, rtol=0, atol=rounding(cubic, before, 1e-4)
    )
    assert x.tobytes() == before.tobytes()
    assert whole.tobytes() == whole_before.tobytes()


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "g"])
def test_numerical_gradient_of_every_floating_dtype(dtype):
    x = np.array([1.5, -2.0, 0.25], dtype)
    before = x.copy()
    h = 2.0**-6  # exact in every dtype, and so are x + h and x - h
    gradient = fastnet.numerical_gradient(cubic, x, h)
    assert gradient.dtype == x.dtype
    exact = 3 * before.astype(float) ** 2 + h**2
    np.testing.assert_allclose(gradient.astype(float), exact, rtol=float(np.finfo(dtype).eps) + 1e-13)
    np.testing.assert_array_equal(x, before)


def test_one_element_changes_at_a_time():
    x = np.zeros((2, 2))
    calls = []
    fastnet.numerical_gradient(lambda at: calls.append(at.copy()) or 0.0, x, h=0.5)
    expected = [sign * 0.5 * (np.arange(4) == k).reshape(2, 2) for k in range(4) for sign in (1, -1)]
    np.testing.assert_array_equal(calls[3:], expected)


@pytest.mark.parametrize("value", [np.float32(2), np.array(2.0), np.array([2.0]), np.array([[2]]), 2, True])
def test_one_number_may_come_in_any_form(value):
    gradient = fastnet.numerical_gradient(lambda x: value, np.array([1.0, 2.0]))
    np.testing.assert_array_equal(gradient, [0, 0])


def test_infinity_goes_through():
    values = iter([0.0, 0.0, 0.0, float("inf"), 0.0])
    assert fastnet.numerical_gradient(lambda x: next(values), np.zeros(1)) == np.inf


def test_derivative_of_a_number():
    assert type(fastnet.derivative(lambda x: x**3, 2)) is float
    assert fastnet.derivative(lambda x: x**3, 2.0) == pytest.approx(12 + 1e-8, abs=40 * 2**-53 / 2e-4)
    assert fastnet.derivative(lambda x: x**3, 2, h=0.5) == 12.25
    assert fastnet.derivative(np.sin, 0) == pytest.approx(1 - 1e-8 / 6, abs=1e-12)


def test_derivative_of_an_array_element_by_element():
    x = np.linspace(-2, 2, 12).reshape(3, 4)
    before = x.copy()
    slopes = fastnet.derivative(lambda x: x**3, x)
    assert slopes.shape == (3, 4)
    np.testing.assert_allclose(slopes, 3 * x**2 + 1e-8, rtol=0, atol=4 * 8 * 2**-53 / 2e-4)
    np.testing.assert_array_equal(x, before)
    assert fastnet.derivative(lambda x: x**3, x.astype(np.float32), h=0.25).dtype == np.float32
    np.testing.assert_array_equal(fastnet.derivative(lambda x: 5 * x, [1, 2], h=0.5), [5.0, 5.0])


@pytest.mark.parametrize("shape", [(), (3,), (2, 3)])
def test_numerical_jacobian(shape):
    """Of a linear map: its matrix, to the last digit where h and the numbers are powers of two."""
    rng = np.random.default_rng(0)
    x = np.asarray(rng.integers(-8, 8, shape) / 4.0)
    before = x.copy()
    weights = rng.integers(-4, 4, (5, 2, *shape)).astype(float)

    def f(at):
        return (weights * at).sum(axis=tuple(range(2, 2 + at.ndim)))

    jacobian = fastnet.numerical_jacobian(f, x, h=0.25)
    assert jacobian.shape == (5, 2, *shape)
    np.testing.assert_array_equal(jacobian, weights)
    np.testing.assert_array_equal(x, before)


def test_numerical_jacobian_of_numbers_and_views():
    x = np.array([1.0, 2.0, 3.0])
    np.testing.assert_array_equal(fastnet.numerical_jacobian(lambda at: at, x, h=0.5), np.eye(3))  # x itself
    np.testing.assert_array_equal(fastnet.numerical_jacobian(lambda at: at[::-1], x, h=0.5), np.eye(3)[::-1])
    np.testing.assert_array_equal(fastnet.numerical_jacobian(lambda at: at[0] * 4, x, h=0.5), [4, 0, 0])
    np.testing.assert_array_equal(fastnet.numerical_jacobian(lambda at: [1, 2], x), np.zeros((2, 3)))
    assert fastnet.numerical_jacobian(lambda at: at, x.astype(np.float32)).dtype == np.float32


def test_the_gradient_at_every_row():
    points = np.random.default_rng(0).standard_normal((5, 3))
    before = points.copy()

    def f(x):
        assert x.shape == (3,)
        return float(x[0] ** 2 * x[1] + np.sin(x[2]))

    x, y, z = points.T
    expected = np.column_stack([2 * x * y, x**2, np.cos(z)])
    np.testing.assert_allclose(fastnet.numerical_gradient_2d(f, points), expected, rtol=0, atol=1e-8)
    np.testing.assert_allclose(fastnet.numerical_gradient_2d(f, points[1]), expected[1], rtol=0, atol=1e-8)
    steps = np.full((5, 1), 1e-3)
    np.testing.assert_allclose(fastnet.numerical_gradient_2d(f, points, steps), expected, rtol=0, atol=1e-6)
    np.testing.assert_array_equal(points, before)
    with pytest.raises(ValueError, match=r"x must have shape \(points, n\) or \(n,\), not \(1, 5, 3\)"):
        fastnet.numerical_gradient_2d(f, points[None])
    with pytest.raises(TypeError, match="pass one of its arrays, as in numerical_gradient"):
        fastnet.numerical_gradient(f, {"W1": points}, "W1")


def test_gradient_descent():
    start = np.array([[2.0, -1.0]])
    assert fastnet.gradient_descent(cubic, start, step_num=0).tolist() == start.tolist()
    assert fastnet.gradient_descent(cubic, start, step_num=0) is not start
    steps = []
    fastnet.gradient_descent(lambda x: steps.append(0) or float((x**2).sum()), start, step_num=7)
    assert len(steps) == 3 + 7 * 2 * 2  # before the first step, whether two calls agree
    end = fastnet.gradient_descent(lambda x: float((x**2).sum()), [3, 4], lr=0.5, step_num=1)  # a whole step
    np.testing.assert_allclose(end, [0, 0], rtol=0, atol=0.5 * 6 * 25 * 2**-53 / 2e-4)
    assert fastnet.gradient_descent(lambda x: float((x**2).sum()), np.ones(2, np.float32)).dtype == np.float32
    assert start.tolist() == [[2, -1]]
    end, points = fastnet.gradient_descent(cubic, start, lr=0.1, step_num=4, history=True)
    assert points.shape == (5, 1, 2)
    np.testing.assert_array_equal(points[0], start)
    np.testing.assert_array_equal(points[-1], end)
    np.testing.assert_array_equal(end, fastnet.gradient_descent(cubic, start, lr=0.1, step_num=4))
    np.testing.assert_array_equal(points[2], fastnet.gradient_descent(cubic, start, lr=0.1, step_num=2))
