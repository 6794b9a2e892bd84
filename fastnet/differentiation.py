"""Central differences of any Python function, and gradient descent with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks

__all__ = ["derivative", "gradient_descent", "numerical_gradient", "numerical_jacobian"]

# Any: users' functions take and return what they like; the returned values are checked at run time.
Function: TypeAlias = Callable[[Any], Any]


def _number(value: Any) -> float:
    """The value that a scalar function returned, as a number."""
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "fiub":
        raise TypeError(
            f"f must return one real number, not {checks.type_name(value)} of shape {array.shape} and dtype "
            f"{array.dtype}"
        )
    return float(array.reshape(())[()])


def _central_difference(f: Callable[[], Any], x: npt.NDArray[Any], at: tuple[int, ...], h: float) -> Any:
    """(f(x + h) − f(x − h)) / 2h with h added to one element of `x`, which is always restored."""
    value = x[at]
    try:
        x[at] = value + h
        above = f()
        x[at] = value - h
        below = f()
    finally:
        x[at] = value
    return (above - below) / (2 * h)


def derivative(f: Function, x: npt.ArrayLike, h: float = 1e-4) -> Any:
    """The central difference (f(x + h) − f(x − h)) / 2h of a function of one variable.

    Parameters
    ----------
    f : callable
        Takes a number and returns one; or, for an array `x`, works element by element.
    x : float or array_like
        The point at which to differentiate.
    h : float, default 1e-4
        The step; the error is about h²/6·f‴(x) plus a rounding error of about 1e-16·|f(x)|/h.

    Returns
    -------
    float or ndarray
        The shape of the value of `f`.

    Raises
    ------
    TypeError
        If `f` is not callable, or `x` or `h` are not real numbers.
    ValueError
        If `h` is not positive and finite.

    Examples
    --------
    >>> import fastnet
    >>> round(fastnet.derivative(lambda x: 0.01 * x**2 + 0.1 * x, 5.0), 9)
    0.2
    """
    checks.check_function(f)
    step = checks.as_positive(h, "h")
    point = checks.as_floating(x, "x")
    if point.ndim == 0:
        number = float(point)
        return (f(number + step) - f(number - step)) / (2 * step)
    return (f(point + point.dtype.type(step)) - f(point - point.dtype.type(step))) / (2 * step)


def numerical_gradient(f: Function, x: npt.NDArray[Any], h: float = 1e-4) -> npt.NDArray[Any]:
    """The gradient of a scalar function by central differences, one element of `x` at a time.

    `x` itself is changed in place, one element at a time, and passed to `f`; each element is restored before the next
    one is changed, even if `f` raises. So `f` may ignore its argument and use the array elsewhere, as in
    ``numerical_gradient(lambda W: net.loss(x, t), net.params["W1"])``. For a network's own parameters,
    ``net.numerical_gradient(x, t)`` returns the same numbers in a fraction of the time.

    Parameters
    ----------
    f : callable
        Takes `x` and returns one real number.
    x : ndarray
        Floating-point numbers, any shape, writeable.
    h : float, default 1e-4
        The step.

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
        If `h` is not positive and finite, or `x` is read-only.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> fastnet.numerical_gradient(lambda x: x[0] ** 2 + x[1] ** 2, np.array([3.0, 4.0])).round(9)
    array([6., 8.])
    """
    checks.check_function(f)
    step = checks.as_positive(h, "h")
    checks.check_perturbable(x)
    gradient = np.empty(x.shape, dtype=x.dtype.newbyteorder("="))
    for at in np.ndindex(x.shape):
        gradient[at] = _central_difference(lambda: _number(f(x)), x, at, step)
    return gradient


def numerical_jacobian(f: Function, x: npt.NDArray[Any], h: float = 1e-4) -> npt.NDArray[Any]:
    """The derivatives of an array-valued function by central differences.

    Parameters
    ----------
    f : callable
        Takes `x` and returns an array or a number, of the same shape at every call.
    x : ndarray
        Floating-point numbers, any shape, writeable; changed in place and restored as by `numerical_gradient`.
    h : float, default 1e-4
        The step.

    Returns
    -------
    ndarray
        Shape ``f(x).shape + x.shape``: the derivative of each element of ``f(x)`` with respect to each of `x`.

    Raises
    ------
    TypeError
        If `f` is not callable or returns anything but real numbers, or `x` is not an array of floating-point numbers.
    ValueError
        If `h` is not positive and finite, `x` is read-only, or `f` returns arrays of different shapes.
    """
    checks.check_function(f)
    step = checks.as_positive(h, "h")
    checks.check_perturbable(x)

    shape: tuple[int, ...] | None = None

    def value() -> npt.NDArray[Any]:
        # A copy, since f may return the array that is changed next, or a view of it.
        array = np.array(checks.as_numbers(f(x), "the value of f"), dtype=np.float64)
        if shape is not None and array.shape != shape:
            raise ValueError(f"f returned arrays of shapes {shape} and {array.shape}")
        return array

    shape = value().shape
    jacobian = np.empty((*shape, x.size), dtype=x.dtype.newbyteorder("="))
    for number, at in enumerate(np.ndindex(x.shape)):
        jacobian[..., number] = _central_difference(value, x, at, step)
    return jacobian.reshape(shape + x.shape)


def gradient_descent(f: Function, init_x: npt.ArrayLike, lr: float = 0.01, step_num: int = 100) -> npt.NDArray[Any]:
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

    Returns
    -------
    ndarray
        The final point: the shape of `init_x`.

    Raises
    ------
    TypeError
        If `f` is not callable or returns anything but one real number, or an argument has the wrong type.
    ValueError
        If `lr` is not positive and finite, or `step_num` is negative.

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
    x: npt.NDArray[Any] = checks.as_floating(init_x, "init_x").copy()
    for _ in range(steps):
        x -= x.dtype.type(rate) * numerical_gradient(f, x)
    return x
