"""Gradient descent with the numerical gradient of any function."""

from __future__ import annotations

from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet.differentiation.calling import Function
from fastnet.differentiation.derivatives import gradient_of
from fastnet.differentiation.evaluators import InPlace
from fastnet.differentiation.points import Point
from fastnet.differentiation.steps import as_steps


@overload
def gradient_descent(
    f: Function, init_x: npt.ArrayLike, lr: float = ..., step_num: int = ..., *, history: Literal[False] = ...
) -> npt.NDArray[Any]: ...
@overload
def gradient_descent(
    f: Function, init_x: npt.ArrayLike, lr: float = ..., step_num: int = ..., *, history: Literal[True]
) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]: ...


def gradient_descent(
    f: Function, init_x: npt.ArrayLike, lr: float = 0.01, step_num: int = 100, *, history: bool = False
) -> npt.NDArray[Any] | tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Minimise `f` with steps of ``-lr`` times its numerical gradient.

    Parameters
    ----------
    f : callable
        Takes an array and returns one real number.
    init_x : array_like
        The starting point; not modified.
    lr : float, default 0.01
        The learning rate.
    step_num : int, default 100
        The number of steps; with 0, the starting point is returned.
    history : bool, default False
        Whether to return all points, too.

    Returns
    -------
    x : ndarray
        The final point: the shape of `init_x`.
    points : ndarray
        With ``history=True`` only: the starting point and the point after each step, shape (step_num + 1, …).

    Raises
    ------
    TypeError
        If `f` is not callable or returns anything but one real number, or an argument has the wrong type.
    ValueError
        If `init_x` has no elements, `lr` is not positive and finite, `step_num` is negative, or `f` is NaN where it is
        evaluated, as where too large a rate leads to infinity.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> x = fastnet.gradient_descent(lambda x: x[0] ** 2 + x[1] ** 2, [-3.0, 4.0], lr=0.1)
    >>> bool(np.abs(x).max() < 1e-9)
    True
    """
    checks.check_function(f)
    rate = checks.as_positive(lr, "lr")
    steps = checks.as_count(step_num, "step_num", least=0)
    wants_history = checks.as_flag(history, "history")
    x: npt.NDArray[Any] = checks.as_floating(init_x, "init_x").copy()
    evaluator = InPlace(f, Point(x, "init_x"), True, lambda new: None)
    if steps:
        evaluator.check(as_steps(None, x, x.dtype).ravel())
    points = [x.copy()]
    for _ in range(steps):
        x -= x.dtype.type(rate) * gradient_of(evaluator)
        if wants_history:
            points.append(x.copy())
    return (x, np.stack(points)) if wants_history else x
