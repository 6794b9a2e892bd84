"""Derivatives of any function: methods, steps that are found, bounds, containers, stacks of points, second derivatives.

The oracle is mpmath, with 40 digits.
"""

from __future__ import annotations

import math
import re
from pathlib import Path

import mpmath
import numpy as np
import pytest

import fastnet

METHODS = ["central", "forward", "backward", "five-point", "richardson"]
ORDERS = {"central": 2, "forward": 1, "backward": 1, "five-point": 4, "richardson": 6}


def rosenbrock(x):
    return float((100 * (x[1:] - x[:-1] ** 2) ** 2 + (1 - x[:-1]) ** 2).sum())


def rosenbrock_of_rows(x):
    return (100 * (x[:, 1:] - x[:, :-1] ** 2) ** 2 + (1 - x[:, :-1]) ** 2).sum(axis=1)


def rosenbrock_gradient(x):
    gradient = np.zeros(len(x))
    gradient[:-1] = -400 * x[:-1] * (x[1:] - x[:-1] ** 2) - 2 * (1 - x[:-1])
    gradient[1:] += 200 * (x[1:] - x[:-1] ** 2)
    return gradient


def rosenbrock_hessian(x):
    hessian = np.zeros((len(x), len(x)))
    for i in range(len(x) - 1):
        hessian[i, i] += 1200 * x[i] ** 2 - 400 * x[i + 1] + 2
        hessian[i + 1, i + 1] += 200
        hessian[i, i + 1] = hessian[i + 1, i] = -400 * x[i]
    return hessian


# Methods --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_the_order_of_a_method(method):
    """A method of order p is exact for polynomials of degree p, and its error falls as h^p."""
    order = ORDERS[method]
    exact = fastnet.derivative(lambda x: x**order, 0.75, h=2.0**-4, method=method)
    assert exact == pytest.approx(order * 0.75 ** (order - 1), rel=1e-12)
    errors = [abs(fastnet.derivative(math.exp, 0.5, h, method=method) - math.exp(0.5)) for h in (0.5, 0.25)]
    assert errors[0] / errors[1] == pytest.approx(2**order, rel=0.35)


@pytest.mark.parametrize("method", METHODS)
def test_the_error_covers_what_a_step_leaves(method):
    x = np.linspace(0.3, 2, 7)
    result = fastnet.derivative(np.exp, x, 0.05, method=method, full_output=True)
    assert (np.abs(result.value - np.exp(x)) <= result.error).all()
    assert (result.error < 200 * np.abs(result.value - np.exp(x)) + 1e-12).all()
    assert (result.step > 0).all()
    assert result.evaluations > 0


def test_complex_steps_have_all_digits():
    for x in (1e-6, 0.3, 1e6):
        slope = fastnet.derivative(np.sin, x, method="complex")
        assert slope == pytest.approx(math.cos(x), rel=1e-15)
    x = np.array([0.5, 2.0])
    np.testing.assert_allclose(
        fastnet.numerical_gradient(lambda x: (x**3).sum(), x, method="complex"), 3 * x**2, rtol=1e-15
    )
    jacobian = fastnet.numerical_jacobian(lambda x: x**3, x, method="complex", vectorized=True)
    np.testing.assert_allclose(jacobian, np.diag(3 * x**2), rtol=1e-15)


@pytest.mark.parametrize(
    ("f", "error", "message"),
    [
        (lambda x: math.sin(x[0]), TypeError, "needs a function that takes complex numbers, but f raised "),
        (lambda x: float(np.abs(x).sum()), TypeError, "but f returned float64 for one"),
        (lambda x: (np.abs(x) * x).sum(), ValueError, "needs an analytic function"),
    ],
)
def test_complex_steps_of_what_is_not_analytic(f, error, message):
    x = np.array([0.5, 2.0])
    with pytest.raises(error, match=message):
        fastnet.numerical_gradient(f, x, method="complex")
    np.testing.assert_array_equal(x, [0.5, 2.0])


# Steps that are found -------------------------------------------------------------------------------------

FUNCTIONS = {
    "sin": (np.sin, mpmath.sin),
    "exp": (np.exp, mpmath.exp),
    "log": (np.log, mpmath.log),
    "1/x": (lambda x: 1 / x, lambda x: 1 / x),
    "cbrt": (np.cbrt, lambda x: mpmath.cbrt(x)),
    "cosh": (np.cosh, mpmath.cosh),
    "degree 9": (lambda x: ((x**4 - 2) * x**2 + 3) * x**3 + x + 4, lambda x: ((x**4 - 2) * x**2 + 3) * x**3 + x + 4),
    "ratio": (
        lambda x: np.exp(x) / (np.sin(x) ** 3 + np.cos(x) ** 3),
        lambda x: mpmath.exp(x) / (mpmath.sin(x) ** 3 + mpmath.cos(x) ** 3),
    ),
}
POINTS = [1e-6, 1e-3, 0.3, 1.5, 10.0, 100.0, 1e4, 1e6]


@pytest.mark.parametrize("name", FUNCTIONS)
def test_steps_that_are_found_leave_rounding_alone(name):
    """The error is a few roundings of f over the distance at which it changes, and the estimate covers it."""
    f, exact = FUNCTIONS[name]
    covered = []
    for x in POINTS:
        with mpmath.workdps(40):
            slope = mpmath.diff(exact, mpmath.mpf(x), h=mpmath.mpf(10) ** -15 * min(x, 1))
            size = abs(exact(mpmath.mpf(x))) / (min(x, 1) if name in ("log", "1/x", "cbrt") else 1)
        if abs(slope) > 1e300 or (name == "ratio" and x > 100):
            continue
        result = fastnet.derivative(f, x, "auto", full_output=True)
        error = float(abs(mpmath.mpf(result.value) - slope))
        covered.append(error <= result.error)
        assert error <= 2e-14 * float(abs(slope) + size), x
        assert result.error <= 2e-12 * float(abs(slope) + size), x
        assert result.evaluations < 120
    assert np.mean(covered) >= 0.85


@pytest.mark.parametrize("frequency", [2**20, 1e6, 3e7])
def test_waves_shorter_than_the_first_step_are_found(frequency):
    """With 2^20 and x = 0 every power of 2 above it gives the quotient 0."""
    result = fastnet.derivative(lambda x: math.sin(2 * math.pi * frequency * x), 0.0, "auto", full_output=True)
    assert abs(result.value - 2 * math.pi * frequency) <= result.error < 1e-6 * frequency


@pytest.mark.parametrize(
    "f",
    [
        lambda x: round(math.sin(x), 4),
        lambda x: round(math.sin(x), 6),
        lambda x: float(np.float32(math.sin(x))),
        lambda x: 1e10 + math.sin(x) - 1e10,
        lambda x: 1e10 + math.sin(x),
    ],
)
def test_a_stair_of_rounded_values_is_not_flat(f):
    """Few of the digits of these values are right, which they do not tell: the estimate of the error does."""
    result = fastnet.derivative(f, 1.0, "auto", full_output=True)
    assert abs(result.value - math.cos(1)) <= result.error
    assert abs(result.value - math.cos(1)) < 0.05


def test_a_kink_beside_the_point():
    for distance in (1e-9, 1e-3, 0.5):
        assert fastnet.derivative(abs, distance, "auto") == pytest.approx(1, abs=1e-10)


def test_every_entry_finds_its_own_step():
    x = np.array([1e-4, 1.0, 1e4])
    result = fastnet.numerical_gradient(lambda x: float(np.log(x).sum()), x, "auto", full_output=True)
    np.testing.assert_allclose(result.value, 1 / x, rtol=0, atol=result.error.max())
    assert (np.abs(result.value - 1 / x) <= result.error).all()
    assert result.step[0] < 1e-4 < result.step[1] < 1 < result.step[2]
    np.testing.assert_array_equal(x, [1e-4, 1.0, 1e4])


def test_steps_are_found_in_float32():
    x = np.array([0.5, 2.0], np.float32)
    result = fastnet.numerical_gradient(lambda x: np.exp(x).sum(dtype=np.float32), x, "auto", full_output=True)
    assert result.value.dtype == np.float32
    np.testing.assert_allclose(result.value, np.exp([0.5, 2.0]), rtol=1e-4)


def test_a_point_without_values_around_it_is_named():
    with pytest.raises(ValueError, match=r"h='auto' found no step at x\[1\] = 0.0 for which f is finite"):
        fastnet.numerical_gradient(lambda x: math.sqrt(x[0]) + math.sqrt(x[1]), np.array([1.0, 0.0]), "auto")


@pytest.mark.parametrize("dimensions", [2, 10, 100])
def test_rosenbrock(dimensions):
    x = np.random.default_rng(0).uniform(-2, 2, dimensions)
    result = fastnet.numerical_gradient(rosenbrock, x, "auto", full_output=True)
    error = np.abs(result.value - rosenbrock_gradient(x))
    assert np.mean(error <= result.error) >= 0.95
    assert error.max() <= 1e-13 * (np.abs(result.value).max() + rosenbrock(x))


# Bounds ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("h", [None, "auto"])
@pytest.mark.parametrize("method", METHODS)
def test_steps_stay_within_bounds(method, h):
    x = np.array([0.0, 1.0, 0.5, 0.99999])

    def f(at):
        assert (at >= 0).all()
        assert (at <= 1).all()
        return float(np.exp(at).sum())

    gradient = fastnet.numerical_gradient(f, x, h, method=method, bounds=(0, 1))
    np.testing.assert_allclose(gradient, np.exp(x), rtol=1e-3 if method in ("forward", "backward") else 1e-7)


def test_bounds_keep_the_order():
    """At a bound the central difference becomes (−3f(x) + 4f(x + h) − f(x + 2h)) / 2h: exact for parabolas."""
    assert fastnet.derivative(lambda x: x**2, 1.0, h=0.25, bounds=(None, 1.0)) == 2
    assert fastnet.derivative(lambda x: x**4, 1.0, h=0.25, method="five-point", bounds=(1, 3)) == pytest.approx(4)
    result = fastnet.derivative(math.sqrt, 1.0, "auto", bounds=(1.0, 4.0), full_output=True)
    assert abs(result.value - 0.5) <= result.error < 1e-9
    np.testing.assert_allclose(
        fastnet.numerical_hessian(lambda x: float(x[0] ** 2 * 3 + x[0] * x[1]), np.ones(2), bounds=(1, 2)),
        [[6, 1], [1, 0]],
        atol=1e-6,
    )


@pytest.mark.parametrize(
    ("bounds", "error", "message"),
    [
        ((1.5, 3), ValueError, r"bounds exclude x\[0\] = 1: they are 1.5 and 3 there"),
        ((2, 2), ValueError, r"bounds leave no room at x\[0\]"),
        (3, TypeError, r"bounds must be a pair \(low, high\)"),
        ((0, math.nan), ValueError, r"bounds\[1\] must not be nan"),
        (([0] * 3, 4), ValueError, r"bounds\[0\] of shape \(3,\) does not fit x of shape \(2,\)"),
        (("a", 4), TypeError, r"bounds\[0\] must be numbers"),
    ],
)
def test_bad_bounds(bounds, error, message):
    for call in (fastnet.numerical_gradient, fastnet.numerical_hessian, fastnet.numerical_jacobian):
        with pytest.raises(error, match=message):
            call(lambda x: x.sum(), np.array([1.0, 2.0]), bounds=bounds)


# Lists and dicts of arrays --------------------------------------------------------------------------------


def test_lists_and_dicts_of_arrays():
    x = {"a": np.array([[1.0, 2.0]]), "b": np.array(3.0), "c": np.ones(2, np.float32)}
    before = {name: array.copy() for name, array in x.items()}

    def f(p):
        assert p is x or set(p) == set(x)
        return float((p["a"] ** 2).sum() * p["b"] + p["c"].sum())

    gradient = fastnet.numerical_gradient(f, x, h={"a": 0.5, "b": 0.25, "c": [0.5, 0.25]})
    np.testing.assert_array_equal(gradient["a"], [[6.0, 12.0]])
    assert (gradient["b"], gradient["b"].shape) == (5.0, ())
    np.testing.assert_array_equal(gradient["c"], [1, 1])
    assert gradient["c"].dtype == np.float32
    for name, array in x.items():
        assert array.tobytes() == before[name].tobytes()
    hessian = fastnet.numerical_hessian(f, x, h=0.5)
    np.testing.assert_array_equal(hessian["a"]["b"], [[2.0, 4.0]])
    np.testing.assert_array_equal(hessian["a"]["a"].reshape(2, 2), [[6, 0], [0, 6]])
    listed = fastnet.numerical_gradient(lambda p: float(p[0].sum() * p[1]), [np.ones(2), np.array(2.0)], h=0.5)
    np.testing.assert_array_equal(listed[0], [2, 2])
    assert listed[1] == 2
    jacobian = fastnet.numerical_jacobian(lambda p: p[0] * p[1], [np.ones(2), np.array(2.0)], h=0.5)
    np.testing.assert_array_equal(jacobian[0], [[2, 0], [0, 2]])
    np.testing.assert_array_equal(jacobian[1], [1, 1])
    stacked = fastnet.numerical_gradient(
        lambda p: p[0].sum(axis=1) * p[1], [np.ones(2), np.array(2.0)], h=0.5, vectorized=True
    )
    np.testing.assert_array_equal(stacked[0], [2, 2])


@pytest.mark.parametrize(
    ("x", "h", "error", "message"),
    [
        ([], None, TypeError, "x must be a NumPy array, since it is changed in place, not list"),
        ({"a": np.ones(2), "b": 1.0}, None, TypeError, r"x\['b'\] must be a NumPy array, .*, not float"),
        (
            [np.ones(2), np.ones(2, int)],
            None,
            TypeError,
            r"x\[1\] must be an array of floating-point .*, not int64",
        ),
        ({"a": np.ones(2)}, {"b": 1.0}, ValueError, "h has no 'a': give one for each array of x"),
        ({"a": np.ones(2)}, {"a": -1.0}, ValueError, r"h\['a'\] must be positive, not -1.0"),
        ([np.ones(2)], [0.1, 0.2], ValueError, "h has 2 items for 1 arrays of x"),
        (np.ones(2), {"a": 1.0}, TypeError, "h must not be a dict where x is none"),
    ],
)
def test_bad_containers(x, h, error, message):
    with pytest.raises(error, match=message):
        fastnet.numerical_gradient(lambda p: 1.0, x, h)


# Stacks of points -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("h", [None, "auto"])
def test_stacks_give_what_single_points_give(h):
    x = np.random.default_rng(0).uniform(-2, 2, 30)
    stacked = fastnet.numerical_gradient(rosenbrock_of_rows, x, h, vectorized=True)
    np.testing.assert_allclose(stacked, fastnet.numerical_gradient(rosenbrock, x, h), rtol=1e-7, atol=1e-7)
    jacobian = fastnet.numerical_jacobian(lambda x: x[:, :2] ** 2, x, h, vectorized=True)
    np.testing.assert_allclose(jacobian[:, :2], np.diag(2 * x[:2]), atol=1e-8)
    hessian = fastnet.numerical_hessian(rosenbrock_of_rows, x[:5], h, vectorized=True)
    np.testing.assert_allclose(hessian, rosenbrock_hessian(x[:5]), rtol=1e-5, atol=1e-3)


@pytest.mark.parametrize(
    ("f", "message"),
    [
        (
            lambda x: x.sum(),
            r"must return .* shape \(3,\) for a stack of 3 points, but it returned shape \(\)",
        ),
        (lambda x: x, r"must return .* shape \(3,\) for a stack of 3 points, but it returned shape \(3, 2\)"),
        (lambda x: x[:, 0] / x.max(), "f is not vectorized: its value at a point depends on the other points"),
    ],
)
def test_bad_stacks(f, message):
    with pytest.raises(ValueError, match=message):
        fastnet.numerical_gradient(f, np.array([1.0, 2.0]), vectorized=True)


# Directions and second derivatives ------------------------------------------------------------------------


@pytest.mark.parametrize("h", [None, 1e-5, "auto"])
def test_directional_derivative(h):
    x, v = np.array([1.0, -0.5, 2.0]), np.array([1.0, 2.0, -3.0])
    before = x.copy()
    slope = fastnet.directional_derivative(rosenbrock, x, v, h)
    assert slope == pytest.approx(rosenbrock_gradient(x) @ v, rel=1e-6)
    np.testing.assert_allclose(fastnet.directional_derivative(lambda x: x**2, x, v, h), 2 * x * v, rtol=1e-7)
    assert x.tobytes() == before.tobytes()
    bounded = fastnet.directional_derivative(rosenbrock, x, v, h, bounds=(x - 5, np.where(v > 0, x, x + 5)))
    assert bounded == pytest.approx(rosenbrock_gradient(x) @ v, rel=1e-3)


def test_bad_directions():
    x = np.ones(2)
    for v, error, message in [
        (np.zeros(2), ValueError, "v must be finite and not zero"),
        (np.ones(3), ValueError, r"v must have shape \(2,\), as x, not \(3,\)"),
        ([1.0, math.nan], ValueError, "v must be finite"),
        ("a", TypeError, "v must contain real numbers"),
    ]:
        with pytest.raises(error, match=message):
            fastnet.directional_derivative(lambda x: x.sum(), x, v)


@pytest.mark.parametrize(("h", "tolerance"), [(None, 1e-3), (1e-3, 1e-2), ("auto", 1e-8)])
def test_numerical_hessian(h, tolerance):
    x = np.random.default_rng(1).uniform(-1, 1, 6)
    before = x.copy()
    result = fastnet.numerical_hessian(rosenbrock, x, h, full_output=True)
    np.testing.assert_array_equal(result.value, result.value.T)
    np.testing.assert_allclose(result.value, rosenbrock_hessian(x), rtol=0, atol=tolerance)
    assert np.mean(np.abs(result.value - rosenbrock_hessian(x)) <= result.error) >= 0.95
    assert x.tobytes() == before.tobytes()
    with pytest.raises(ValueError, match="method='complex' is for first derivatives"):
        fastnet.numerical_hessian(rosenbrock, x, method="complex")


# The README ----------------------------------------------------------------------------------------------


def test_the_examples_of_the_readme_print_what_it_says(capsys):
    readme = Path(__file__).parents[2] / "README.md"
    if not readme.exists():
        pytest.skip("the README is not beside the tests")
    pattern = r"<!-- any function -->\n```python\n(.*?)```\n\n```text\n(.*?)```"
    examples = re.findall(pattern, readme.read_text(encoding="utf-8"), re.S)
    assert len(examples) == 3
    names = {"fastnet": fastnet}
    for code, answer in examples:
        exec(code, names)
        assert capsys.readouterr().out == answer
