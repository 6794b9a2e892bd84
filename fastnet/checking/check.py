"""`check_gradient`: a gradient of a function or a network against central differences, entry by entry."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.checks import as_step
from fastnet._tools.types import FloatArray
from fastnet.checking.result import GradientCheck
from fastnet.checking.verdict import (
    BoolArray,
    Layout,
    SecondOpinion,
    default_rtol,
    judge,
    kinked_entries,
    network_floor,
    rounding_error,
)
from fastnet.differentiation import numerical_gradient
from fastnet.differentiation.calling import Function
from fastnet.networks import NumericalGradient
from fastnet.networks.chain import chain_of


@runtime_checkable
class NetworkLike(Protocol):
    """What `check_gradient` needs of a network."""

    params: dict[str, FloatArray]

    def loss(self, x: npt.ArrayLike, t: npt.ArrayLike) -> float: ...
    def numerical_gradient(self, x: npt.ArrayLike, t: npt.ArrayLike, h: float = ...) -> Mapping[str, FloatArray]: ...


@dataclass(frozen=True)
class _Problem:
    """The two gradients to compare, by flat number, of a function or of a network."""

    layout: Layout
    dtype: np.dtype[Any]
    analytic: FloatArray
    numerical: Callable[
        [float], tuple[FloatArray, BoolArray | None]
    ]  # takes the step; gives the gradient, and where it straddles a kink
    value: Callable[[], float]  # the value of the function
    floor: float = 0.0  # the rounding error of the analytic gradient


def check_gradient(
    f: Function | NetworkLike,
    gradient: Any,
    x: Any,
    h: float | None = None,
    *,
    rtol: float | None = None,
    atol: float | None = None,
    worst: int = 5,
) -> GradientCheck:
    """Check a gradient against central differences, entry by entry.

    An entry passes if the two differ by at most ``atol + rtol * max(abs(analytic), abs(numerical))``. By
    default the limit is 1e-4 of the entry plus 1e-5 of the largest entry in its array (float32: 1e-3 and 1e-4),
    which is less than the effect of a mistake in a formula. If a correct gradient differs by more, the reason is
    the central difference: its truncation error is about h²/6·f‴, its rounding error about eps·|f|/h. Both show
    when the step changes. So if, and only if, entries differ by more than the limit, the numerical gradient is
    computed once more with the step 2h. The limit of such an entry is then raised by twice the change of the
    entry, by 8 times the median change of all such entries, by eps·max(|f|, 1)/h if fewer than ten or less than
    half of them changed at all, and in a network by 8·eps for the rounding of its backprop. Entries that pass
    for this reason alone are counted as `excused`. So are entries of fastnet's own networks whose step moves a
    ReLU across its kink: their central difference need not equal a derivative.

    Parameters
    ----------
    f : callable or network
        A function that takes `x` and returns one number. Or a network: anything with `params`, ``loss(x, t)``
        and ``numerical_gradient(x, t, h=…)``.
    gradient : array_like, dict of str to array_like, or callable
        The gradient to check, with the shape of `x`. For a dict `x`, and for a network's `params`, a dict with
        the same names and shapes. Or a function that returns it, called with `x`, or with a network's batch as
        ``net.gradient`` is.
    x : ndarray, dict of str to ndarray, or pair
        The point: arrays of floating-point numbers, which are changed in place, one element at a time, and
        restored. For a network its batch, the pair ``(x, t)``.
    h : float, optional
        The step. By default 1e-4, and 1e-2 for float32, where a step of 1e-4 leaves little but rounding error.
    rtol : float, optional
        1e-4 by default, 1e-3 for float32.
    atol : float, optional
        By default as described. With a number, that limit holds and nothing is computed twice.
    worst : int, default 5
        The number of worst entries to list.

    Returns
    -------
    GradientCheck
        True in a condition if, and only if, the check passed. NaN and infinities in either gradient fail.

    Raises
    ------
    TypeError
        If `f` is neither a function nor a network, or another argument has the wrong type.
    ValueError
        If a name in `gradient` is missing or unexpected, a shape differs, `x` is empty or read-only, or a
        number is out of its range.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> x = np.array([3.0, 4.0])
    >>> bool(fastnet.check_gradient(lambda x: np.sum(x**2), 2 * x, x))
    True
    >>> print(fastnet.check_gradient(lambda x: np.sum(x**2), [6.0, -8.0], x, worst=1))
    FAILED: 1 of 2 entries differ
      largest difference 16, 2 of the largest entry, at x[1]
      worst entries      analytic     numerical  difference  allowed
      x[1]                     -8             8          16  0.00088
    >>> net = fastnet.TwoLayerNet(4, 3, 2, seed=0)
    >>> batch = np.ones((5, 4)), [0, 1, 0, 1, 1]
    >>> fastnet.check_gradient(net, net.gradient(*batch), batch).passed
    True
    """
    problem = _of_network(f, gradient, x) if isinstance(f, NetworkLike) else _of_function(f, gradient, x)
    if problem.layout.size == 0:
        raise ValueError("x is empty: there is no entry to check")
    step = as_step(h, problem.dtype)
    relative = default_rtol(problem.dtype) if rtol is None else checks.as_not_negative(rtol, "rtol")
    absolute = None if atol is None else checks.as_not_negative(atol, "atol")
    count = checks.as_count(worst, "worst", least=0)
    second = SecondOpinion(
        doubled=lambda entries: problem.numerical(2 * step)[0][entries],
        rounding=lambda: rounding_error(problem.dtype, problem.value(), step),
        floor=problem.floor,
    )
    numerical, kinked = problem.numerical(step)
    return judge(
        problem.layout,
        problem.analytic,
        numerical,
        h=step,
        rtol=relative,
        atol=absolute,
        kinked=kinked,
        second=second,
        worst=count,
    )


def _of_network(net: NetworkLike, gradient: Any, batch: Any) -> _Problem:
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise TypeError(f"for a network, x must be its batch, a pair (x, t), not {checks.type_name(batch)}")
    x, t = batch
    chain = chain_of(net)
    params = net.params if chain is None else chain.named(chain.spec.parameters)
    layout = Layout(params)

    def numerical(h: float) -> tuple[FloatArray, BoolArray | None]:
        answer = net.numerical_gradient(x, t, h=h)
        kinked = None
        if chain is not None and isinstance(answer, NumericalGradient):
            kinked = kinked_entries(chain.spec, answer.diagnostics)
        return layout.flat(answer, "numerical_gradient"), kinked

    given = gradient(x, t) if callable(gradient) else gradient
    analytic = layout.flat(_named(given), "gradient")
    dtype = _narrowest(params)
    return _Problem(layout, dtype, analytic, numerical, lambda: net.loss(x, t), network_floor(dtype))


def _of_function(f: Any, gradient: Any, x: Any) -> _Problem:
    if not callable(f):
        raise TypeError(
            f"f must be a function of x, or a network with params, loss and numerical_gradient, not "
            f"{checks.type_name(f)}: pass the function itself, not its value"
        )
    named = isinstance(x, dict)
    arrays = x if named else {"x": x}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            what, wrong = f"x[{name!r}]" if named else "x", checks.type_name(array)
            raise TypeError(f"{what} must be a NumPy array, since it is changed in place, not {wrong}")
    layout = Layout(arrays)

    def numerical(h: float) -> tuple[FloatArray, None]:
        answer = {name: numerical_gradient(lambda _: f(x), array, h) for name, array in arrays.items()}
        return layout.flat(answer, "numerical gradient"), None

    given = gradient(x) if callable(gradient) else gradient
    analytic = layout.flat(_named(given) if named else {"x": given}, "gradient")
    return _Problem(layout, _narrowest(arrays), analytic, numerical, lambda: float(f(x)))


def _named(gradient: Any) -> Mapping[str, npt.ArrayLike]:
    if not isinstance(gradient, Mapping):
        wrong = checks.type_name(gradient)
        raise TypeError(f"gradient must be a dict with an array for each parameter, not {wrong}")
    return gradient


def _narrowest(arrays: Mapping[str, npt.NDArray[Any]]) -> np.dtype[Any]:
    return min((a.dtype for a in arrays.values()), key=lambda dtype: dtype.itemsize, default=np.dtype(float))
