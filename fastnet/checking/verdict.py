"""How far two gradients may differ, and the verdict."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt

from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends.spec import Diagnostics, NetworkSpec
from fastnet.checking.result import EntryCheck, GradientCheck
from fastnet.differentiation.layout import Layout

BoolArray: TypeAlias = npt.NDArray[np.bool_]

SHARE_OF_LARGEST = 0.1  # of rtol: how far an entry may differ, relative to the largest entry of its array
GROSS = 0.1  # of the largest entry: with more noise than that, gross mistakes would pass


def default_rtol(dtype: np.dtype[Any]) -> float:
    """Return a relative difference that mistakes in a formula exceed and correct gradients do not."""
    return 1e-4 if dtype.itemsize >= 8 else 1e-3


def kinked_entries(spec: NetworkSpec, diagnostics: Diagnostics) -> BoolArray | None:
    """Return for each flat number whether its central difference straddles a kink, if that is known."""
    if not diagnostics.kinked:
        return None
    if not spec.layers:
        return spec.flatten(diagnostics.kinked)
    met: list[BoolArray] = []
    for layer, units in zip(spec.layers, diagnostics.kinked, strict=True):
        met.append(np.broadcast_to(units, layer.weight.shape))
        if layer.bias is not None:
            met.append(units)
    return spec.flatten(met)


@dataclass(frozen=True)
class Doubtful:
    """Entries whose two gradients differ by more than the limit, by flat number.

    Attributes
    ----------
    layout : Layout
    entries : ndarray of int
    analytic, numerical : ndarray
        Shape of `entries`.
    rtol : float
    largest : ndarray
        The largest entry of the array that each belongs to.
    """

    layout: Layout
    entries: IntArray
    analytic: FloatArray
    numerical: FloatArray
    rtol: float
    largest: FloatArray

    def at(self, where: BoolArray) -> Doubtful:
        """Return those of the entries at which `where` is True."""
        return Doubtful(
            self.layout,
            self.entries[where],
            self.analytic[where],
            self.numerical[where],
            self.rtol,
            self.largest[where],
        )

    def limit(self, numerical: FloatArray) -> FloatArray:
        """Return the limit without any uncertainty, for other values of the numerical gradient."""
        size: FloatArray = self.rtol * np.maximum(np.abs(self.analytic), np.abs(numerical))
        return size

    def differ(self, numerical: FloatArray, uncertainty: FloatArray) -> BoolArray:
        """Return which entries differ from other values of the numerical gradient by more than these allow."""
        with np.errstate(invalid="ignore"):
            beyond: BoolArray = np.abs(self.analytic - numerical) > self.limit(numerical) + uncertainty
        return beyond


@dataclass(frozen=True)
class Settled:
    """What a second opinion says of doubtful entries; arrays of their shape.

    Attributes
    ----------
    numerical : ndarray
        A better numerical gradient.
    uncertainty : ndarray
        How far it may be off.
    at_kink : ndarray of bool
        Whether the function has a kink at the point, and the analytic gradient lies between the slopes of its sides.
    noise : float
        The part of the uncertainty that is common to all.
    zero : float
        What is zero, within the rounding of the function itself.
    """

    numerical: FloatArray
    uncertainty: FloatArray
    at_kink: BoolArray
    noise: float = 0.0
    zero: float = 0.0


class SecondOpinion(Protocol):
    """What is asked about entries that differ by more than the limit, and only then."""

    def settle(self, doubtful: Doubtful) -> Settled: ...


@dataclass(frozen=True)
class Comparison:
    """Two gradients at the flat numbers `entries`, and what they are judged by.

    Attributes
    ----------
    layout : Layout
    analytic, numerical : ndarray
        Shape of `entries`.
    h : float
        The step of the numerical gradient.
    rtol : float
    atol : float or None
        A number is an absolute limit, and no second opinion is asked.
    entries : ndarray of int, optional
        Ascending; all by default.
    orders : dict of str to float
        The order of the Taylor remainder by array, to be reported.
    """

    layout: Layout
    analytic: FloatArray
    numerical: FloatArray
    h: float
    rtol: float
    atol: float | None = None
    entries: IntArray | None = None
    orders: Mapping[str, float] = field(default_factory=dict)


def judge(comparison: Comparison, second: SecondOpinion | None = None, worst: int = 5) -> GradientCheck:
    """Compare two gradients entry by entry, as `check_gradient` describes."""
    layout, atol, rtol, entries = comparison.layout, comparison.atol, comparison.rtol, comparison.entries
    analytic, numerical = comparison.analytic, comparison.numerical
    with np.errstate(invalid="ignore", over="ignore"):
        difference = analytic - numerical
        np.abs(difference, out=difference)
        larger = np.abs(analytic)
        np.maximum(larger, np.abs(numerical), out=larger)
    is_finite = np.isfinite(difference)
    largest_entry = _largest(larger)
    allowed = _finite_or(0.0, larger, is_finite)
    allowed *= rtol
    parts = layout.parts(entries)
    largest = np.array([_largest(numerical[part]) for part in parts])
    share = SHARE_OF_LARGEST * rtol * largest
    for part, of_array in zip(parts, share.tolist(), strict=True):
        allowed[part] += of_array if atol is None else atol

    def numbers(places: IntArray) -> IntArray:
        return places if entries is None else entries[places]

    beyond = np.flatnonzero(is_finite & (difference > allowed))
    excused = kinks = 0
    settled: Settled | None = None
    if atol is None and second is not None and len(beyond):
        which = layout.arrays_of(numbers(beyond))
        doubtful = Doubtful(layout, numbers(beyond), analytic[beyond], numerical[beyond], rtol, largest[which])
        settled = second.settle(doubtful)
        numerical = numerical.copy()
        numerical[beyond] = settled.numerical
        difference[beyond] = np.abs(analytic[beyond] - settled.numerical)
        limit = doubtful.limit(settled.numerical) + share[which]
        allowed[beyond] = np.where(settled.at_kink, np.inf, limit + settled.uncertainty)
        right = difference[beyond] <= allowed[beyond]
        plain = difference[beyond] <= limit + np.minimum(settled.uncertainty, share[which])
        # Within its uncertainty, the numerical entry is zero too.
        plain |= ~settled.at_kink & (np.abs(analytic[beyond]) <= settled.zero)
        excused = int(np.count_nonzero(right & ~plain))
        kinks = int(np.count_nonzero(settled.at_kink))
        beyond = beyond[~right]

    def entry(at: np.intp) -> EntryCheck:
        values = (analytic[at], numerical[at], difference[at], allowed[at])
        return EntryCheck(*layout.locate(int(at if entries is None else entries[at])), *map(float, values))

    non_finite = np.flatnonzero(~is_finite)
    wrong = np.union1d(beyond, non_finite)
    too_noisy = settled is not None and _is_too_noisy(settled, float(largest.max()), analytic)
    return GradientCheck(
        entries=len(analytic),
        failed=len(wrong),
        non_finite=len(non_finite),
        excused=excused,
        inconclusive=too_noisy or kinks == len(analytic),
        largest=entry(np.argmax(_finite_or(-1.0, difference, is_finite))) if is_finite.any() else None,
        largest_entry=largest_entry,
        worst=tuple(map(entry, _worst(difference, allowed, worst))),
        orders=dict(comparison.orders),
        first_wrong=_first_wrong(layout, numbers(wrong)),
        h=comparison.h,
        rtol=rtol,
        atol=atol,
    )


def _largest(values: FloatArray) -> float:
    """Return the largest size of the finite ones of `values`; 0 if there is none."""
    size = max(float(values.max(initial=0.0)), -float(values.min(initial=0.0)))
    return size if math.isfinite(size) else float(np.max(np.abs(values), where=np.isfinite(values), initial=0.0))


def _finite_or(instead: float, values: FloatArray, is_finite: BoolArray) -> FloatArray:
    """Return `values`, and a number instead of those that are not finite."""
    return values if is_finite.all() else np.where(is_finite, values, instead)


def _is_too_noisy(settled: Settled, largest: float, analytic: FloatArray) -> bool:
    """Whether noise would hide gross mistakes; no noise hides that a gradient is zero to rounding."""
    return settled.noise > GROSS * largest and _largest(analytic) > settled.zero


def _first_wrong(layout: Layout, wrong: IntArray) -> str | None:
    """Return the name of the last array that has one of the entries `wrong`; None if there is but one array."""
    if len(wrong) == 0 or len(layout.names) == 1:
        return None
    return layout.names[int(layout.arrays_of(wrong).max())]


def _worst(difference: FloatArray, allowed: FloatArray, count: int) -> IntArray:
    """Return the first `count` places in the order of how far the limit is exceeded; of equals, the first."""
    excess = np.zeros_like(difference)
    with np.errstate(all="ignore"):
        np.divide(difference, allowed, out=excess, where=difference > 0)
    excess[~np.isfinite(difference)] = np.inf
    excess[np.isnan(excess)] = -1.0
    # Of as many blocks, each has an entry that is at least the least of their maxima.
    greatest = np.maximum.reduceat(excess, np.arange(0, len(excess), max(1, math.isqrt(len(excess)))))
    least = np.sort(greatest)[-count] if 0 < count <= len(greatest) else -1.0
    among = np.flatnonzero(excess >= least)
    return among[np.argsort(-excess[among], kind="stable")[:count]]


def taylor_order(remainders: list[float], noise: float) -> float:
    """Return the order of a Taylor remainder from its values at halved distances; NaN where it is only noise.

    The remainder of a right gradient falls with the square of the distance, that of a wrong one with the distance.
    """
    orders = [math.log2(far / near) for far, near in itertools.pairwise(remainders) if near > 20 * noise > 0]
    return float(np.median(orders)) if orders else math.nan
