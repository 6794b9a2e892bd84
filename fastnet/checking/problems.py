"""What `check_gradient` is asked: a function or a network, the gradient to check, and how it is differentiated."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet import backends
from fastnet._tools import checks
from fastnet._tools.types import FloatArray
from fastnet.checking.lines import ChainLines, Lines
from fastnet.checking.opinions import FinerStep, InTurn, Ladder, rounding_floor
from fastnet.checking.probes import Probe
from fastnet.checking.randomness import GlobalRandom
from fastnet.checking.result import GradientCheck
from fastnet.checking.verdict import (
    BoolArray,
    Comparison,
    SecondOpinion,
    default_rtol,
    judge,
    kinked_entries,
    taylor_order,
)
from fastnet.differentiation import numerical_gradient
from fastnet.differentiation.calling import Caller, check_repeatable, narrowest
from fastnet.differentiation.layout import Layout
from fastnet.differentiation.steps import as_steps
from fastnet.networks.base import BaseNetwork
from fastnet.networks.chain import Chain
from fastnet.networks.computation import Computation, Float64Loss
from fastnet.networks.overriding import FUNCTION, overridden

HALVINGS = (4, 2, 1, 0.5)  # of the step: distances at which the Taylor remainder is measured
FINER = {"float64": 1e-3, "float32": 1e-2}  # of the step: so that rounding does not decide on which side of a kink x is


@dataclass(frozen=True)
class Problem:
    """A gradient to check, and the function that it is of.

    Attributes
    ----------
    layout : Layout
    dtype : numpy.dtype
        The digits of the gradient.
    analytic : ndarray
        By flat number.
    numerical : callable
        Gives the numerical gradient by flat number.
    steps : ndarray
        The step of each entry.
    lines : callable
        Gives the function along a line for each array.
    second : SecondOpinion
    """

    layout: Layout
    dtype: np.dtype[Any]
    analytic: FloatArray
    numerical: Callable[[], FloatArray]
    steps: FloatArray
    lines: Callable[[], Lines]
    second: SecondOpinion


def of_function(f: Any, gradient: Any, x: Any, h: Any, executor: Any = None) -> Problem:
    """Return the problem of a function of an array or of a dict of arrays; an executor evaluates its differences."""
    if not callable(f):
        raise TypeError(
            f"f must be a function of x, or a network with params and loss, not {checks.type_name(f)}: pass the "
            f"function itself, not its value"
        )
    named = isinstance(x, dict)
    arrays = x if named else {"x": x}
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            what, wrong = f"x[{name!r}]" if named else "x", checks.type_name(array)
            raise TypeError(f"{what} must be a NumPy array, since it is changed in place, not {wrong}")
    call = Caller(f, scalar=True)
    given = gradient(x) if callable(gradient) else gradient
    analytic = _as_named(given) if named else {"x": given}
    steps = h if named or h is None else _as_named_steps(h)
    problem = moved_in_place(arrays, lambda: call(x), analytic, steps, call)
    if executor is None:
        return problem

    def numerical() -> FloatArray:
        found = numerical_gradient(f, x, h, executor=executor)
        return problem.layout.flat(found if named else {"x": found}, "numerical_gradient")

    return replace(problem, numerical=numerical)


def moved_in_place(
    arrays: Mapping[str, npt.NDArray[Any]],
    f: Callable[[], Any],
    analytic: Mapping[str, npt.ArrayLike],
    h: Any,
    call: Caller | None = None,
) -> Problem:
    """Return the problem of a function of arrays that are changed in place, and restored."""
    for array in arrays.values():
        checks.check_perturbable(array)
    layout = Layout(arrays)
    if layout.size == 0:
        raise ValueError("x is empty: there is no entry to check")
    flat = layout.flat(analytic, "gradient")
    check_repeatable(f)
    values = None if call is None else call.dtype
    digits = narrowest(values, *(array.dtype for array in arrays.values()))
    given = narrowest(
        digits, *(a.dtype for a in analytic.values() if isinstance(a, np.ndarray) and a.dtype.kind == "f")
    )
    steps = steps_of(arrays, h, digits)
    probe = Probe(arrays, lambda: float(f()), float(np.finfo(digits if values is None else values).eps))
    return Problem(
        layout,
        given,
        flat,
        lambda: probe.differences(steps),
        steps,
        lambda: probe,
        Ladder(probe, steps, 0.0),
    )


def steps_of(arrays: Mapping[str, npt.NDArray[Any]], h: Any, digits: np.dtype[Any]) -> FloatArray:
    """Return the step of each entry by flat number: by default, a number for all, or a dict of steps by array."""
    if isinstance(h, Mapping):
        missing = [repr(name) for name in arrays if name not in h]
        if missing:
            raise ValueError(f"h has no {', '.join(missing)}: give a step for each array of x")
    found = []
    for name, array in arrays.items():
        step = h[name] if isinstance(h, Mapping) else h
        if step is not None and np.ndim(step) == 0:
            step = checks.as_step(step, array.dtype)
        found.append(as_steps(step, array, narrowest(digits, array.dtype)).ravel())
    return np.concatenate(found).astype(np.float64)


def of_network(net: Any, gradient: Any, batch: Any, h: Any, inputs: bool) -> Problem:
    """Return the problem of a network's parameters, or of its inputs."""
    if not isinstance(batch, (tuple, list)) or len(batch) != 2:
        raise TypeError(f"for a network, x must be its batch, a pair (x, t), not {checks.type_name(batch)}")
    x, t = batch
    if not isinstance(net, BaseNetwork) or overridden(net, *FUNCTION, "numerical_gradient"):
        return _of_any_network(net, gradient, x, t, h, inputs)
    computation = net._computation()
    rows, targets = computation.batch(x, t)
    given = gradient(x, t) if callable(gradient) else gradient
    if inputs:
        analytic: Mapping[str, Any] = {"x": given if np.ndim(x) > 1 else np.expand_dims(given, 0)}
    else:
        analytic = _as_named(given)
    if not isinstance(computation, Chain):
        return _of_layers(computation, analytic, rows, targets, h, inputs)
    return _of_chain(computation, analytic, rows, targets, h, inputs)


def _of_layers(
    computation: Computation, analytic: Mapping[str, Any], rows: Any, targets: Any, h: Any, inputs: bool
) -> Problem:
    """A network that is computed layer by layer: differences in float64, on the side of every kink where it is."""
    wide = computation.in_float64(rows, targets)
    arrays = {"x": wide.rows} if inputs else wide.params
    problem = moved_in_place(arrays, wide.value, analytic, {"x": h} if inputs and np.ndim(h) else h)
    return of_backprop(problem, computation.dtype)


def _of_chain(
    chain: Chain,
    analytic: Mapping[str, Any],
    rows: Any,
    targets: Any,
    h: Any,
    inputs: bool,
) -> Problem:
    """A chain: exact differences of all entries at once, where its loss and the backend have them."""
    exact = [a for a in backends.active().algorithms if a != "loop"]
    if np.ndim(h) or isinstance(h, Mapping) or not exact or not chain.spec.has_exact_difference:
        wide = chain.in_float64(rows, targets)
        arrays = {"x": wide.rows} if inputs else wide.params
        return of_backprop(moved_in_place(arrays, wide.value, analytic, h), chain.dtype)
    layout = Layout({"x": rows} if inputs else chain.named(chain.spec.parameters))
    flat = layout.flat(analytic, "gradient")
    step = checks.as_step(h, chain.dtype)
    steps = np.full(layout.size, step)
    floor = rounding_floor(chain.dtype)

    def ladder(loss: Callable[..., Float64Loss]) -> Ladder:
        wide = loss(rows, targets)
        arrays = {"x": wide.rows} if inputs else wide.params
        return Ladder(Probe(arrays, wide.value, float(np.finfo(np.float64).eps)), steps, floor)

    def numerical() -> FloatArray:
        if inputs:
            return chain.numerical_input_gradient(rows, targets, step, exact[0]).astype(np.float64).ravel()
        return layout.flat(chain.numerical_gradient(rows, targets, step, exact[0]), "numerical_gradient")

    def finer() -> tuple[FloatArray, BoolArray | None]:
        wide = Chain(chain.in_float64_spec(), chain.names)
        t = targets if targets.ndim == 1 else targets.astype(np.float64)
        answer = wide.numerical_gradient(rows.astype(np.float64), t, step * FINER[chain.dtype.name], exact[0])
        return layout.flat(answer, "numerical_gradient"), kinked_entries(wide.spec, answer.diagnostics)

    at_kinks = InTurn((lambda: ladder(chain.on_branch), lambda: ladder(chain.in_float64)))
    second = at_kinks if inputs else FinerStep(finer, floor, at_kinks)

    def lines() -> ChainLines:
        return ChainLines(chain, rows, targets, inputs)

    return Problem(layout, chain.dtype, flat, numerical, steps, lines, second)


def of_backprop(problem: Problem, dtype: np.dtype[Any]) -> Problem:
    """The same problem for a gradient of a network with parameters of `dtype`, and with the rounding of backprop."""
    second = problem.second
    assert isinstance(second, Ladder)
    return replace(
        problem,
        dtype=narrowest(problem.dtype, dtype),
        second=replace(second, floor=rounding_floor(dtype)),
    )


def _of_any_network(net: Any, gradient: Any, x: Any, t: Any, h: Any, inputs: bool) -> Problem:
    """A network of another library or of the user's: its loss as it is, with its parameters changed in place."""
    loss = net.training_loss if isinstance(net, BaseNetwork) else net.loss
    options = {"train_flg": True} if "train_flg" in _parameters(loss) else {}
    params = net.params
    if not isinstance(params, dict):
        raise TypeError(f"net.params must be a dict of arrays, not {checks.type_name(params)}")
    arrays: dict[str, Any] = {"x": x} if inputs else params
    for name, array in arrays.items():
        if not isinstance(array, np.ndarray):
            what, wrong = "x" if inputs else f"params[{name!r}]", checks.type_name(array)
            raise TypeError(f"{what} must be a NumPy array, since it is changed in place, not {wrong}")
    random = GlobalRandom()
    given = gradient(x, t) if callable(gradient) else gradient
    draws = callable(gradient) and random.has_moved()
    state = dict(net.state) if isinstance(net, BaseNetwork) else {}

    def f(_: Any) -> Any:
        if state:
            net.state.update(state)
        if draws:  # the masks that the gradient is of
            random.put_back()
        return loss(x, t, **options)

    call = Caller(f, scalar=True)
    call({**params, "x": x, "t": t})  # which it must not change
    problem = moved_in_place(arrays, lambda: call(None), {"x": given} if inputs else _as_named(given), h, call)
    return of_backprop(problem, problem.dtype)


def _parameters(function: Any) -> Mapping[str, Any]:
    try:
        return inspect.signature(function).parameters
    except (TypeError, ValueError):
        return {}


def _as_named(gradient: Any) -> Mapping[str, npt.ArrayLike]:
    if not isinstance(gradient, Mapping):
        wrong = checks.type_name(gradient)
        raise TypeError(f"gradient must be a dict with an array for each parameter, not {wrong}")
    return gradient


def _as_named_steps(h: Any) -> Any:
    return {"x": h} if np.ndim(h) else h


def check_problem(problem: Problem, rtol: float | None, atol: float | None, worst: int) -> GradientCheck:
    """Compare the two gradients of a problem."""
    relative = default_rtol(problem.dtype) if rtol is None else rtol
    comparison = Comparison(
        problem.layout,
        problem.analytic,
        problem.numerical(),
        _middle(problem.steps),
        relative,
        atol,
        orders={} if atol is not None else _orders(problem),
    )
    return judge(comparison, problem.second, worst)


def _middle(steps: FloatArray) -> float:
    """Return the median of steps, of which most often all are equal."""
    return float(steps[0]) if (steps == steps[0]).all() else float(np.median(steps))


def _orders(problem: Problem) -> dict[str, float]:
    """Return the order of the Taylor remainder with respect to each array."""
    lines, layout = problem.lines(), problem.layout
    noise, found = lines.noise(), {}
    for name, start, size in zip(layout.names, layout.starts, layout.sizes, strict=False):
        gradient = problem.analytic[start : start + size]
        step = _middle(problem.steps[start : start + size])
        distances = [halving * step for halving in HALVINGS]
        found[name] = taylor_order(lines.remainders(name, gradient, distances), noise)
    return found
