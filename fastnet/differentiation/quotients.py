"""Difference quotients of first and second order, each with what rounding may leave of it.

A quotient with the step h is the derivative plus a series in h² where it is central, and in h where it is one-sided.
Every method takes it at one or more steps and extrapolates (`extrapolation`).
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import numpy.typing as npt

from fastnet._tools.types import FloatArray, IntArray
from fastnet.differentiation.lanes import Lanes
from fastnet.differentiation.points import Bounds

Array = npt.NDArray[Any]


class Quotient(NamedTuple):
    """Difference quotients of several lanes.

    Attributes
    ----------
    slopes : ndarray
        Shape (lanes, *shape).
    noise : ndarray
        The rounding error that the values may have caused, the same shape.
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

    def take(self, which: IntArray, steps: FloatArray, guarded: bool = False) -> Quotient: ...


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
        self.powers = np.where(sides == 0, 2, 1)

    def take(self, which: IntArray, steps: FloatArray, guarded: bool = False) -> Quotient:
        sides = self._sides[which]
        upper, lower = self._positions(which, steps, sides)
        wide = np.promote_types(upper.dtype, np.float64)
        with np.errstate(over="ignore", invalid="ignore"):
            distance = upper.astype(wide) - lower.astype(wide)
        if (distance == 0).any() and not guarded:
            self._lost(which, steps, distance)
        if (sides == 0).all():
            values = self._lanes.values(which, np.stack([upper, lower], axis=1), guarded)
            above, below = values[:, 0], values[:, 1]
        else:
            above, below = self._one_sided(which, upper, lower, sides, guarded)
        distance = expanded(distance.astype(np.float64), above.ndim)
        with np.errstate(all="ignore"):
            noise = noise_at(self._noise, self._eps, np.maximum(abs(above), abs(below)), which)
            return Quotient((above - below) / distance, noise / distance)

    def _positions(self, which: IntArray, steps: FloatArray, sides: IntArray) -> tuple[Array, Array]:
        centers = self._lanes.centers[which]
        wide = centers.astype(np.promote_types(centers.dtype, np.float64))
        with np.errstate(over="ignore", invalid="ignore"):
            ends = np.stack([wide + (sides >= 0) * steps, wide - (sides <= 0) * steps], axis=1)
        if self._bounds is not None:
            low, high = (bound[which] for bound in self._bounds)
            ends = np.clip(ends, low[:, None], high[:, None])
        upper, lower = self._lanes.rounded(which, ends).T
        return upper, lower

    def _one_sided(
        self, which: IntArray, upper: Array, lower: Array, sides: IntArray, guarded: bool
    ) -> tuple[Array, Array]:
        """Return the values at both ends where one of them is x itself for some lanes."""
        middle = self._lanes.base(which)
        above, below = np.array(middle), np.array(middle)
        for side in (0, 1, -1):
            mine = sides == side
            if mine.any():
                ends = {0: [upper, lower], 1: [upper], -1: [lower]}[side]
                values = self._lanes.values(which[mine], np.stack([end[mine] for end in ends], axis=1), guarded)
                if side >= 0:
                    above[mine] = values[:, 0]
                if side <= 0:
                    below[mine] = values[:, -1]
        return above, below

    def _lost(self, which: IntArray, steps: FloatArray, distance: Array) -> None:
        at = int(np.argmax(distance == 0))
        center, where = self._lanes.centers[which[at]], self._lanes.where(int(which[at]))
        least = float(np.spacing(np.abs(center)))
        raise ValueError(
            f"h = {float(steps[at]):g} is lost in rounding at {where} = {float(center):g}, which is {center.dtype}: "
            f"h must be at least {least:.2g} there"
        )


class ComplexStep:
    """The quotients Im f(x + ih) / h, which subtract nothing: their error is h²/6·f‴ at any small h.

    W. Squire and G. Trapp, *Using complex variables to estimate derivatives of real functions*, SIAM Review 40, 1998.
    """

    def __init__(self, lanes: Lanes) -> None:
        self.count, self._lanes = len(lanes.centers), lanes
        self.powers = np.full(self.count, 2)

    def take(self, which: IntArray, steps: FloatArray, guarded: bool = False) -> Quotient:
        positions = self._lanes.centers[which].astype(np.complex128) + 1j * steps
        values = self._lanes.values(which, positions[:, None], guarded)[:, 0]
        slopes = values.imag / expanded(steps, values.ndim)
        return Quotient(slopes, np.finfo(np.float64).eps * np.abs(slopes))


def noise_at(noise: Array | None, eps: float, sizes: Array, which: IntArray) -> Array:
    """Return the rounding errors to expect of values with these sizes: a unit of their own, or what was measured."""
    if noise is None:
        return eps * sizes
    return np.maximum(eps * sizes, noise if len(noise) == 1 else noise[which])


def expanded(values: Array, ndim: int) -> Array:
    """Return one value for each lane as an array that broadcasts to (lanes, *shape)."""
    return values.reshape(-1, *[1] * (ndim - 1))
