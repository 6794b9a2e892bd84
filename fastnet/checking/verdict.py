"""How far two gradients may differ, and the verdict."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends.spec import Diagnostics, NetworkSpec
from fastnet.checking.result import EntryCheck, GradientCheck

BoolArray: TypeAlias = npt.NDArray[np.bool_]

SHARE_OF_LARGEST = 0.1  # of rtol: how far an entry may differ, relative to the largest entry of its array
NOISE_FACTOR = 8  # from the median change of noisy entries to the largest error among very many of them
GROSS = 0.1  # of the largest entry: with more noise than that, gross mistakes would pass
FEW = 10  # entries: the median of fewer depends too much on chance


def default_rtol(dtype: np.dtype[Any]) -> float:
    """Return a relative difference that mistakes in a formula exceed and correct gradients do not."""
    return 1e-4 if dtype.itemsize >= 8 else 1e-3


def rounding_error(dtype: np.dtype[Any], value: float, h: float) -> float:
    """Return eps·max(|f|, 1)/h: the error of a central difference of values that are rounded to `dtype`.

    The 1 is there since a small loss is computed from numbers near 1: the cross entropy is the logarithm of one.
    """
    return float(np.finfo(dtype).eps) * max(abs(value), 1.0) / h if math.isfinite(value) else 0.0


def network_floor(dtype: np.dtype[Any]) -> float:
    """Return 8·eps: backprop subtracts targets from answers near 1, so that small results have the rounding of 1."""
    return 8 * float(np.finfo(dtype).eps)


class Layout:
    """The flat numbers of a set of named arrays: array after array, each row by row."""

    def __init__(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        self.shapes = {name: array.shape for name, array in arrays.items()}
        self.sizes = [array.size for array in arrays.values()]
        self.starts = np.cumsum([0, *self.sizes])
        self.size = int(self.starts[-1])

    def flat(self, arrays: Mapping[str, npt.ArrayLike], name: str) -> FloatArray:
        """Return the elements of `arrays`, the argument `name`, by flat number, as float64."""
        missing = [repr(key) for key in self.shapes if key not in arrays]
        if missing:
            raise ValueError(f"{name} has no {', '.join(missing)}")
        extra = [repr(key) for key in arrays if key not in self.shapes]
        if extra:
            there = ", ".join(map(repr, self.shapes))
            raise ValueError(f"{name} has {', '.join(extra)}, but there is only {there}")
        elements = [np.empty(0)]
        for key, shape in self.shapes.items():
            numbers = checks.as_numbers(arrays[key], f"{name} of {key}")
            if numbers.shape != shape:
                raise ValueError(f"{name} of {key} must have shape {shape}, not {numbers.shape}")
            elements.append(numbers.astype(np.float64).ravel())
        return np.concatenate(elements)

    def arrays_of(self, entries: IntArray) -> IntArray:
        """Return the number of the array that each flat number belongs to."""
        return np.searchsorted(self.starts, entries, side="right") - 1

    def locate(self, entry: int) -> tuple[str, tuple[int, ...]]:
        """Return the name of an entry's array and its index there."""
        which = int(self.arrays_of(np.array([entry]))[0])
        name, shape = list(self.shapes.items())[which]
        return name, tuple(int(i) for i in np.unravel_index(entry - self.starts[which], shape))


def kinked_entries(spec: NetworkSpec, diagnostics: Diagnostics) -> BoolArray | None:
    """Return for each flat number whether its central difference straddles a kink, if that is known."""
    if not diagnostics.kinked:
        return None
    met: list[BoolArray] = []
    for weight, bias, units in zip(spec.weights, spec.biases, diagnostics.kinked, strict=True):
        met.append(np.broadcast_to(units, weight.shape))
        if bias is not None:
            met.append(units)
    return spec.flatten(met)


@dataclass(frozen=True)
class SecondOpinion:
    """The uncertainty of a numerical gradient, asked for only if entries differ by more than the limit.

    Attributes
    ----------
    doubled : callable
        Takes flat numbers and gives the numerical gradient at these entries with the step 2h.
    rounding : callable
        Gives the expected rounding error, see `rounding_error`.
    floor : float
        The rounding error of the analytic gradient, see `network_floor`; 0 if unknown.
    """

    doubled: Callable[[IntArray], FloatArray]
    rounding: Callable[[], float]
    floor: float = 0.0

    def uncertainty(self, numerical: FloatArray, entries: IntArray) -> tuple[FloatArray, float]:
        """Return the uncertainty of each of `entries`, and the part of it that is noise common to all."""
        with np.errstate(invalid="ignore"):
            moves = np.abs(self.doubled(entries) - numerical)
        moves = np.where(np.isfinite(moves), moves, 0.0)
        moving = moves[moves > 0]
        noise = self.floor + (NOISE_FACTOR * float(np.median(moving)) if len(moving) else 0.0)
        if len(moving) < max(
            FEW, len(moves) / 2
        ):  # too few for a median, or both values were rounded to the same number
            noise += self.rounding()
        return noise + 2 * moves, noise


def judge(
    layout: Layout,
    analytic: FloatArray,
    numerical: FloatArray,
    *,
    h: float,
    rtol: float,
    atol: float | None = None,
    entries: IntArray | None = None,
    kinked: BoolArray | None = None,
    second: SecondOpinion | None = None,
    worst: int = 5,
) -> GradientCheck:
    """Compare two gradients at the flat numbers `entries` (by default all), as `check_gradient` describes.

    `analytic`, `numerical` and `kinked` have the shape of `entries`. `kinked` says where the numerical gradient
    straddles a kink and need not equal a derivative. `second` is asked if `atol` is None.
    """
    where = np.arange(layout.size) if entries is None else entries
    with np.errstate(invalid="ignore", over="ignore"):
        difference = np.abs(analytic - numerical)
        larger = np.maximum(np.abs(analytic), np.abs(numerical))
    is_finite = np.isfinite(difference)
    sizes = np.where(np.isfinite(numerical), np.abs(numerical), 0.0)
    allowed = rtol * np.where(is_finite, larger, 0.0)
    allowed += SHARE_OF_LARGEST * rtol * _largest_of_array(layout, where, sizes) if atol is None else atol

    beyond = np.flatnonzero(is_finite & (difference > allowed))
    noise, excused = 0.0, 0
    if kinked is not None:
        excused = int(np.count_nonzero(kinked[beyond]))
        allowed[kinked] = np.inf
        beyond = beyond[~kinked[beyond]]
    if atol is None and second is not None and len(beyond):
        uncertainty, noise = second.uncertainty(numerical[beyond], where[beyond])
        allowed[beyond] += uncertainty
        settled = difference[beyond] <= allowed[beyond]
        excused += int(np.count_nonzero(settled))
        beyond = beyond[~settled]

    def entry(at: int) -> EntryCheck:
        values = (analytic[at], numerical[at], difference[at], allowed[at])
        return EntryCheck(*layout.locate(int(where[at])), *map(float, values))

    non_finite = int(np.count_nonzero(~is_finite))
    return GradientCheck(
        entries=len(where),
        failed=len(beyond) + non_finite,
        non_finite=non_finite,
        excused=excused,
        inconclusive=noise > GROSS * float(sizes.max()) or (kinked is not None and bool(kinked.all())),
        largest=entry(int(np.argmax(np.where(is_finite, difference, -1.0)))) if is_finite.any() else None,
        largest_entry=float(np.max(larger, where=np.isfinite(larger), initial=0.0)),
        worst=tuple(entry(int(at)) for at in _worst_first(difference, allowed)[:worst]),
        h=h,
        rtol=rtol,
        atol=atol,
    )


def _largest_of_array(layout: Layout, entries: IntArray, sizes: FloatArray) -> FloatArray:
    """Return for each entry the largest of `sizes` in its array."""
    which = layout.arrays_of(entries)
    largest = np.zeros(len(layout.sizes))
    np.maximum.at(largest, which, sizes)
    return largest[which]


def _worst_first(difference: FloatArray, allowed: FloatArray) -> IntArray:
    with np.errstate(all="ignore"):
        excess = np.where(difference > 0, difference / allowed, 0.0)
    excess[~np.isfinite(difference)] = np.inf
    return np.argsort(-excess, kind="stable")
