"""What all derivatives have in common: an evaluator for f and x, the steps, and the work in blocks of lanes."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.progress import late_progress
from fastnet._tools.types import FloatArray, IntArray
from fastnet.differentiation.calling import Function, narrowest
from fastnet.differentiation.evaluators import Evaluator, InPlace, Stacked, Tick
from fastnet.differentiation.executors import Shared
from fastnet.differentiation.extrapolation import Found, automatic, with_steps
from fastnet.differentiation.lanes import Lanes
from fastnet.differentiation.methods import (
    COMPLEX_STEP,
    METHODS,
    Plan,
    plan_search,
    plan_steps,
)
from fastnet.differentiation.native import Native, as_native
from fastnet.differentiation.points import Bounds, Point
from fastnet.differentiation.quotients import DOMAIN, ComplexStep, First, Quotients

BLOCK_NUMBERS = 1 << 20  # values of f that are held at once


def as_method(method: object) -> str:
    return checks.as_choice(method, "method", tuple(METHODS))


def evaluator_of(f: Function, point: Point, scalar: bool, vectorized: object, executor: Any, tick: Tick) -> Evaluator:
    """Return the way to evaluate f that its kind and the arguments ask for."""
    stacked, apart = checks.as_flag(vectorized, "vectorized"), executor is not None
    if stacked and apart:
        raise ValueError("vectorized=True evaluates all points in a few calls: leave out executor")
    native = as_native(f, point, scalar, "vectorized" if stacked else "executor" if apart else None)
    if native is not None:
        return Native(native, point, tick)
    if apart:
        return Shared(f, point, scalar, executor, tick)
    return (Stacked if stacked else InPlace)(f, point, scalar, tick)


def progress_of(progress: object, name: str, total: int) -> contextlib.AbstractContextManager[Tick]:
    """Give what is called with the number of points that are done; on a terminal a bar appears after a second."""
    return late_progress(None if progress is None else checks.as_flag(progress, "progress"), name, total)


def first_derivatives(
    lanes: Lanes,
    dtype: np.dtype[Any],
    steps: Callable[[np.dtype[Any]], FloatArray] | None,
    method: str,
    bounds: Bounds | None,
    wants_error: bool,
    element_bounds: Bounds | None = None,
) -> Found:
    """Return the derivatives along all lanes.

    Parameters
    ----------
    lanes : Lanes
    dtype : numpy.dtype
        That of x.
    steps : callable, optional
        Gives the step of each lane, by the dtype that has the digits of the values; None to find them.
    method : str
        One of `METHODS`.
    bounds : tuple of ndarray or None
        The least and largest position of each lane, if there are any.
    wants_error : bool
    element_bounds : tuple of ndarray, optional
        The least and the largest value of each element of x, where these are not the positions of the lanes.
    """
    digits = narrowest(lanes.dtype, dtype)
    eps = float(np.finfo(digits).eps)
    count, centers = len(lanes.centers), lanes.centers.astype(np.float64)
    if method == "complex":
        sizes = np.maximum(np.abs(centers), 1.0)
        given = COMPLEX_STEP * sizes if steps is None else steps(np.dtype(np.longdouble))
        return in_blocks(count, lambda which: with_steps(ComplexStep(lanes), which, given[which], (1.0,), wants_error))
    how = METHODS[method]
    noise = lanes.noise(element_bounds or bounds) if wants_error or steps is None else None
    if steps is None:
        plan, most = plan_search(how, centers, eps, bounds)
        quotients = First(lanes, plan.sides, eps, noise, bounds)
        return in_blocks(count, lambda which: automatic(quotients, which, plan.steps[which], most[which]))
    plan = plan_steps(how, centers, steps(digits), bounds)
    quotients = First(lanes, plan.sides, eps, noise, bounds)
    if bounds is None or not (turned := plan.sides != how.side).any():
        return in_blocks(
            count, lambda which: with_steps(quotients, which, plan.steps[which], how.multiples, wants_error)
        )
    return _by_group(quotients, plan, turned, (how.multiples, how.one_sided), wants_error)


def _by_group(
    quotients: Quotients,
    plan: Plan,
    turned: npt.NDArray[np.bool_],
    multiples: tuple[tuple[float, ...], tuple[float, ...]],
    wants_error: bool,
) -> Found:
    """Return the derivatives where some lanes are differentiated from the other side than the method's."""
    whole: Found | None = None
    for mine, own in ((~turned, multiples[0]), (turned, multiples[1])):
        members = np.flatnonzero(mine)
        if not len(members):
            continue

        def part(which: IntArray, members: IntArray = members, own: tuple[float, ...] = own) -> Found:
            lanes = members[which]
            return with_steps(quotients, lanes, plan.steps[lanes], own, wants_error)

        found = in_blocks(len(members), part)
        if whole is None:
            whole = Found(*(np.empty((len(turned), *a.shape[1:])) for a in found))
        for to, a in zip(whole, found, strict=True):
            to[members] = a
    assert whole is not None
    return whole


def in_blocks(count: int, differentiate: Callable[[IntArray], Found]) -> Found:
    """Return what `differentiate` finds for all lanes, in blocks that hold a bounded number of values."""
    found: list[Found] = []
    done, block = 0, max(1, min(count, BLOCK_NUMBERS // 64))
    while done < count or not found:
        found.append(differentiate(np.arange(done, min(done + block, count))))
        done += block
        value = found[0].value
        block = max(1, BLOCK_NUMBERS // max(1, math.prod(value.shape[1:])))
    return found[0] if len(found) == 1 else Found(*(np.concatenate(parts) for parts in zip(*found, strict=True)))


def check_found(found: Found, where: Callable[[int], str]) -> None:
    """Raise ValueError if no step of a search gave finite values; `where` writes the number of a lane."""
    missing = ~np.isfinite(found.error)
    if missing.any():
        raise ValueError(
            f"h='auto' found no step at {where(int(np.argwhere(missing)[0][0]))} for which f is finite on both sides: "
            f"{DOMAIN}"
        )


def at_center(lanes: Lanes) -> Callable[[int], str]:
    """Return what writes where a lane is, and its centre."""
    return lambda lane: lanes.at(lane, lanes.centers[lane])
