"""Difference quotients of first and second order, each with what rounding may leave of it.

A quotient with the step h is the derivative plus a series in h² where it is central, and in h where it is one-sided.
Every method takes it at one or more steps and extrapolates (`extrapolation`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from fastnet._tools.types import FloatArray, IntArray
from fastnet.differentiation.lanes import Lanes
from fastnet.differentiation.points import Bounds

Array = npt.NDArray[Any]

ENDS = np.array([[1.0, -1.0], [1.0, 0.0], [0.0, -1.0]])  # by the side, 0, 1 or −1: the two positions, in steps from x
DOMAIN = (  # what to do about a function that has no numbers near x
    "where x is the end of the domain, say so by bounds=, or differentiate from one side by method='forward' or "
    "'backward'"
)


class Quotient(NamedTuple):
    """Difference quotients of several lanes.

    Attributes
    ----------
    slopes : ndarray
        Shape (lanes, *shape).
    noise : ndarray
        The rounding error that the values may have caused: broadcasts to that shape; 0 where nobody asked for it.
    """

    slopes: Array
    noise: Array


class Quotients(Protocol):
    """Takes difference quotients.

    Attributes
    ----------
    count : int
        The number of derivatives: of lanes, or of pairs of lanes.
    powers : ndarray of int
        For each, 2 if the quotient's error is a series in h², and 1 if it is one in h.
    """

    count: int
    powers: IntArray

    def take(self, which: IntArray, steps: FloatArray, guarded: bool = False) -> Quotient:
        """Return the quotients of some lanes.

        Where `guarded`, one that f or the step does not allow is NaN; otherwise it raises ValueError.
        """


class First:
    """The quotients (f(x + h) − f(x − h)) / 2h, or between x and x ± h, divided by the distance really taken.

    Parameters
    ----------
    lanes : Lanes
    sides : ndarray of int
        For each lane 0 for both sides, 1 for steps up and −1 for steps down.
    eps : float
        The rounding unit of the values.
    noise : ndarray or None
        What their rounding errors hardly exceed, as `Lanes.noise` measures it; None if that does not matter.
    bounds : tuple of ndarray or None
        The least and the largest position of each lane, if there are any.
    """

    def __init__(self, lanes: Lanes, sides: IntArray, eps: float, noise: Array | None, bounds: Bounds | None) -> None:
        self.count, self._lanes, self._sides, self._eps, self._bounds = len(sides), lanes, sides, eps, bounds
        self._noise = noise
        self.powers = 2 - np.abs(sides)

    def take(self, which: IntArray, steps: FloatArray, guarded: bool = False) -> Quotient:
        sides = self._sides[which]
        positions, distance = self._ends(which, steps, sides)
        if not guarded and np.count_nonzero(distance) < len(distance):
            self._lost(which, steps, distance)
        if np.count_nonzero(sides):
            values = self._one_sided(which, positions, sides, guarded)
        else:
            values = self._lanes.values(which, positions, guarded)
        above, below = values[:, 0], values[:, 1]
        distance = expanded(distance, above.ndim)
        with np.errstate(all="ignore"):
            slopes = (above - below) / distance
            noise = noise_at(self._noise, self._eps, values, which) / distance
        if not guarded:
            check_numbers(slopes, values, lambda lane, end: self._lanes.at(int(which[lane]), positions[lane, end]))
        return Quotient(slopes, noise)

    def _ends(self, which: IntArray, steps: FloatArray, sides: IntArray) -> tuple[Array, FloatArray]:
        """Return the positions above and below, of which one is x itself from one side, and the distance between."""
        centers = self._lanes.centers[which]
        wide = np.promote_types(centers.dtype, np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            ends = centers.astype(wide, copy=False)[:, None] + ENDS[sides] * steps[:, None]
            if self._bounds is not None:
                low, high = (bound[which] for bound in self._bounds)
                ends = np.clip(ends, low[:, None], high[:, None])
            positions = self._lanes.rounded(which, ends)
            taken = positions.astype(wide, copy=False)
            return positions, (taken[:, 0] - taken[:, 1]).astype(np.float64, copy=False)

    def _one_sided(self, which: IntArray, positions: Array, sides: IntArray, guarded: bool) -> Array:
        """Return the values at both ends where one of them is x itself for some lanes."""
        middle = self._lanes.base(which)
        values = np.stack([middle, middle], axis=1)
        for side, ends in ((0, [0, 1]), (1, [0]), (-1, [1])):
            mine = np.flatnonzero(sides == side)
            if len(mine):
                values[mine[:, None], ends] = self._lanes.values(which[mine], positions[mine][:, ends], guarded)
        return values

    def _lost(self, which: IntArray, steps: FloatArray, distance: Array) -> None:
        at = int(np.argmax(distance == 0))
        center = self._lanes.centers[which[at]]
        least = float(np.spacing(np.abs(center)))
        raise ValueError(
            f"h = {float(steps[at]):g} is lost in rounding at {self._lanes.at(int(which[at]), center)}, which is "
            f"{center.dtype}: h must be at least {least:.2g} there"
        )


class ComplexStep:
    """The quotients Im f(x + ih) / h, which subtract nothing: their error is h²/6·f‴ at any small h.

    W. Squire and G. Trapp, *Using complex variables to estimate derivatives of real functions*, SIAM Review 40, 1998.
    """

    def __init__(self, lanes: Lanes) -> None:
        self.count, self._lanes = len(lanes.centers), lanes
        self.powers = np.full(self.count, 2)

    def take(self, which: IntArray, steps: FloatArray, guarded: bool = False) -> Quotient:
        positions = (self._lanes.centers[which].astype(np.complex128) + 1j * steps)[:, None]
        values = self._lanes.values(which, positions, guarded).imag
        slopes = values[:, 0] / expanded(steps, values.ndim - 1)
        if not guarded:
            check_numbers(slopes, values, lambda lane, end: self._lanes.at(int(which[lane]), positions[lane, end]))
        return Quotient(slopes, np.finfo(np.float64).eps * np.abs(slopes))


def check_numbers(quotients: Array, values: Array, at: Callable[[int, int], str]) -> None:
    """Raise ValueError where a quotient is NaN, because a value is NaN, or infinite like another one.

    Parameters
    ----------
    quotients : ndarray
        Shape (lanes, *shape).
    values : ndarray
        Those that each was made of, shape (lanes, ends, *shape).
    at : callable
        Writes the point of a lane and an end.
    """
    missing = np.isnan(quotients)
    if not np.count_nonzero(missing):
        return
    lane, *element = (int(i) for i in np.argwhere(missing)[0])
    ends = np.moveaxis(values[lane], 0, -1)[tuple(element)]
    end = int(np.argmax(np.where(np.isnan(ends), 2, np.isinf(ends))))
    of = f"element [{', '.join(map(str, element))}] of f" if element else "f"
    raise ValueError(f"{of} is {ends[end]} at {at(lane, end)}, so that no difference can be taken: {DOMAIN}")


def noise_at(noise: Array | None, eps: float, values: Array, which: IntArray) -> Array | float:
    """Return the rounding error to expect of each lane's values, shape (lanes, ends, *shape).

    It is a unit of the largest, or what was measured, whichever is more; 0 if `noise` is None.
    """
    if noise is None:
        return 0.0
    return np.asarray(np.maximum(eps * np.abs(values).max(axis=1), noise if len(noise) == 1 else noise[which]))


def expanded(values: Array, ndim: int) -> Array:
    """Return one value for each lane as an array that broadcasts to (lanes, *shape)."""
    return values if ndim == 1 else values.reshape(-1, *[1] * (ndim - 1))
