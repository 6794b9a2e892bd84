"""Central differences of any Python function: derivative, gradient and Jacobian."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet.differentiation.calling import Caller, Function, Values, check_function_of, check_repeatable, narrowest
from fastnet.differentiation.steps import as_steps, moved


def derivative(f: Function, x: npt.ArrayLike, h: npt.ArrayLike | None = None) -> Any:
    """The central difference (f(x + h) − f(x − h)) / 2h of a function of one variable.

    Parameters
    ----------
    f : callable
        Takes a number and returns one; or, for an array `x`, works element by element.
    x : float or array_like
        The point at which to differentiate.
    h : float or array_like, optional
        The step, or for an array `x` a step for each element. The error is about h²/6·f‴(x) plus a rounding error of
        about eps·|f(x)|/h. By default 1e-4 (float32: 1e-2, float16: 1/8), and eps^(1/3)·|x| where that is more. The
        difference is divided by the distance that the step really moves `x`.

    Returns
    -------
    float or ndarray
        The shape of the value of `f`.

    Raises
    ------
    TypeError
        If `f` is not callable or does not return real numbers, or `x` or `h` are not real numbers.
    ValueError
        If `h` is not positive and finite, is lost in rounding beside `x`, or `f` changes its argument.

    Examples
    --------
    >>> import fastnet
    >>> round(fastnet.derivative(lambda x: 0.01 * x**2 + 0.1 * x, 5.0), 9)
    0.2
    """
    call = Caller(f, scalar=False)
    point = checks.as_floating(x, "x")
    is_number = point.ndim == 0
    steps = as_steps(h, point, point.dtype)

    def difference() -> Values:
        moves = [moved(value, step, "x") for value, step in zip(point.ravel(), steps.ravel(), strict=True)]
        above, below = (np.array([move[side] for move in moves], point.dtype).reshape(point.shape) for side in (0, 1))
        distance = np.array([move[2] for move in moves]).reshape(point.shape)
        arguments: Any = (float(above), float(below)) if is_number else (above, below)
        check_repeatable(lambda: call(arguments[0]))
        with np.errstate(invalid="ignore", over="ignore"):
            quotient: Values = (call(arguments[0]) - call(arguments[1])) / distance
        return quotient

    slope = difference()
    if h is None and narrowest(call.dtype, point.dtype) != point.dtype:
        steps = as_steps(h, point, narrowest(call.dtype, point.dtype))
        slope = difference()
    return float(slope) if is_number and slope.ndim == 0 else slope.astype(point.dtype)


def numerical_gradient(f: Function, x: npt.NDArray[Any], h: npt.ArrayLike | None = None) -> npt.NDArray[Any]:
    """The gradient of a scalar function by central differences, one element of `x` at a time.

    `x` itself is changed in place, one element at a time, and passed to `f`; each element is restored before the next
    one is changed, even if `f` raises. So `f` may ignore its argument and use the array elsewhere, as in
    ``numerical_gradient(lambda W: net.loss(x, t), net.params["W1"])``. For a network's own parameters,
    ``net.numerical_gradient(x, t)`` returns the same numbers in a fraction of the time.

    Parameters
    ----------
    f : callable
        Takes `x` and returns one real number. It must leave `x` as it is.
    x : ndarray
        Floating-point numbers, any shape, writeable.
    h : float or array_like, optional
        The step, or a step for each element; by default as for `derivative`, by the dtype of `x` or of the values of
        `f`, whichever has fewer digits.

    Returns
    -------
    ndarray
        (f(x + h·e) − f(x − h·e)) / 2h for the unit vector e of each element: the shape of `x`.

    Raises
    ------
    TypeError
        If `f` is not callable (for example, its value was passed), if it returns anything but one real number, or
        if `x` is not an array of floating-point numbers.
    ValueError
        If `h` is not positive and finite, or lost in rounding beside an element, `x` is read-only, or `f` changes it.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> fastnet.numerical_gradient(lambda x: x[0] ** 2 + x[1] ** 2, np.array([3.0, 4.0])).round(9)
    array([6., 8.])
    """
    checks.check_function(f)
    checks.check_perturbable(x)
    call = Caller(f, scalar=True)
    if x.size:
        check_function_of(call, x, as_steps(h, x, x.dtype))
    return gradient_of(call, x, h)


def numerical_gradient_2d(f: Function, x: npt.NDArray[Any], h: npt.ArrayLike | None = None) -> npt.NDArray[Any]:
    """The gradient of a scalar function at each of several points, by central differences.

    Parameters
    ----------
    f : callable
        Takes one point, shape (n,), and returns one real number. It must leave the point as it is.
    x : ndarray
        The points, shape (points, n), or one point, shape (n,): floating-point numbers, changed in place and restored.
    h : float or array_like, optional
        As for `numerical_gradient`; an array broadcasts to the shape of `x`.

    Returns
    -------
    ndarray
        Row by row the gradient at that point: the shape of `x`.

    Raises
    ------
    TypeError, ValueError
        As `numerical_gradient`; ValueError also if `x` has more than two dimensions or none.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> points = np.array([[3.0, 4.0], [0.0, 2.0]])
    >>> fastnet.numerical_gradient_2d(lambda x: x[0] ** 2 + x[1] ** 2, points).round(9)
    array([[6., 8.],
           [0., 4.]])
    """
    checks.check_function(f)
    checks.check_perturbable(x)
    if x.ndim not in (1, 2):
        raise ValueError(f"x must have shape (points, n) or (n,), not {x.shape}")
    if x.ndim == 1:
        return numerical_gradient(f, x, h)
    steps = [None] * len(x) if h is None else as_steps(h, x, x.dtype)
    gradient = np.empty(x.shape, dtype=x.dtype.newbyteorder("="))
    for row, (point, step) in enumerate(zip(x, steps, strict=True)):
        gradient[row] = numerical_gradient(f, point, step)
    return gradient


def gradient_of(call: Caller, x: npt.NDArray[Any], h: npt.ArrayLike | None = None) -> npt.NDArray[Any]:
    """The gradient of a function that `check_function_of` has seen."""
    gradient = np.empty(x.shape, dtype=x.dtype.newbyteorder("="))
    for at, difference in _differences(call, x, h):
        gradient[at] = difference
    return gradient


def numerical_jacobian(f: Function, x: npt.NDArray[Any], h: npt.ArrayLike | None = None) -> npt.NDArray[Any]:
    """The derivatives of an array-valued function by central differences.

    Parameters
    ----------
    f : callable
        Takes `x` and returns an array or a number, of the same shape at every call. It must leave `x` as it is.
    x : ndarray
        Floating-point numbers, any shape, writeable; changed in place and restored as by `numerical_gradient`.
    h : float or array_like, optional
        As for `numerical_gradient`.

    Returns
    -------
    ndarray
        Shape ``f(x).shape + x.shape``: the derivative of each element of ``f(x)`` with respect to each of `x`.

    Raises
    ------
    TypeError
        If `f` is not callable or returns anything but real numbers, or `x` is not an array of floating-point numbers.
    ValueError
        If `h` is not positive and finite, or lost in rounding beside an element, `x` is read-only, `f` changes it, or
        `f` returns arrays of different shapes.
    """
    call = Caller(f, scalar=False)
    checks.check_perturbable(x)
    if x.size:
        check_function_of(call, x, as_steps(h, x, x.dtype))
    jacobian = np.empty((*call(x).shape, *x.shape), dtype=x.dtype.newbyteorder("="))
    for at, difference in _differences(call, x, h):
        place: Any = (..., *at)
        jacobian[place] = difference
    return jacobian


def _differences(call: Caller, x: npt.NDArray[Any], h: object) -> Iterator[tuple[tuple[int, ...], Values]]:
    """Give the index of each element of `x`, and the central difference with respect to it."""
    steps = as_steps(h, x, narrowest(call.dtype, x.dtype))
    for at in np.ndindex(x.shape):
        yield at, _difference(call, x, at, steps[at])


def _difference(call: Caller, x: npt.NDArray[Any], at: tuple[int, ...], step: Any) -> Values:
    """The central difference with respect to one element of `x`, which is always restored."""
    value = x[at]
    above, below, distance = moved(value, step, f"x[{', '.join(map(str, at))}]")
    try:
        x[at] = above
        upper = call(x)
        x[at] = below
        lower = call(x)
    finally:
        x[at] = value
    with np.errstate(invalid="ignore", over="ignore"):
        difference: Values = (upper - lower) / distance
    return difference
