"""The steps of differences: which step is taken where, and how far it really moves a floating-point number."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray
from fastnet.differentiation.points import Point

AUTO = "auto"


def is_auto(h: object, x: object) -> bool:
    """Return whether the steps are to be found; TypeError for any other text."""
    if isinstance(h, str) and h != AUTO:
        hint = ", and x is a dict: pass one of its arrays, as in numerical_gradient(f, params['W1'])"
        raise TypeError(
            f"h must be a number, not str ({h!r}): a number, an array of steps, or 'auto'"
            f"{hint if isinstance(x, dict) else ''}"
        )
    return isinstance(h, str)


class Steps:
    """The step of each element of a point by flat number, as `as_steps` gives them, by the digits of the values."""

    def __init__(self, h: object, point: Point) -> None:
        self._h, self._point = h, point
        self._known: dict[np.dtype[Any], FloatArray] = {}

    def __call__(self, dtype: np.dtype[Any]) -> FloatArray:
        if dtype not in self._known:
            self._known[dtype] = self._point.spread(
                self._h, "h", lambda part, array, name: as_steps(part, array, dtype, name)
            )
        return self._known[dtype]


def as_steps(h: object, x: npt.NDArray[Any], dtype: np.dtype[Any], name: str = "h") -> npt.NDArray[Any]:
    """Return the step of each element of `x`: shape of `x`, float64 or wider.

    Parameters
    ----------
    h : None, number or array_like
        None for the default; a number for all elements, or an array of them that broadcasts to the shape of `x`.
    x : ndarray
        Floating-point numbers.
    dtype : numpy.dtype
        The dtype of the function's values or of `x`, whichever has fewer digits: the default depends on it.
    name : str
        The argument's name, for messages.

    Notes
    -----
    The default is the book's 1e-4 if the values have the digits of float64, 1e-2 for float32 and 1/8 for float16. For
    large elements it grows as eps^(1/3)·|x|: with a smaller step, rounding would dominate.
    """
    if h is None:
        least, growth = _default(dtype)
        sizes: npt.NDArray[Any] = np.abs(x.astype(np.promote_types(x.dtype, np.float64)))
        return np.asarray(np.fmax(least, growth * sizes))
    if not isinstance(h, (np.ndarray, list, tuple)):
        return np.full(x.shape, checks.as_positive(h, name))
    steps = checks.as_numbers(h, name).astype(np.float64)
    try:
        steps = np.broadcast_to(steps, x.shape)
    except ValueError:
        raise ValueError(
            f"{name} of shape {steps.shape} does not fit x of shape {x.shape}: give a step for each"
        ) from None
    wrong = ~((steps > 0) & np.isfinite(steps))
    if wrong.any():
        at = tuple(int(i) for i in np.argwhere(wrong)[0])
        raise ValueError(f"{name} must be positive and finite, but {name}[{', '.join(map(str, at))}] is {steps[at]}")
    return steps


@functools.cache
def _default(dtype: np.dtype[Any]) -> tuple[float, float]:
    """Return the least step, and the factor by which it grows with the element."""
    info = np.finfo(dtype)
    return 1e-4 if info.nmant >= 52 else 1e-2 if info.nmant >= 23 else 0.125, float(info.eps) ** (1 / 3)


def moved(value: Any, step: Any, where: str) -> tuple[Any, Any, float]:
    """Return value + step and value − step in the dtype of `value`, and the distance between the two.

    The distance is that of the rounded numbers, which is what a difference of values must be divided by.

    Raises
    ------
    ValueError
        If both are rounded to `value`: it names the element and the smallest step that moves it.
    """
    kind = type(value)
    with np.errstate(over="ignore", invalid="ignore"):
        above, below = value + kind(step), value - kind(step)
        distance = float(above - below)
    if distance == 0:
        least = float(np.spacing(np.abs(value)))
        raise ValueError(
            f"h = {float(step):g} is lost in rounding at {where} = {float(value):g}, which is {np.dtype(kind)}: "
            f"h must be at least {least:.2g} there"
        )
    return above, below, distance
