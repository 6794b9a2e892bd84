"""Functions of one's own: what they return is checked and copied, what they do to x is noticed, and no step is lost."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fastnet

CALLS = {
    "derivative": lambda f, x: fastnet.derivative(f, x),
    "numerical_gradient": lambda f, x: fastnet.numerical_gradient(lambda at: np.sum(f(at)), x),
    "numerical_jacobian": lambda f, x: fastnet.numerical_jacobian(f, x),
    "gradient_descent": lambda f, x: fastnet.gradient_descent(lambda at: np.sum(f(at)), x, step_num=1),
}


# f changes its argument -----------------------------------------------------------------------------------


def set_negative_to_zero(x):
    x[x < 0] = 0
    return x**2


def subtract_the_largest(x):
    x -= x.max()
    return np.exp(x)


def sort_in_place(x):
    x.sort()
    return x * np.arange(len(x))


def set_nan(x):
    x[0] = np.nan
    return np.nan_to_num(x)


@pytest.mark.parametrize("call", CALLS)
@pytest.mark.parametrize("f", [set_negative_to_zero, subtract_the_largest, sort_in_place, set_nan])
def test_a_function_that_changes_its_argument_is_refused(call, f):
    x = np.array([3.0, -1.0, 2.0])
    before = x.copy()
    with pytest.raises(ValueError, match=r"f changes its argument, .*: let it compute with a copy"):
        CALLS[call](f, x)
    np.testing.assert_array_equal(x, before)


@pytest.mark.parametrize("call", CALLS)
def test_nan_in_x_is_no_change(call):
    with pytest.raises(
        ValueError, match=r"f is nan at (x|init_x)\[[01]\] = (nan|1\.0001), so that no difference can be"
    ):
        CALLS[call](lambda x: x.sum() if call == "numerical_jacobian" else x * 2, np.array([1.0, np.nan]))


def test_x_is_restored_whatever_f_raises():
    x = np.array([1.0, 2.0])

    def f(at):
        at[0] = 7
        raise KeyError("no")

    with pytest.raises(KeyError):
        fastnet.numerical_gradient(f, x)
    np.testing.assert_array_equal(x, [1, 2])


# What f returns -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("call", ["derivative", "numerical_jacobian"])
def test_a_buffer_that_f_returns_again_and_again_is_copied(call):
    buffer = np.empty(3)
    slopes = CALLS[call](lambda x: np.multiply(x, x, out=buffer), np.array([1.0, 2.0, 3.0]))
    np.testing.assert_allclose(slopes if call == "derivative" else np.diag(slopes), [2, 4, 6], rtol=1e-8)


@pytest.mark.parametrize("call", ["derivative", "numerical_jacobian"])
@pytest.mark.parametrize("dtype", ["u1", "i1", "u8", "?", "i8"])
def test_small_integers_do_not_wrap_round(call, dtype):
    """The step function from 0 to 1 or back: its difference is ±1 over the distance."""
    falling = CALLS[call](lambda x: (x < 0).astype(dtype), np.zeros(1))
    assert float(np.ravel(falling)[0]) == pytest.approx(-1 / 2e-4, rel=1e-12)


WRONG = [
    (lambda x: None, "it returned None: does it end without `return`"),
    (lambda x: (1.0, [2.0]), r"a tuple of 2: to take its first element, write lambda x: f\(x\)\[0\]"),
    (lambda x: 1j, "complex of dtype complex128"),
    (lambda x: "1", "str of dtype <U1"),
    (lambda x: {"loss": 1.0}, "dict of dtype object"),
    (lambda x: [[1.0], [1.0, 2.0]], "a ragged list"),
    (lambda x: np.array(None), "ndarray of dtype object"),
]


@pytest.mark.parametrize(("f", "message"), WRONG, ids=[m for _, m in WRONG])
@pytest.mark.parametrize("call", ["derivative", "numerical_gradient", "numerical_jacobian", "gradient_descent"])
def test_what_f_returns_is_checked(call, f, message):
    x = np.array([1.0, 2.0])
    with pytest.raises(TypeError, match=message):
        getattr(fastnet, call)(f, x)
    np.testing.assert_array_equal(x, [1, 2])


def test_a_gradient_needs_one_number():
    with pytest.raises(TypeError, match=r"f must return one real number, but it returned ndarray of shape \(2,\)"):
        fastnet.numerical_gradient(lambda x: x, np.ones(2))


def test_shapes_that_change_are_refused():
    shapes = iter([np.ones(2), np.ones(3), np.ones(2)])
    with pytest.raises(ValueError, match=r"f returned arrays of shapes \(2,\) and \(3,\)"):
        fastnet.derivative(lambda x: next(shapes), 1.0)


# Steps ----------------------------------------------------------------------------------------------------


@given(st.floats(-300, 300), st.sampled_from(["f2", "f4", "f8"]), st.sampled_from([-1, 1]))
def test_the_slope_of_a_line_is_right_wherever_it_is_taken(exponent, dtype, sign):
    """The step is divided by as it was really made. The function's own rounding is all that is left."""
    info = np.finfo(dtype)
    x = sign * 10.0**exponent
    if not float(info.tiny) < abs(x) < float(info.max) / 8:
        return
    point = np.array([x], dtype)
    for slope in (fastnet.derivative(lambda at: at, point), fastnet.numerical_gradient(lambda at: at[0], point)):
        assert float(slope[0]) == pytest.approx(1, rel=2 * float(info.eps))


@pytest.mark.parametrize("x", [1e12, 1e13, -1e15, 1e300])
def test_a_step_that_is_lost_is_named(x):
    with pytest.raises(ValueError, match=r"^h = 1e-10 is lost in rounding at x = .*, which is float64: h must be at"):
        fastnet.derivative(lambda at: at, x, h=1e-10)
    with pytest.raises(ValueError, match=r"^h = 1e-10 is lost in rounding at x\[0, 1\] = "):
        fastnet.numerical_gradient(lambda at: at.sum(), np.array([[0.0, x]]), h=1e-10)


@pytest.mark.parametrize("call", ["derivative", "numerical_gradient", "numerical_jacobian"])
@pytest.mark.parametrize(("dtype", "error"), [("f2", 5e-2), ("f4", 1e-3), ("f8", 1e-7)])
def test_the_default_step_follows_the_dtype(call, dtype, error):
    """A function computed in few digits is differentiated with a step that leaves some."""
    x = np.linspace(0.5, 2, 5).astype(dtype)
    f = (lambda at: np.exp(at).sum(dtype=dtype)) if call == "numerical_gradient" else np.exp
    slopes = getattr(fastnet, call)(f, x)
    found = np.diag(slopes) if call == "numerical_jacobian" else slopes
    np.testing.assert_allclose(found.astype(float), np.exp(x.astype(float)), rtol=error)


@pytest.mark.parametrize("call", ["derivative", "numerical_gradient", "numerical_jacobian"])
def test_the_default_step_follows_the_digits_of_the_values(call):
    """X is float64, but f computes in float32: a step of 1e-4 would leave two digits."""
    x = np.linspace(0.5, 2, 5)
    f = {"numerical_gradient": lambda at: np.exp(at.astype("f4")).sum()}.get(call, lambda at: np.exp(at.astype("f4")))
    slopes = getattr(fastnet, call)(f, x)
    found = np.diag(slopes) if call == "numerical_jacobian" else slopes
    np.testing.assert_allclose(found, np.exp(x), rtol=1e-3)


@pytest.mark.parametrize("call", ["derivative", "numerical_gradient", "numerical_jacobian"])
def test_a_step_for_each_entry(call):
    """The central difference of a cubic is its derivative plus h², so that it tells the step."""
    x, h = np.array([[0.0, 1.0], [2.0, -1.0]]), np.array([[0.5, 0.25], [0.125, 1.0]])
    f = (lambda at: (at**3).sum()) if call == "numerical_gradient" else (lambda at: at**3)
    slopes = getattr(fastnet, call)(f, x, h)
    found = np.diag(slopes.reshape(4, 4)).reshape(2, 2) if call == "numerical_jacobian" else slopes
    np.testing.assert_array_equal(found, 3 * x**2 + h**2)
    np.testing.assert_array_equal(
        getattr(fastnet, call)(f, x, [0.5, 0.25]), getattr(fastnet, call)(f, x, h[[0, 0]] * 0 + [0.5, 0.25])
    )


@pytest.mark.parametrize(
    ("h", "error", "message"),
    [
        (0, ValueError, "h must be positive, not 0"),
        (-1.0, ValueError, "h must be positive, not -1.0"),
        (math.nan, ValueError, "h must be finite, not nan"),
        ("1e-4", TypeError, "h must be a number, not str"),
        ([1e-4, 0.0], ValueError, r"h must be positive and finite, but h\[1\] is 0.0"),
        ([1e-4, math.inf], ValueError, r"h must be positive and finite, but h\[1\] is inf"),
        ([1e-4] * 3, ValueError, r"h of shape \(3,\) does not fit x of shape \(2,\)"),
    ],
)
def test_bad_steps(h, error, message):
    for call in ("derivative", "numerical_gradient", "numerical_jacobian"):
        with pytest.raises(error, match=message):
            getattr(fastnet, call)(lambda x: x.sum(), np.ones(2), h)


# f is not deterministic, or reads x twice -----------------------------------------------------------------


@pytest.mark.parametrize("call", CALLS)
def test_a_function_that_draws_numbers_is_refused(call):
    rng = np.random.default_rng(0)
    with pytest.raises(ValueError, match=r"f is not deterministic: two calls .* differ by .*dropout mask"):
        CALLS[call](lambda x: x**2 * rng.random(x.shape), np.ones(20))


@pytest.mark.parametrize("call", CALLS)
def test_rounding_that_differs_from_call_to_call_is_accepted(call):
    rng = np.random.default_rng(0)
    CALLS[call](lambda x: x**2 * (1 + 1e-15 * rng.standard_normal(x.shape)), np.ones(3))


def test_an_array_that_f_also_reads_as_data_is_said():
    x = np.array([1.0, 2.0, 3.0])
    with pytest.warns(RuntimeWarning, match=r"f reads x both as its argument and elsewhere"):
        gradient = fastnet.numerical_gradient(lambda at: float(((at - 2 * x) ** 2).sum()), x)
    np.testing.assert_allclose(gradient, 2 * x, rtol=1e-7)  # of (x - 2x)², which is what moved
    np.testing.assert_allclose(
        fastnet.numerical_gradient(lambda at: float(((at - 2 * x) ** 2).sum()), x.copy()), -2 * x, rtol=1e-7
    )
    fastnet.numerical_gradient(lambda at: float((x**2).sum()), x)  # the book's way is no reason for a warning
