"""The rounding noise of a function, measured by its values at points so close that it is a straight line there.

J. Moré and S. Wild, *Estimating computational noise*, SIAM J. Sci. Comput. 33, 2011.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet._tools.types import FloatArray

SAMPLES = 7  # values from which the noise is measured
SPACING = 64  # between them, in units in the last place: only rounding changes irregularly
SMALL = 1e-3  # of the largest element: elements below that are moved as if they had this size
BOUND = 3.0  # standard deviations: what a rounding error hardly exceeds


def spacing_of(values: npt.NDArray[Any]) -> FloatArray:
    """Return how far each element moves from one sample to the next: a power of 2, so that no sample is rounded."""
    sizes = np.abs(values[np.isfinite(values)].astype(np.float64))
    largest = float(sizes.max(initial=0.0)) or 1.0
    with np.errstate(all="ignore"):
        spacing = SPACING * float(np.finfo(values.dtype).eps) * np.maximum(np.abs(values), SMALL * largest)
        return np.asarray(np.exp2(np.floor(np.log2(spacing.astype(np.float64)))))


def samples_near(values: npt.NDArray[Any], bounds: tuple[FloatArray, FloatArray] | None) -> npt.NDArray[Any]:
    """Return the points to sample near a vector, shape (SAMPLES, size), within bounds."""
    spacing = spacing_of(values)
    signs = np.random.default_rng(0).choice((-1.0, 1.0), values.shape)
    if bounds is not None:
        far = values + SAMPLES * signs * spacing
        signs = np.where((far < bounds[0]) | (far > bounds[1]), -signs, signs)
    points = values + np.arange(SAMPLES).reshape(-1, *[1] * values.ndim) * signs * spacing
    return np.asarray(points if bounds is None else np.clip(points, *bounds))


def deviation_of(samples: FloatArray) -> FloatArray:
    """Return the standard deviation of the noise, by differences of second and higher order of equidistant samples.

    `samples` has shape (SAMPLES, *shape), and the answer shape `shape`; it is 0 where a sample is not finite.
    """
    found, differences = np.zeros(samples.shape[1:]), np.diff(samples, axis=0)
    with np.errstate(all="ignore"):
        for order in range(2, len(samples) - 1):
            differences = np.diff(differences, axis=0)
            scale = math.factorial(order) ** 2 / math.factorial(2 * order)
            found = np.maximum(found, np.sqrt(scale * np.mean(np.square(differences), axis=0)))
    return np.where(np.isfinite(found), found, 0.0)
