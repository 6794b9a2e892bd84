"""Second opinions about entries that two gradients differ in: by other steps, from either side, in more digits."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from fastnet._tools.types import FloatArray, IntArray
from fastnet.checking.probes import Probe, Slopes
from fastnet.checking.verdict import BoolArray, Doubtful, SecondOpinion, Settled

NOISE_FACTOR = 8  # from the standard deviation of rounding errors to the largest among very many of them
FEW = 10  # entries: the median of fewer depends too much on chance
DIVISORS = (1, 2, 8, 64, 512)  # of the step


def rounding_error(dtype: np.dtype[Any], value: float, h: float) -> float:
    """Return eps·max(|f|, 1)/h: the error of a central difference of values that are rounded to `dtype`.

    The 1 is there since a small loss is computed from numbers near 1: the cross entropy is the logarithm of one.
    """
    return float(np.finfo(dtype).eps) * max(abs(value), 1.0) / h if math.isfinite(value) else 0.0


def rounding_floor(dtype: np.dtype[Any]) -> float:
    """Return 8·eps: backprop subtracts targets from answers near 1, so that small results have the rounding of 1."""
    return 8 * float(np.finfo(dtype).eps)


@dataclass(frozen=True)
class DoubledStep:
    """By the change of the numerical gradient when its step is doubled: for values that one method gave.

    Attributes
    ----------
    doubled : callable
        Takes flat numbers and gives the numerical gradient at these entries with the step 2h.
    rounding : callable
        Gives the expected rounding error, see `rounding_error`.
    floor : float
        The rounding error of the analytic gradient.
    kinked : ndarray of bool, optional
        By flat number: where the numerical gradient straddles a kink and need not equal a derivative.
    """

    doubled: Callable[[IntArray], FloatArray]
    rounding: Callable[[], float]
    floor: float = 0.0
    kinked: BoolArray | None = None

    def settle(self, doubtful: Doubtful) -> Settled:
        entries, numerical = doubtful.entries, doubtful.numerical
        at_kink = np.zeros(len(entries), bool) if self.kinked is None else self.kinked[entries]
        uncertainty, noise = np.zeros(len(entries)), 0.0
        if not at_kink.all():
            uncertainty[~at_kink], noise = self._uncertainty(numerical[~at_kink], entries[~at_kink])
        return Settled(numerical, uncertainty, at_kink, noise)

    def _uncertainty(self, numerical: FloatArray, entries: IntArray) -> tuple[FloatArray, float]:
        with np.errstate(invalid="ignore"):
            moves = np.abs(self.doubled(entries) - numerical)
        moves = np.where(np.isfinite(moves), moves, 0.0)
        moving = moves[moves > 0]
        noise = self.floor + (NOISE_FACTOR * float(np.median(moving)) if len(moving) else 0.0)
        # Too few for a median, or both values were rounded to the same number.
        if len(moving) < max(FEW, len(moves) / 2):
            noise += self.rounding()
        return noise + 2 * moves, noise


@dataclass(frozen=True)
class Ladder:
    """By smaller and smaller steps to either side, entry by entry.

    A right entry agrees with a central difference whose step meets no kink. If the kink is at the point itself, it lies
    between the slopes of the two sides. A wrong entry does neither.

    Attributes
    ----------
    probe : Probe
        The function, in as many digits as it has.
    steps : ndarray
        The step of each entry, by flat number.
    floor : float
        The rounding error of the analytic gradient.
    """

    probe: Probe
    steps: FloatArray
    floor: float

    def settle(self, doubtful: Doubtful) -> Settled:
        noise = NOISE_FACTOR * self.probe.noise()
        count = len(doubtful.entries)
        numerical, uncertainty, at_kink = doubtful.numerical.copy(), np.zeros(count), np.zeros(count, bool)
        affordable = doubtful.rtol * float(doubtful.largest.max())
        for k, entry in enumerate(doubtful.entries.tolist()):
            analytic = float(doubtful.analytic[k])
            found = self._climb(entry, analytic, doubtful.rtol, noise, affordable)
            if found is not None:
                numerical[k], uncertainty[k], at_kink[k] = found
        value = self.probe.value()
        zero = max(noise, self.floor * max(abs(value), 1.0))
        common = noise / float(np.median(self.steps[doubtful.entries]))
        return Settled(numerical, uncertainty + self.floor, at_kink, common, zero)

    def _climb(
        self, entry: int, analytic: float, rtol: float, noise: float, affordable: float
    ) -> tuple[float, float, bool] | None:
        """Return the numerical value that decides, its uncertainty, and whether `analytic` is between slopes at a kink.

        None if no step can be taken, or the function is not finite there.
        """
        rungs: list[tuple[Slopes, float]] = []
        for divisor in DIVISORS:
            step = float(self.steps[entry]) / divisor
            error = noise / step
            if divisor > 2 and error > affordable:
                break  # with that much noise, 1 % would not show
            try:
                slopes = self.probe.slopes(entry, step)
            except ValueError:  # lost in rounding
                break
            if not all(map(math.isfinite, slopes)):
                break
            rungs.append((slopes, error))
            limit = rtol * max(abs(analytic), abs(slopes.central)) + error + self.floor
            if (divisor == 1 or error <= affordable) and abs(analytic - slopes.central) <= limit:
                return slopes.central, error, False
            if len(rungs) == 2 and _is_smooth(analytic, rungs):
                break  # a smaller step gives the same
        if not rungs:
            return None
        slopes, error = rungs[-1]
        if len(rungs) > 1:  # where noise ends the ladder, truncation may be left: what the last step changed
            error += abs(slopes.central - rungs[-2][0].central)
        return slopes.central, error, _is_between(analytic, rungs, rtol)


def _is_smooth(analytic: float, rungs: list[tuple[Slopes, float]]) -> bool:
    """Whether two steps, and both sides of each, agree in what is far from `analytic`."""
    (far, _), (near, error) = rungs
    spread = abs(far.central - near.central) + abs(far.bend) + abs(near.bend) + error
    return abs(analytic - near.central) > 20 * spread


def _is_between(analytic: float, rungs: list[tuple[Slopes, float]], rtol: float) -> bool:
    """Whether the smallest steps show a kink, and the analytic slope is between those of its sides.

    The two sides of a smooth function differ in proportion to the step.
    """
    slopes, error = rungs[-1]
    margin = rtol * max(abs(analytic), abs(slopes.central)) + 2 * error
    low, high = min(slopes.forward, slopes.backward) - margin, max(slopes.forward, slopes.backward) + margin
    if not low <= analytic <= high:
        return False
    if len(rungs) < 2:
        return True
    ratio = DIVISORS[len(rungs) - 1] / DIVISORS[len(rungs) - 2]
    wider, wide = rungs[-2][0].bend, slopes.bend
    bound = 2 * rungs[-2][1] + 2 * ratio * error
    return abs(wider - ratio * wide) > bound or abs(wide) <= bound


@dataclass(frozen=True)
class FinerStep:
    """By exact differences with a much smaller step: they have no rounding error, and hardly any meets a kink.

    Attributes
    ----------
    finer : callable
        Gives the whole numerical gradient by flat number, and for each entry whether it straddles a kink.
    floor : float
        The rounding error of the analytic gradient.
    at_kinks : SecondOpinion
        What is asked about entries that still straddle a kink.
    """

    finer: Callable[[], tuple[FloatArray, BoolArray | None]]
    floor: float
    at_kinks: SecondOpinion

    def settle(self, doubtful: Doubtful) -> Settled:
        values, kinked = self.finer()
        count = len(doubtful.entries)
        numerical, uncertainty = values[doubtful.entries], np.full(count, self.floor)
        at_kink = np.zeros(count, bool)
        if kinked is not None:
            open_ = kinked[doubtful.entries] & doubtful.differ(numerical, uncertainty)
            if open_.any():
                settled = self.at_kinks.settle(doubtful.at(open_))
                numerical[open_], uncertainty[open_] = settled.numerical, settled.uncertainty
                at_kink[open_] = settled.at_kink
        return Settled(numerical, uncertainty, at_kink)


@dataclass(frozen=True)
class InTurn:
    """Several opinions: each is asked about the entries that differ by those before it.

    Attributes
    ----------
    opinions : tuple of callable
        Each gives a second opinion, which is made only if it is asked.
    """

    opinions: tuple[Callable[[], SecondOpinion], ...]

    def settle(self, doubtful: Doubtful) -> Settled:
        count = len(doubtful.entries)
        numerical, uncertainty, at_kink = doubtful.numerical.copy(), np.zeros(count), np.zeros(count, bool)
        open_, noise, zero = np.ones(count, bool), 0.0, 0.0
        for make in self.opinions:
            if not open_.any():
                break
            settled = make().settle(doubtful.at(open_))
            numerical[open_], uncertainty[open_] = settled.numerical, settled.uncertainty
            at_kink[open_] = settled.at_kink
            noise, zero = max(noise, settled.noise), max(zero, settled.zero)
            open_ &= doubtful.differ(numerical, uncertainty)
        return Settled(numerical, uncertainty, at_kink, noise, zero)
