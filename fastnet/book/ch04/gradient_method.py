"""`ch04/gradient_method.py` of the book: gradient descent."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet import differentiation
from fastnet.differentiation.calling import Function

__all__ = ["gradient_descent"]


def gradient_descent(
    f: Function, init_x: npt.NDArray[Any], lr: float = 0.01, step_num: int = 100
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Minimise `f` with steps of ``-lr`` times its numerical gradient.

    Parameters
    ----------
    f : callable
        Takes an array and returns one real number.
    init_x : ndarray
        The starting point. It is not modified; the book's becomes the final point.
    lr : float, default 0.01
        The learning rate.
    step_num : int, default 100
        The number of steps.

    Returns
    -------
    x : ndarray
        The final point.
    x_history : ndarray
        The point before each step, shape (step_num, …).

    Raises
    ------
    TypeError, ValueError
        As `fastnet.gradient_descent`.
    """
    x, points = differentiation.gradient_descent(f, np.asarray(init_x), lr, step_num, history=True)
    return x, points[:-1]
