"""Polynomials in h^p through many difference quotients, by least squares: they average the rounding errors.

Neville's scheme uses as few quotients as the truncation allows, and the value has the rounding errors of the smallest
steps. A polynomial of lower degree than there are quotients averages them all. Each is weighted by its step, since its
rounding error is in inverse proportion to that. What the polynomial leaves shows whether its degree suffices.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet._tools.types import FloatArray, IntArray
from fastnet.differentiation.quotients import Quotient

Array = npt.NDArray[Any]

MOST_DEGREES = 8
SPARE = 2  # quotients more than coefficients, at least: what they leave tells the quality of a fit
LEAST_QUALITY = 0.5  # what a fit leaves, in units of the rounding error, may be less by chance
CAUTION = 5.0  # from the standard deviation of a value to its estimated error
PREFERENCE = 2.0  # of the known error, which is that of a value's neighbours in the scheme: more than the value's own


def fraction(number: int) -> float:
    """Return the fractions 1, 3/4, 1/2, 3/8, 1/4, … of Bulirsch and Stoer by their numbers, from 0."""
    return float(0.5 ** (number // 2) * (0.75 if number % 2 else 1.0))


@functools.lru_cache(maxsize=4096)
def _fit(odd: int, rows: int, degree: int, power: int) -> tuple[FloatArray, FloatArray]:
    """Return what a fit makes of the quotients at `rows` fractions, the first with number `odd`.

    The first array, shape (rows,), gives the value at h = 0. The second, shape (rows, rows), gives what the fit leaves,
    multiplied by the steps. Both are made of an orthogonal basis, since what is left is far below the quotients.
    """
    steps = np.array([fraction(odd + number) for number in range(rows)]) / fraction(odd)
    terms = (steps**power)[:, None] ** np.arange(degree + 1)
    basis, triangle = np.linalg.qr(steps[:, None] * terms)
    first = np.linalg.solve(triangle.T, np.eye(degree + 1)[0])
    return basis @ first * steps, (basis @ basis.T - np.eye(rows)) * steps


def fitted(
    ladder: list[Quotient], counts: IntArray, powers: IntArray, value: Array, error: Array
) -> tuple[Array, Array]:
    """Return values that fits have improved, and their estimated errors.

    Parameters
    ----------
    ladder : list of Quotient
        Row by row the quotients of all lanes at a fraction of their own highest steps, shape (lanes, *shape).
    counts : ndarray of int
        How many rows each lane has.
    powers : ndarray of int
        For each lane, the p of the series in h^p.
    value, error : ndarray
        What is known so far, shape (lanes, *shape). A fit that is farther from it than its error is no improvement.
    """
    shape = value.shape
    best, improved = PREFERENCE * error.reshape(len(value), -1), value.reshape(len(value), -1).copy()
    slopes = np.stack([row.slopes.reshape(len(value), -1) for row in ladder])
    noise = np.stack([row.noise.reshape(len(value), -1) for row in ladder])
    known, within, is_fit = improved.copy(), error.reshape(len(value), -1), np.zeros(best.shape, bool)
    for count, power in {(int(c), int(p)) for c, p in zip(counts, powers, strict=True)}:
        mine = np.flatnonzero((counts == count) & (powers == power))
        for first in range(count - SPARE - 1):
            rows = count - first
            given, spread = slopes[first:count, mine] - known[mine], noise[first:count, mine]
            steps = np.array([fraction(number) for number in range(first, count)]) / fraction(first)
            scaled = steps[:, None, None] * spread
            for degree in range(1, min(MOST_DEGREES, rows - SPARE - 1) + 1):
                weights, leaves = _fit(first % 2, rows, degree, power)
                values = known[mine] + np.tensordot(weights, given, 1)
                left = np.tensordot(leaves, given, 1) / scaled
                quality = np.sqrt(np.sum(left**2, axis=0) / (rows - degree - 1))
                deviation = np.sqrt(np.tensordot(weights**2, spread**2, 1))
                estimate = CAUTION * deviation * np.maximum(quality, LEAST_QUALITY)
                better = (estimate < best[mine]) & (np.abs(values - known[mine]) <= within[mine])
                best[mine] = np.where(better, estimate, best[mine])
                improved[mine] = np.where(better, values, improved[mine])
                is_fit[mine] |= better
    errors = np.where(is_fit, best, within) + np.finfo(np.float64).eps * np.abs(improved)
    return improved.reshape(shape), errors.reshape(shape)
