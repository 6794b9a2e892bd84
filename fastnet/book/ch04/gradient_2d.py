"""`ch04/gradient_2d.py` of the book: the gradient of a function at one or several points."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet.differentiation import numerical_gradient_2d as numerical_gradient

__all__ = ["function_2", "numerical_gradient"]


def function_2(x: npt.NDArray[Any]) -> Any:
    """The sum of the squares of `x`, shape (n,), or of each of its rows, shape (points, n)."""
    return np.square(x).sum(axis=-1)
