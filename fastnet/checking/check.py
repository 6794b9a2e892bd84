"""`check_gradient`: a gradient of a function or a network against central differences, entry by entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Protocol, runtime_checkable

import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray
from fastnet.checking.layers import first_wrong_layer, owner_of
from fastnet.checking.problems import check_problem, of_function, of_network
from fastnet.checking.result import GradientCheck, GradientCheckError
from fastnet.differentiation.calling import Function
from fastnet.networks import Network


@runtime_checkable
class NetworkLike(Protocol):
    """What `check_gradient` needs of a network."""

    params: dict[str, FloatArray]

    def loss(self, x: npt.ArrayLike, t: npt.ArrayLike) -> float: ...


def check_gradient(
    f: Function | NetworkLike,
    gradient: Any,
    x: Any,
    h: float | npt.ArrayLike | Mapping[str, npt.ArrayLike] | None = None,
    *,
    inputs: bool = False,
    rtol: float | None = None,
    atol: float | None = None,
    worst: int = 5,
    raise_exception: bool = False,
    executor: Any = None,
) -> GradientCheck:
    """Check a gradient against central differences, entry by entry.

    An entry agrees if the two differ by at most ``rtol * max(abs(analytic), abs(numerical))``, plus a tenth of `rtol`
    of the largest entry in its array. That is less than the effect of a mistake in a formula. If a correct gradient
    differs by more, the reason is the central difference: its truncation, its rounding, or a kink within the step. So
    entries that differ by more than the limit, and only these, are looked at again.

    A chain of affine layers and activations is differentiated once more with a step 1000 times smaller: its exact
    differences have no rounding error. Of any other function, the slopes to either side are taken with steps of h, h/2,
    h/8, h/64 and h/512. An entry agrees if it does so at one of them. The rounding noise of the function is measured,
    and the limit raised by 8 times its effect; where that is more than a tenth of `rtol` of the largest entry of the
    array, the entry is `excused`. So is an entry at a kink of the function, if it lies between the slopes of the two
    sides. If the noise would hide gross mistakes, the verdict is inconclusive.

    fastnet's own networks of other layers are evaluated in float64, on the side of every kink on which they are.

    Parameters
    ----------
    f : callable or network
        A function that takes `x` and returns one number. Or a network: anything with `params`, a dict of arrays, and
        ``loss(x, t)``, which is differentiated. If its `loss` has a parameter ``train_flg``, it is True.
    gradient : array_like, dict of str to array_like, or callable
        The gradient to check, with the shape of `x`. For a dict `x`, and for a network's `params`, a dict with
        the same names and shapes. Or a function that returns it, called with `x`, or with a network's batch as
        ``net.gradient`` is.
    x : ndarray, dict of str to ndarray, or pair
        The point: arrays of floating-point numbers, which are changed in place, one element at a time, and
        restored. For a network its batch, the pair ``(x, t)``.
    h : float, array_like or dict, optional
        The step; or a step for each entry, in the form of `gradient`. By default 1e-4 (float32: 1e-2, float16: 1/8),
        and ``eps^(1/3)·|x|`` where that is more; by the dtype of `x` or of the values of `f`, whichever has fewer
        digits.
    inputs : bool, default False
        Whether `gradient` is that of a network's loss with respect to the x of its batch, as ``net.input_gradient``
        returns it, instead of its parameters.
    rtol : float, optional
        1e-4 by default, 1e-3 for float32.
    atol : float, optional
        With a number, the limit is ``atol + rtol * max(abs(analytic), abs(numerical))``, and no entry is looked at
        again.
    worst : int, default 5
        The number of worst entries to list.
    raise_exception : bool, default False
        Whether to raise GradientCheckError if the check does not pass.
    executor : concurrent.futures.Executor, optional
        For a function: what evaluates its differences, as for `numerical_gradient`. Entries that differ are looked at
        again without it.

    Returns
    -------
    GradientCheck
        True in a condition if, and only if, the check passed. NaN and infinities in either gradient fail.

    Raises
    ------
    GradientCheckError
        If `raise_exception` is True and the check does not pass. It is an AssertionError with the table of the worst
        entries.
    TypeError
        If `f` is neither a function nor a network, or another argument has the wrong type.
    ValueError
        If a name in `gradient` is missing or unexpected, a shape differs, `x` is empty or read-only, a number is out of
        its range, `f` changes `x`, or two calls of `f` at one point differ.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> x = np.array([3.0, 4.0])
    >>> bool(fastnet.check_gradient(lambda x: np.sum(x**2), 2 * x, x))
    True
    >>> print(fastnet.check_gradient(lambda x: np.sum(x**2), [6.0, -8.0], x, worst=1))
    FAILED: 1 of 2 entries differ
      largest difference 16, 2 of the largest entry, at x[1]
      order of the Taylor remainder (2 if right, 1 if wrong): x 1.00
      worst entries      analytic     numerical  difference  allowed
      x[1]                     -8             8          16  0.00088
    >>> net = fastnet.TwoLayerNet(4, 3, 2, seed=0)
    >>> batch = np.ones((5, 4)), [0, 1, 0, 1, 1]
    >>> fastnet.check_gradient(net, net.gradient(*batch), batch).passed
    True
    """
    relative = None if rtol is None else checks.as_not_negative(rtol, "rtol")
    absolute = None if atol is None else checks.as_not_negative(atol, "atol")
    count = checks.as_count(worst, "worst", least=0)
    raises = checks.as_flag(raise_exception, "raise_exception")
    wants_inputs = checks.as_flag(inputs, "inputs")
    if executor is not None and isinstance(f, NetworkLike):
        raise TypeError("executor is for functions: the differences of a network are made by the backend")
    if isinstance(f, NetworkLike):
        problem = of_network(f, gradient, x, h, wants_inputs)
    elif wants_inputs:
        raise TypeError(f"inputs=True is for networks, but f is {checks.type_name(f)}: the gradient of f is that of x")
    else:
        problem = of_function(f, gradient, x, h, executor)
    check = check_problem(problem, relative, absolute, count)
    if check.failed and isinstance(f, Network) and check.first_wrong is not None:
        # Of the network's own gradient, each layer can be asked.
        place = first_wrong_layer(f, *x) if getattr(gradient, "__self__", None) is f else None
        check = replace(check, first_wrong=place or owner_of(f, check.first_wrong))
    if raises and not check.passed:
        raise GradientCheckError(str(check))
    return check
