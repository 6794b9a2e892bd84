"""Derivatives by extrapolation of difference quotients to the step 0, with steps that are given or found.

A quotient's error is a series in h^p, so that quotients at several steps lie on a polynomial in h^p whose value at 0 is
the derivative. Neville's scheme gives that value, column by column; each column removes one more term of the series.
Five-point differences, one-sided differences of higher order and Richardson's extrapolation are all this scheme with
some steps that are fixed.

Sources: L. F. Richardson, *The deferred approach to the limit*, Phil. Trans. A 226, 1927; C. J. F. Ridders, *Accurate
computation of F'(x) and F'(x)F''(x)*, Advances in Engineering Software 4, 1982; R. Bulirsch and J. Stoer, *Fehler-
abschätzungen und Extrapolation …*, Numerische Mathematik 6, 1964, for the steps 1, 3/4, 1/2, 3/8, 1/4, ….
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnet._tools.types import FloatArray, IntArray
from fastnet.differentiation.fitting import fitted, fraction
from fastnet.differentiation.quotients import Quotient, Quotients, expanded

Array = npt.NDArray[Any]

RISE = 8.0  # from one step of the search to the next
MOST_RISES = 120
COLUMNS = 8  # of the scheme: more remove nothing that rounding leaves
MOST_STEPS = 48  # on the way down, which is a factor of 2^24
QUIET = 4.0  # times the rounding error: less than that is no sign of truncation
DISTRUST = 8.0  # times the rounding error and the estimate: what a much smaller step may be off
PROBE = 2.0**-9 * 0.7  # of the least step of the search: not a fraction of the others, where a wave could hide
RETREAT = 2.0**-12  # of the least step, where the probe has found a wave
ATTEMPTS = 3


class Found(NamedTuple):
    """Derivatives, their estimated errors, and the least step that each was found with: shape (lanes, *shape)."""

    value: Array
    error: Array
    step: Array


class Scheme:
    """Neville's scheme for several lanes, row by row.

    Parameters
    ----------
    powers : ndarray of int
        For each lane, the p of the series in h^p.
    """

    def __init__(self, powers: IntArray) -> None:
        self._powers = powers
        self._steps: list[FloatArray] = []
        self.row: list[Quotient] = []
        self.before: list[Quotient] = []

    def add(self, steps: FloatArray, quotient: Quotient) -> None:
        """Add the quotients at the next, smaller step: a row of extrapolated values, the quotient itself first."""
        self.before, self.row = self.row, [quotient]
        self._steps = [*self._steps[-COLUMNS:], steps]
        for column in range(1, min(len(self._steps), COLUMNS + 1)):
            coarse, fine = self.before[column - 1], self.row[column - 1]
            with np.errstate(all="ignore"):
                ratio = (self._steps[-1 - column] / steps) ** self._powers.astype(np.float64)
                weight = expanded(1 / (ratio - 1), quotient.slopes.ndim)
                slopes = fine.slopes + (fine.slopes - coarse.slopes) * weight
                noise = np.hypot(fine.noise * (1 + weight), coarse.noise * weight)
            self.row.append(Quotient(slopes, noise))


def with_steps(
    quotients: Quotients, which: IntArray, steps: FloatArray, multiples: tuple[float, ...], wants_error: bool
) -> Found:
    """Return the derivatives by given steps: extrapolated from the quotients at some multiples of them.

    Parameters
    ----------
    quotients : Quotients
    which : ndarray of int
        The lanes.
    steps : ndarray
        Their steps.
    multiples : tuple of float
        The largest first.
    wants_error : bool
        Whether to estimate the error, by one more quotient at half of the least step: what it changes is the
        truncation error, but for a small part. The rounding error is added.
    """
    scheme = Scheme(quotients.powers[which])
    for multiple in multiples:
        scheme.add(multiple * steps, quotients.take(which, multiple * steps))
    value, noise = scheme.row[-1]
    least = np.empty(value.shape)
    least[...] = expanded(multiples[-1] * steps, value.ndim)
    error = np.empty(value.shape)
    if not wants_error:
        error.fill(np.nan)
        return Found(value, error, least)
    halved = multiples[-1] / 2 * steps
    scheme.add(halved, quotients.take(which, halved))
    with np.errstate(all="ignore"):
        change = np.abs(scheme.row[len(multiples) - 1].slopes - value)
    return Found(value, 3 * (change + noise), least)


def automatic(quotients: Quotients, which: IntArray, starts: FloatArray, most: FloatArray) -> Found:
    """Return the derivatives by steps that are found for each lane, with estimates of their errors.

    Parameters
    ----------
    quotients : Quotients
    which : ndarray of int
        The lanes.
    starts, most : ndarray
        For each of them a small step to begin with, a power of 2, and the largest that it may take.

    Notes
    -----
    1. *Up.* From `starts` the step grows by a factor of 8 as long as the quotients behave like a series: a change is
       within rounding, or grows by about 8^p from step to step. It ends at the first step that is too long for that,
       or where rounding errors begin to grow.
    2. *Down.* From there the steps shrink by Bulirsch's fractions, and Neville's scheme extrapolates. The estimated
       error of a value in it is the larger of its differences from the two it was made of, plus its rounding error.
       The value with the least is taken. It ends when rounding alone exceeds that. Then polynomials are fitted to all
       quotients, which averages their rounding errors (`fitting`).
    3. *A probe.* The quotient at a much smaller step must agree within its own rounding error. Where it does not, all
       steps were longer than the function's waves, and the search begins again with smaller ones. If the function is
       constant there, it is a stair of rounded values and no wave: then the first value stays, with the disagreement as
       its error.
    """
    found = None
    open_ = np.arange(len(which))
    with np.errstate(all="ignore"):
        for attempt in range(ATTEMPTS):
            lanes, begin = which[open_], starts[open_] * RETREAT**attempt
            scans, top = _rise(quotients, lanes, begin, most[open_])
            new = _descend(quotients, lanes, begin, scans, top)
            new, wrong = _probed(quotients, lanes, begin, scans[0], new)
            if found is None:
                found = Found(*(np.array(part) for part in new))
            else:
                better = (new.error < found.error[open_]) & (new.value != 0)
                for old, part in zip(found, new, strict=True):
                    old[open_] = np.where(better, part, old[open_])
            open_ = open_[wrong]
            if not len(open_):
                break
    assert found is not None
    return found


def _rise(
    quotients: Quotients, which: IntArray, starts: FloatArray, most: FloatArray
) -> tuple[list[Quotient], IntArray]:
    """Return the quotients at the steps starts·8^i, NaN where not taken, and the i at which each lane ended."""
    scans: list[Quotient] = []
    rising = np.arange(len(which))
    top = np.zeros(len(which), np.int64)
    changes: list[Array] = []
    growth = RISE ** quotients.powers[which].astype(np.float64)
    for rise in range(MOST_RISES):
        taken = quotients.take(which[rising], starts[rising] * RISE**rise, guarded=True)
        scans.append(_scattered(taken, rising, len(which)))
        top[rising] = rise
        ends = ~_all(np.isfinite(taken.slopes))
        if rise:
            before = scans[-2]
            change = np.abs(scans[-1].slopes - before.slopes)
            loud = change > QUIET * before.noise
            ends |= _any(scans[-1].noise > before.noise)[rising]
            if changes:
                ratio = change / changes[-1]
                expected = expanded(growth, ratio.ndim)
                regular = (ratio > expected / 4) & (ratio < 4 * expected**2)
                was_loud = changes[-1] > QUIET * scans[-3].noise
                ends |= _any(loud & was_loud & ~regular)[rising]
            changes.append(change)
        ends |= starts[rising] * RISE ** (rise + 1) > most[rising]
        rising = rising[~ends]
        if not len(rising):
            break
    return scans, top


def _descend(quotients: Quotients, which: IntArray, starts: FloatArray, scans: list[Quotient], top: IntArray) -> Found:
    """Return the best extrapolated values from the steps below the highest ones of the search."""
    tops = starts * RISE**top
    shape = scans[0].slopes.shape
    best = Found(np.full(shape, np.nan), np.full(shape, np.inf), np.full(shape, np.nan))
    active, powers = np.arange(len(which)), quotients.powers[which]
    scheme, counts = Scheme(powers), np.zeros(len(which), np.int64)
    ladder: list[Quotient] = []
    for number in range(MOST_STEPS):
        steps = tops * fraction(number)
        quotient = _scattered(_known(scans, top, number, shape), np.arange(len(which)), len(which))
        missing = active[~_all(np.isfinite(quotient.noise))[active]]
        if len(missing):
            taken = quotients.take(which[missing], steps[missing], guarded=True)
            quotient.slopes[missing], quotient.noise[missing] = taken
        scheme.add(steps, quotient)
        ladder.append(quotient)
        counts[active] = number + 1
        for column in range(1, len(scheme.row)):
            value, noise = scheme.row[column]
            error = np.maximum(
                np.abs(value - scheme.row[column - 1].slopes), np.abs(value - scheme.before[column - 1].slopes)
            )
            error = np.where(np.isfinite(error), error + noise, np.inf)
            better = error < best.error
            best.value[better], best.error[better] = value[better], error[better]
            best.step[better] = np.broadcast_to(expanded(steps, value.ndim), shape)[better]
        useful = _any((quotient.noise < best.error) | ~np.isfinite(quotient.noise))
        active = active[useful[active]]
        if not len(active):
            break
    value, error = fitted(ladder, counts, powers, best.value, best.error)
    return Found(value, error, best.step)


def _known(scans: list[Quotient], top: IntArray, number: int, shape: tuple[int, ...]) -> Quotient:
    """Return what the search has taken of the steps with this number on the way down, and NaN elsewhere."""
    slopes, noise = np.full(shape, np.nan), np.full(shape, np.nan)
    rises, between = divmod(number, 6)  # six of Bulirsch's fractions are a factor of 8
    if not between:
        for k, scan in enumerate(scans):
            mine = top - rises == k
            slopes[mine], noise[mine] = scan.slopes[mine], scan.noise[mine]
    return Quotient(slopes, noise)


def _probed(
    quotients: Quotients, which: IntArray, starts: FloatArray, first: Quotient, found: Found
) -> tuple[Found, Array]:
    """Return what was found with errors that cover the probe, and for which lanes it is wrong."""
    probe = quotients.take(which, PROBE * starts, guarded=True)
    truncation = np.abs(first.slopes - found.value) * expanded(PROBE ** quotients.powers[which], found.value.ndim)
    off = np.abs(probe.slopes - found.value)
    wrong = off > DISTRUST * (probe.noise + found.error + truncation)
    wrong |= ~np.isfinite(found.error)
    error = np.where(wrong & np.isfinite(off), np.maximum(off, found.error), found.error)
    return Found(found.value, error, found.step), _any(wrong)


def _scattered(quotient: Quotient, which: IntArray, count: int) -> Quotient:
    """Return quotients of some lanes as those of all, NaN elsewhere."""
    if len(which) == count:
        return quotient
    shape = (count, *quotient.slopes.shape[1:])
    slopes, noise = np.full(shape, np.nan), np.full(shape, np.nan)
    slopes[which], noise[which] = quotient
    return Quotient(slopes, noise)


def _any(values: Array) -> Array:
    return np.asarray(values.reshape(len(values), -1).any(axis=1))


def _all(values: Array) -> Array:
    return np.asarray(values.reshape(len(values), -1).all(axis=1))
