"""Mistakes in calls of derivatives: each is an error that names the argument or the entry, and x is restored."""

from __future__ import annotations

import math

import numpy as np
import pytest

import fastnet


def test_the_entry_of_a_mistake_is_noted():
    def f(x):
        if x[1, 0] > 3:
            raise KeyError("no")
        return 0.0

    x = np.array([[1.0, 2.0], [3.0, 4.0]])
    with pytest.raises(KeyError) as raised:
        fastnet.numerical_gradient(f, x, method="backward", h=0.5)
    assert raised.value.args == ("no",)
    assert raised.value.__notes__ == ["f was evaluated with each element of x moved by its step"]
    assert x.tolist() == [[1, 2], [3, 4]]

    def later(x):
        return 1j if x[1, 0] == 3.5 and x[0, 0] == 1 else 0.0

    with pytest.raises(TypeError, match="one real number, but it returned complex") as raised:
        fastnet.numerical_gradient(later, x, h=0.5)
    assert raised.value.__notes__ == ["f was evaluated with x[1, 0] = 3.5"]


def test_bad_choices():
    x = np.ones(2)
    for options, error, message in [
        ({"method": "centre"}, ValueError, "method must be one of 'central', 'forward', .*, not 'centre'"),
        ({"h": "automatic"}, TypeError, "h must be a number, not str"),
        ({"vectorized": 1}, TypeError, "vectorized must be True or False, not int"),
        ({"full_output": None}, TypeError, "full_output must be True or False, not NoneType"),
        ({"progress": "yes"}, TypeError, "progress must be True or False, not str"),
    ]:
        with pytest.raises(error, match=message):
            fastnet.numerical_gradient(lambda x: float(x.sum()), x, **options)


def test_empty_arrays():
    empty = np.empty((0, 2))
    for call in (
        fastnet.derivative,
        fastnet.numerical_gradient,
        fastnet.numerical_gradient_2d,
        fastnet.numerical_jacobian,
        fastnet.numerical_hessian,
        fastnet.gradient_descent,
        lambda f, x: fastnet.directional_derivative(f, x, x),
        lambda f, x: fastnet.numerical_gradient(f, x, vectorized=True),
    ):
        with pytest.raises(
            ValueError, match=r"x has no elements to differentiate with respect to: its shape is \(0, 2"
        ):
            call(lambda x: 1.0, empty)
    with pytest.raises(ValueError, match=r"x has no elements .*: its arrays have the shapes \(0,\), \(0, 2\)"):
        fastnet.numerical_gradient(lambda x: 1.0, [np.empty(0), empty])
    partly = fastnet.numerical_gradient(lambda x: float(x[1] * 3), [np.empty(0), np.array(2.0)], h=0.5)
    assert (partly[0].shape, partly[1]) == ((0,), 3)


def nan_above(x):
    """Return NaN where an element is above 2, and the sum of the squares."""
    return math.nan if (x > 2).any() else float((x**2).sum())


@pytest.mark.parametrize("method", ["central", "forward", "five-point", "richardson"])
def test_where_a_value_is_nan(method):
    x = np.array([[1.0, 1.5, 2.0]])
    for call in (fastnet.numerical_gradient, fastnet.numerical_jacobian):
        with pytest.raises(
            ValueError, match=r"f is nan at x\[0, 2\] = 2\.\d+, so that no difference can be taken: where"
        ):
            call(nan_above, x, method=method)
        call(nan_above, x, bounds=(None, 2), method=method)
    with pytest.raises(
        ValueError, match=r"f is nan at x\[0, [012]\] = [\d.]+, x\[0, 2\] = 2\.\d+, so that no difference"
    ):
        fastnet.numerical_hessian(nan_above, x, method=method)
    with pytest.raises(ValueError, match=r"f is nan at x \+ 0\.000\d+·v, so that no difference"):
        fastnet.directional_derivative(nan_above, x, np.ones((1, 3)), method=method)
    np.testing.assert_array_equal(x, [[1, 1.5, 2]])


def test_where_one_of_many_values_is_nan():
    x = np.array([1.0, 2.0])
    with pytest.raises(ValueError, match=r"element \[1, 0\] of f is nan at x\[1\] = 2.0001, so that"):
        fastnet.numerical_jacobian(lambda x: np.array([[x[0]], [math.nan if x[1] > 2 else 0.0]]), x)
    with pytest.raises(ValueError, match=r"f is nan at x\[1\] = 2.0001, so that"):
        fastnet.derivative(lambda x: np.where(x > 2, math.nan, x), x)
    with pytest.raises(ValueError, match=r"f is nan at x\[0\] = 1.0001, so that"):
        fastnet.numerical_gradient(lambda x: np.where(x[:, 0] > 1, math.nan, 0.0), x, vectorized=True)
    with pytest.raises(ValueError, match=r"f is nan at x\[0\] = \(1\+1e-20j\), so that"):
        fastnet.numerical_gradient(lambda x: x.sum() * (math.nan if x.dtype.kind == "c" else 1.0), x, method="complex")
    with pytest.raises(ValueError, match=r"f is inf at x = 1.0001, so that"):  # infinity less infinity
        fastnet.derivative(lambda x: math.inf, 1.0)
    with pytest.raises(ValueError, match=r"f is inf at init_x\[0\] = .*e\+\d+, so that no difference can be taken"):
        fastnet.gradient_descent(lambda x: x[0].item() * x[0].item() - x[1].item() ** 2, [1.0, 0.0], lr=1e3)


def test_a_function_of_all_elements_is_no_function_of_each():
    with pytest.raises(ValueError, match=r"f must work element by element, but it returned shape \(\)"):
        fastnet.derivative(lambda x: x.sum(), np.ones(3))


def test_progress_is_shown_after_a_second(capsys, monkeypatch):
    pytest.importorskip("tqdm")
    from fastnet._tools import progress

    def run(wanted):
        fastnet.numerical_gradient(lambda x: float(x.sum()), np.ones(50), progress=wanted)
        return capsys.readouterr().err

    assert run(True) == ""
    monkeypatch.setattr(progress, "LATE_SECONDS", -1.0)
    assert "gradient" in run(True)
    assert run(None) == run(False) == ""
