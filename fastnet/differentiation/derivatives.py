"""First derivatives of any function: derivative, gradient and Jacobian."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, overload

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet.differentiation.calling import Caller, Function, Values, narrowest
from fastnet.differentiation.engine import (
    as_method,
    at_center,
    check_found,
    evaluator_of,
    first_derivatives,
    progress_of,
)
from fastnet.differentiation.evaluators import Evaluator, InPlace
from fastnet.differentiation.lanes import Direction, Elements, Entries
from fastnet.differentiation.methods import as_bounds, inward
from fastnet.differentiation.points import Bounds, Point
from fastnet.differentiation.result import DerivativeResult
from fastnet.differentiation.steps import Steps, as_steps, is_auto

ANALYTIC = 1e-3  # what a complex step and a difference may differ by, relative to the terms of the sum


def derivative(
    f: Function,
    x: npt.ArrayLike,
    h: npt.ArrayLike | None = None,
    *,
    method: str = "central",
    bounds: Any = None,
    full_output: bool = False,
) -> Any:
    """The derivative of a function of one variable: by default (f(x + h) − f(x − h)) / 2h.

    Parameters
    ----------
    f : callable
        Takes a number and returns one, or an array; or, for an array `x`, works element by element.
    x : float or array_like
        The point at which to differentiate.
    h : float, array_like or "auto", optional
        The step, or for an array `x` a step for each element. The error is about h²/6·f‴(x) plus a rounding error of
        about ``eps·|f(x)|/h``. By default 1e-4 (float32: 1e-2, float16: 1/8), and ``eps^(1/3)·|x|`` where that is more.
        The difference is divided by the distance that the step really moves `x`. "auto" finds the step for each
        element, as in `numerical_gradient`.
    method : str, default "central"
        As for `numerical_gradient`.
    bounds : pair, optional
        The least and the largest argument that `f` takes; each a number, an array that fits `x`, or None.
    full_output : bool, default False
        Whether to return a `DerivativeResult` with an estimate of the error.

    Returns
    -------
    float, ndarray or DerivativeResult
        The shape of the value of `f`.

    Raises
    ------
    TypeError
        If `f` is not callable or does not return real numbers, or `x` or `h` are not real numbers.
    ValueError
        If `x` has no elements, `h` is not positive and finite or is lost in rounding beside `x`, `f` changes its
        argument or is NaN where it is evaluated, or, with ``h="auto"``, is not finite near `x`.

    Examples
    --------
    >>> import math, fastnet
    >>> round(fastnet.derivative(lambda x: 0.01 * x**2 + 0.1 * x, 5.0), 9)
    0.2
    >>> result = fastnet.derivative(math.log, 1e-3, "auto", full_output=True)
    >>> abs(result.value - 1000) <= result.error < 1e-9
    True
    """
    how, wants_all = as_method(method), checks.as_flag(full_output, "full_output")
    call = Caller(f, scalar=False)
    given = checks.as_floating(x, "x")
    point = Point(given)
    auto, limits = is_auto(h, x), as_bounds(bounds, point)
    lanes = Elements(call, point)
    steps = Steps(None if auto else h, point)
    lanes.check(inward(steps(point.dtype), point, limits))
    if auto and how != "complex":
        lanes.base(np.arange(1))  # f is called at x itself before it is at points where it may not be defined
    unknown = auto or (how == "complex" and h is None)
    found = first_derivatives(lanes, point.dtype, None if unknown else steps, how, limits, wants_all)
    if auto:
        check_found(found, at_center(lanes))

    def shaped(values: Values) -> Any:
        if given.ndim:
            return values.reshape(given.shape).astype(given.dtype)
        return float(values[0]) if values.ndim == 1 else values[0].astype(given.dtype)

    if not wants_all:
        return shaped(found.value)
    return DerivativeResult(shaped(found.value), shaped(found.error), shaped(found.step), lanes.evaluations)


@overload
def numerical_gradient(
    f: Function,
    x: npt.NDArray[Any],
    h: Any = ...,
    *,
    method: str = ...,
    bounds: Any = ...,
    vectorized: bool = ...,
    executor: Any = ...,
    progress: bool | None = ...,
    full_output: Literal[False] = ...,
) -> npt.NDArray[Any]: ...
@overload
def numerical_gradient(
    f: Function,
    x: Any,
    h: Any = ...,
    *,
    method: str = ...,
    bounds: Any = ...,
    vectorized: bool = ...,
    executor: Any = ...,
    progress: bool | None = ...,
    full_output: bool = ...,
) -> Any: ...


def numerical_gradient(
    f: Function,
    x: Any,
    h: Any = None,
    *,
    method: str = "central",
    bounds: Any = None,
    vectorized: bool = False,
    executor: Any = None,
    progress: bool | None = None,
    full_output: bool = False,
) -> Any:
    """The gradient of a scalar function by differences, one element of `x` at a time.

    `x` itself is changed in place, one element at a time, and passed to `f`; each element is restored before the next
    one is changed, even if `f` raises. So `f` may ignore its argument and use the array elsewhere, as in
    ``numerical_gradient(lambda W: net.loss(x, t), net.params["W1"])``. For a network's own parameters,
    ``net.numerical_gradient(x, t)`` returns the same numbers in a fraction of the time.

    Parameters
    ----------
    f : callable
        Takes `x` and returns one real number. It must leave `x` as it is. A Numba `cfunc`, a function that Numba's
        `njit` has made, a `scipy.LowLevelCallable` or a ctypes function of the signature
        ``double f(intptr_t n, const double *x, void *data)`` is evaluated by the backend on all threads, without the
        GIL, each with its own copy of `x`; it gets the elements of float64 array after array.
    x : ndarray, or list or dict of ndarray
        Floating-point numbers, any shape, writeable.
    h : float, array_like, list, dict or "auto", optional
        The step, or a step for each element; by default as for `derivative`, by the dtype of `x` or of the values of
        `f`, whichever has fewer digits. "auto" finds the step of each element: from a small one upwards as long as
        `f` behaves like a smooth function, and from there down with extrapolation (`extrapolation.automatic`).
    method : {"central", "forward", "backward", "five-point", "richardson", "complex"}
        From which points the derivative is made. Of the steps h, 2h for "five-point"; of h, h/2 and h/4 for
        "richardson". "complex" takes Im f(x + ih)/h, which has no rounding error to speak of: `f` must take complex
        numbers, and a difference checks that it is analytic. With ``h="auto"`` the first three say on which side.
    bounds : pair, optional
        The least and the largest values that the elements may take, each a number or array that fits `x`, a list or
        dict like `x`, or None. Where a step would leave them, the difference is one-sided and of the same order (of
        order 4 where the method's is higher), and the step is shorter where it has no room on either side.
    vectorized : bool, default False
        Whether `f` takes a stack of points, shape ``(points, *x.shape)``, and returns the values, shape (points,). The
        next stack has the same memory.
    executor : concurrent.futures.Executor, optional
        What evaluates `f`, in chunks: threads, processes, `mpi4py.futures.MPIPoolExecutor`, or the workers of
        `dask.distributed` through ``client.get_executor()``. Each has its own copy of `x`. What a lost worker of Dask
        had is done by another one. While there is none, the call waits until one comes, or for Dask's setting
        ``distributed.scheduler.no-workers-timeout``, and then raises Dask's `NoWorkerError`.
    progress : bool, optional
        Whether to show a progress bar on stderr after a second, if tqdm is installed. By default it is shown if stderr
        is a terminal.
    full_output : bool, default False
        Whether to return a `DerivativeResult` with an estimate of the error.

    Returns
    -------
    ndarray, list, dict or DerivativeResult
        The partial derivatives, in arrays of the shapes and dtypes of those of `x`.

    Raises
    ------
    TypeError
        If `f` is not callable (for example, its value was passed), if it returns anything but one real number, or
        if `x` is not an array of floating-point numbers.
    ValueError
        If `x` has no elements, `h` is not positive and finite or is lost in rounding beside an element, `x` is
        read-only, `f` changes it or is NaN where it is evaluated, or `bounds` exclude `x`.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> fastnet.numerical_gradient(lambda x: x[0] ** 2 + x[1] ** 2, np.array([3.0, 4.0])).round(9)
    array([6., 8.])
    >>> fastnet.numerical_gradient(lambda p: p["a"] * p["b"].sum(), {"a": np.array(2.0), "b": np.ones(3)}, h=0.5)
    {'a': array(3.), 'b': array([2., 2., 2.])}
    """
    return _of_entries(f, x, h, True, method, bounds, vectorized, executor, progress, full_output)


def numerical_jacobian(
    f: Function,
    x: Any,
    h: Any = None,
    *,
    method: str = "central",
    bounds: Any = None,
    vectorized: bool = False,
    executor: Any = None,
    progress: bool | None = None,
    full_output: bool = False,
) -> Any:
    """The derivatives of an array-valued function by differences.

    Parameters
    ----------
    f : callable
        Takes `x` and returns an array or a number, of the same shape at every call. It must leave `x` as it is. With
        `vectorized`, it takes a stack of points and returns one of values, shape (points, …).
    x : ndarray, or list or dict of ndarray
        Floating-point numbers, any shape, writeable; changed in place and restored as by `numerical_gradient`.
    h, method, bounds, vectorized, executor, progress, full_output
        As for `numerical_gradient`.

    Returns
    -------
    ndarray, list, dict or DerivativeResult
        Shape ``f(x).shape + x.shape``: the derivative of each element of ``f(x)`` with respect to each of `x`; in a
        list or a dict if `x` is one.

    Raises
    ------
    TypeError
        If `f` is not callable or returns anything but real numbers, or `x` is not an array of floating-point numbers.
    ValueError
        If `x` has no elements, `h` is not positive and finite or is lost in rounding beside an element, `x` is
        read-only, `f` changes it, returns arrays of different shapes or NaN, or `bounds` exclude `x`.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> fastnet.numerical_jacobian(lambda x: np.array([x[0] * x[1], x[1]]), np.array([2.0, 3.0]), h=0.5)
    array([[3., 2.],
           [0., 1.]])
    """
    return _of_entries(f, x, h, False, method, bounds, vectorized, executor, progress, full_output)


def _of_entries(
    f: Function,
    x: Any,
    h: Any,
    scalar: bool,
    method: str,
    bounds: Any,
    vectorized: bool,
    executor: Any,
    progress: bool | None,
    full_output: bool,
) -> Any:
    """The derivatives with respect to all elements of x, of a scalar function or of any."""
    how, wants_all = as_method(method), checks.as_flag(full_output, "full_output")
    point = Point(x)
    auto, limits = is_auto(h, x), as_bounds(bounds, point)
    total = 0 if auto else 2 * point.size
    with progress_of(progress, "gradient" if scalar else "Jacobian", total) as tick:
        evaluator = evaluator_of(f, point, scalar, vectorized, executor, tick)
        steps = Steps(None if auto else h, point)
        evaluator.check(inward(steps(point.dtype), point, limits))
        if auto:  # f is called at x itself before it is at points where it may not be defined
            evaluator.base()
        lanes = Entries(evaluator)
        unknown = auto or (how == "complex" and h is None)
        found = first_derivatives(lanes, point.dtype, None if unknown else steps, how, limits, wants_all)
        if how == "complex":
            _check_analytic(evaluator, found.value, limits)
        elif auto:
            check_found(found, at_center(lanes))
    value = point.split(found.value)
    if not wants_all:
        return value
    error, step = point.split(found.error, dtypes=False), point.split(found.step, dtypes=False)
    return DerivativeResult(value, error, step, evaluator.evaluations)


def _check_analytic(evaluator: Evaluator, slopes: Values, bounds: Bounds | None) -> None:
    """Raise ValueError unless derivatives by complex steps agree with a difference in a random direction.

    A function that is not analytic, as one that takes abs or compares, gives something else for a complex step.
    """
    point = evaluator.point
    numbers = point.numbers().astype(np.float64)
    size = 1e-6 * np.maximum(np.abs(numbers), 1.0) * np.random.default_rng(0).uniform(0.5, 1.0, point.size)
    step = inward(size, point, bounds)
    values = Direction(evaluator, step).values(np.zeros(1, np.int64), np.array([[1.0, 0.0]]), False)[0]
    terms = np.tensordot(step, slopes, 1), np.tensordot(np.abs(step), np.abs(slopes), 1)
    eps = float(np.finfo(narrowest(evaluator.dtype, point.dtype)).eps)
    with np.errstate(invalid="ignore"):
        allowed = ANALYTIC * terms[1] + 1e3 * eps * (np.abs(values[0]) + np.abs(values[1]))
        off = np.abs(values[0] - values[1] - terms[0]) > allowed
    if off.any():
        raise ValueError(
            "method='complex' needs an analytic function: its complex steps and its differences disagree. Does f use "
            "abs, comparisons or the real part of its argument?"
        )


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
    Point(x)  # which refuses one without elements
    if x.ndim not in (1, 2):
        raise ValueError(f"x must have shape (points, n) or (n,), not {x.shape}")
    if x.ndim == 1:
        return np.asarray(numerical_gradient(f, x, h))
    steps: Sequence[Any] = [h] * len(x) if h is None or is_auto(h, x) else list(as_steps(h, x, x.dtype))
    gradient = np.empty(x.shape, dtype=x.dtype.newbyteorder("="))
    for row, (point, step) in enumerate(zip(x, steps, strict=True)):
        gradient[row] = numerical_gradient(f, point, step)
    return gradient


def gradient_of(evaluator: InPlace) -> npt.NDArray[Any]:
    """The gradient by central differences of a function that `InPlace.check` has seen."""
    point = evaluator.point
    found = first_derivatives(Entries(evaluator), point.dtype, Steps(None, point), "central", None, False)
    gradient: npt.NDArray[Any] = point.split(found.value)
    return gradient
