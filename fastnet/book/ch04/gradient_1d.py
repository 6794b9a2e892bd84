"""`ch04/gradient_1d.py` of the book: the derivative of a function of one variable, and its tangent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from fastnet.differentiation import derivative as numerical_diff
from fastnet.differentiation.calling import Function

__all__ = ["function_1", "numerical_diff", "tangent_line"]


def function_1(x: Any) -> Any:
    """0.01·x² + 0.1·x."""
    return 0.01 * x**2 + 0.1 * x


def tangent_line(f: Function, x: float) -> Callable[[Any], Any]:
    """The tangent of `f` at `x`, as a function.

    Parameters
    ----------
    f : callable
        Takes a number and returns one.
    x : float

    Returns
    -------
    callable
        t ↦ f(x) + f′(x)·(t − x). The book also prints the slope.

    Raises
    ------
    TypeError, ValueError
        As `fastnet.derivative`.

    Examples
    --------
    >>> from fastnet.book.ch04.gradient_1d import function_1, tangent_line
    >>> round(tangent_line(function_1, 5.0)(0.0), 6)
    -0.25
    """
    slope, value = numerical_diff(f, x), f(x)
    return lambda t: slope * (t - x) + value
