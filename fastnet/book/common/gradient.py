"""`common/gradient.py` of the book: gradients of any function by central differences."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet.differentiation import numerical_gradient, numerical_gradient_2d
from fastnet.differentiation.calling import Function

__all__ = ["np", "numerical_gradient", "numerical_gradient_2d"]


def numerical_gradient_1d(f: Function, x: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """The gradient of a function of one point, the book's ``_numerical_gradient_1d``.

    Parameters
    ----------
    f : callable
        Takes `x` and returns one real number.
    x : ndarray
        Floating-point numbers, shape (n,).

    Returns
    -------
    ndarray
        Shape (n,).

    Raises
    ------
    ValueError, TypeError
        As `fastnet.numerical_gradient`; ValueError also if `x` has another shape.
    """
    if np.ndim(x) != 1:
        raise ValueError(f"x must have shape (n,), not {np.shape(x)}: for several points, use numerical_gradient_2d")
    gradient: npt.NDArray[Any] = numerical_gradient(f, x)
    return gradient


_numerical_gradient_1d = numerical_gradient_1d
