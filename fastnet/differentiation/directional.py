"""The derivative of any function in a direction."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray
from fastnet.differentiation.calling import Function, Values
from fastnet.differentiation.engine import (
    as_method,
    at_center,
    check_found,
    evaluator_of,
    first_derivatives,
    progress_of,
)
from fastnet.differentiation.lanes import Direction
from fastnet.differentiation.methods import as_bounds, inward
from fastnet.differentiation.native import is_native
from fastnet.differentiation.points import Bounds, Point
from fastnet.differentiation.result import DerivativeResult
from fastnet.differentiation.steps import Steps, is_auto


def directional_derivative(
    f: Function,
    x: Any,
    v: Any,
    h: Any = None,
    *,
    method: str = "central",
    bounds: Any = None,
    vectorized: bool = False,
    executor: Any = None,
    progress: bool | None = None,
    full_output: bool = False,
) -> Any:
    """The derivative of f(x + s·v) with respect to s at s = 0: the Jacobian times `v` by a few evaluations.

    Parameters
    ----------
    f : callable
        Takes `x` and returns an array or a number, of the same shape at every call.
    x : ndarray, or list or dict of ndarray
        Floating-point numbers, any shape, writeable; changed in place and restored.
    v : ndarray, or list or dict of ndarray
        The direction, with the shapes of `x`. It is not normalised: the derivative is proportional to its length.
    h : float or "auto", optional
        The step of s; by default that of `derivative` over the largest element of `v`.
    method, bounds, vectorized, executor, progress, full_output
        As for `numerical_gradient`.

    Returns
    -------
    float, ndarray or DerivativeResult
        The shape of the value of `f`.

    Raises
    ------
    TypeError, ValueError
        As `numerical_jacobian`; ValueError also if `v` does not have the shape of `x`, is zero or not finite.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> round(fastnet.directional_derivative(lambda x: x[0] * x[1], np.array([2.0, 3.0]), np.array([1.0, 0.5])), 9)
    4.0
    """
    how, wants_all = as_method(method), checks.as_flag(full_output, "full_output")
    point = Point(x)
    auto = is_auto(h, x)
    given = None if auto or h is None else checks.as_positive(h, "h")
    steps = Steps(None, point)
    direction = _as_direction(v, point)
    largest = float(np.abs(direction).max(initial=0.0))
    if not 0 < largest < np.inf:
        raise ValueError(f"v must be finite and not zero, but its largest element is {largest:g}")

    def steps_in(digits: np.dtype[Any]) -> FloatArray:
        if given is not None:
            return np.array([given])
        return np.array([float(steps(digits).max()) / largest])

    limits = as_bounds(bounds, point)
    room = _room_along(limits, point, direction)
    with progress_of(progress, "derivative", 0) as tick:
        evaluator = evaluator_of(f, point, is_native(f), vectorized, executor, tick)
        evaluator.check(inward(steps(point.dtype), point, limits))
        evaluator.base()
        lanes = Direction(evaluator, direction)
        unknown = auto or (how == "complex" and h is None)
        found = first_derivatives(lanes, point.dtype, None if unknown else steps_in, how, room, wants_all, limits)
        if auto:
            check_found(found, at_center(lanes))

    def shaped(values: Values) -> Any:
        return float(values[0]) if values.ndim == 1 else values[0].astype(point.dtype)

    if not wants_all:
        return shaped(found.value)
    return DerivativeResult(shaped(found.value), shaped(found.error), shaped(found.step), evaluator.evaluations)


def _as_direction(v: Any, point: Point) -> FloatArray:
    def fit(part: Any, array: npt.NDArray[Any], what: str) -> FloatArray:
        numbers = checks.as_numbers(part, what)
        if numbers.shape != array.shape:
            raise ValueError(f"{what} must have shape {array.shape}, as x, not {numbers.shape}")
        return numbers.astype(np.float64)

    return point.spread(v, "v", fit)


def _room_along(bounds: Bounds | None, point: Point, direction: FloatArray) -> Bounds | None:
    """Return the least and the largest s for which x + s·v is within bounds."""
    if bounds is None:
        return None
    numbers = point.numbers().astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        ends = (np.stack(bounds) - numbers) / direction
    ends = ends[:, direction != 0]
    return ends.min(axis=0).max(initial=-np.inf, keepdims=True), ends.max(axis=0).min(initial=np.inf, keepdims=True)
