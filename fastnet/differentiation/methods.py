"""The methods by name: from which side a quotient is taken, at which multiples of the step, and what bounds change."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnet._tools.types import FloatArray, IntArray
from fastnet.differentiation.points import Bounds, Point

ONE_SIDED_ROOM = 2.0**-6  # of the room on the other side: with less, differences are taken from that side alone


class Method(NamedTuple):
    """How a derivative is made of difference quotients with given steps.

    Attributes
    ----------
    side : int
        0 for both sides, 1 for steps up, −1 for steps down.
    multiples : tuple of float
        Of the step, the largest first: at these the quotients are taken from which the method extrapolates.
    one_sided : tuple of float
        The same where bounds leave room on one side only. Each column removes one power of h, not two.
    """

    side: int
    multiples: tuple[float, ...]
    one_sided: tuple[float, ...]


METHODS = {
    "central": Method(0, (1.0,), (2.0, 1.0)),
    "forward": Method(1, (1.0,), (1.0,)),
    "backward": Method(-1, (1.0,), (1.0,)),
    "five-point": Method(0, (2.0, 1.0), (4.0, 2.0, 1.0, 0.5)),
    "richardson": Method(0, (1.0, 0.5, 0.25), (2.0, 1.0, 0.5, 0.25)),
    "complex": Method(0, (1.0,), (1.0,)),
}
COMPLEX_STEP = 1e-20  # of 1 or |x|, whichever is more: its square is lost beside 1 in every dtype


def as_bounds(bounds: Any, point: Point) -> Bounds | None:
    """Return the least and the largest value of each element by flat number; None if there are none.

    Raises
    ------
    TypeError, ValueError
        If `bounds` is not a pair, does not fit x, or excludes it.
    """
    if bounds is None:
        return None
    if not isinstance(bounds, (tuple, list)) or len(bounds) != 2:
        raise TypeError(f"bounds must be a pair (low, high) of numbers or arrays, not {bounds!r}")

    def spread(value: Any, name: str, missing: float) -> FloatArray:
        def fit(part: Any, array: npt.NDArray[Any], what: str) -> FloatArray:
            numbers = np.asarray(missing if part is None else part)
            if numbers.dtype.kind not in "fiu":
                raise TypeError(f"{what} must be numbers, not {numbers.dtype}")
            if np.isnan(numbers).any():
                raise ValueError(f"{what} must not be nan")
            try:
                return np.broadcast_to(numbers.astype(np.float64), array.shape)
            except ValueError:
                raise ValueError(f"{what} of shape {numbers.shape} does not fit x of shape {array.shape}") from None

        return point.spread(value, name, fit)

    low, high = spread(bounds[0], "bounds[0]", -np.inf), spread(bounds[1], "bounds[1]", np.inf)
    numbers = point.numbers().astype(np.float64)
    outside = (numbers < low) | (numbers > high) | (low >= high)
    if outside.any():
        at = int(np.argmax(outside))
        raise ValueError(
            f"bounds exclude {point.where(at)} = {numbers[at]:g}: they are {low[at]:g} and {high[at]:g} there"
            if low[at] < high[at]
            else f"bounds leave no room at {point.where(at)}: they are {low[at]:g} and {high[at]:g} there"
        )
    return low, high


def inward(steps: FloatArray, point: Point, bounds: Bounds | None) -> FloatArray:
    """Return steps of all elements within bounds: down where there is no room above, shorter where there is none."""
    if bounds is None:
        return steps
    numbers = point.numbers().astype(np.float64)
    above, below = bounds[1] - numbers, numbers - bounds[0]
    return np.where((steps <= above) | (above >= below), np.minimum(steps, above), -np.minimum(steps, below))


class Plan(NamedTuple):
    """For each lane, the side on which its quotients are taken, and its steps."""

    sides: IntArray
    steps: FloatArray


def plan_steps(method: Method, centers: FloatArray, steps: FloatArray, bounds: Bounds | None) -> Plan:
    """Return the steps of a method within bounds: to one side where the other has no room, shorter where none has."""
    if bounds is None:
        return Plan(np.full(len(centers), method.side), steps)
    below, above = centers - bounds[0], bounds[1] - centers
    reach, far = method.multiples[0], method.one_sided[0]
    sides = np.full(len(centers), method.side)
    if method.side == 0:
        tight = np.minimum(below, above) < reach * steps
        sides[tight] = np.where(above >= below, 1, -1)[tight]
    else:
        own, other = (above, below) if method.side == 1 else (below, above)
        turned = (own < far * steps) & (other > own)
        sides[turned] = -method.side
    room = np.where(sides == 1, above, np.where(sides == -1, below, np.inf))
    return Plan(sides, np.minimum(steps, room / far))


def plan_search(method: Method, centers: FloatArray, eps: float, bounds: Bounds | None) -> tuple[Plan, FloatArray]:
    """Return the sides and the first steps of a search for the step, and the largest steps that it may take."""
    unbounded = np.full(len(centers), np.inf)
    below, above = (unbounded, unbounded) if bounds is None else (centers - bounds[0], bounds[1] - centers)
    sizes = np.where(np.isfinite(centers), np.abs(centers), 1.0)
    sides = np.full(len(centers), method.side)
    if method.side == 0:
        tight = np.minimum(below, above) < ONE_SIDED_ROOM * np.minimum(np.maximum(below, above), np.maximum(sizes, 1))
        sides[tight] = np.where(above >= below, 1, -1)[tight]
    else:
        own, other = (above, below) if method.side == 1 else (below, above)
        turned = own < ONE_SIDED_ROOM * np.minimum(other, np.maximum(sizes, 1))
        sides[turned] = -method.side
    room = np.where(sides == 1, above, np.where(sides == -1, below, np.minimum(below, above)))
    most = np.minimum(room, np.maximum(sizes, 1.0))
    starts = np.where(sizes > 0, np.minimum(sizes, 1.0), 1.0) * eps**0.2
    starts = np.maximum(np.minimum(starts, most / 8), eps**0.75 * sizes)
    starts = np.maximum(starts, np.finfo(np.float64).tiny * 2**60)
    return Plan(sides, 2.0 ** np.floor(np.log2(starts))), most
