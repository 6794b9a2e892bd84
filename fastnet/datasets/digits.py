"""Draw images of digits, for machines without MNIST."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks

# The pen's path through each digit, in a box from (0, 0), top left, to (1, 1).
_STROKES = (
    ((0.50, 0.10), (0.28, 0.22), (0.22, 0.50), (0.30, 0.80), (0.50, 0.90), (0.70, 0.80), (0.78, 0.50), (0.72, 0.22),
     (0.50, 0.10)),
    ((0.36, 0.28), (0.54, 0.10), (0.53, 0.50), (0.52, 0.90)),
    ((0.26, 0.30), (0.34, 0.13), (0.54, 0.09), (0.72, 0.20), (0.70, 0.40), (0.48, 0.66), (0.25, 0.89), (0.50, 0.86),
     (0.77, 0.88)),
    ((0.28, 0.17), (0.48, 0.09), (0.69, 0.17), (0.68, 0.38), (0.44, 0.47), (0.70, 0.54), (0.75, 0.73), (0.58, 0.90),
     (0.26, 0.84)),
    ((0.62, 0.90), (0.62, 0.50), (0.64, 0.10), (0.40, 0.40), (0.24, 0.64), (0.50, 0.64), (0.80, 0.62)),
    ((0.72, 0.11), (0.36, 0.12), (0.32, 0.45), (0.52, 0.40), (0.73, 0.52), (0.73, 0.75), (0.52, 0.90), (0.27, 0.83)),
    ((0.66, 0.12), (0.42, 0.30), (0.29, 0.62), (0.36, 0.86), (0.58, 0.89), (0.72, 0.70), (0.58, 0.52), (0.36, 0.58),
     (0.29, 0.70)),
    ((0.24, 0.14), (0.50, 0.13), (0.76, 0.12), (0.58, 0.45), (0.44, 0.90)),
    ((0.66, 0.20), (0.48, 0.09), (0.31, 0.22), (0.42, 0.42), (0.66, 0.62), (0.66, 0.85), (0.44, 0.90), (0.31, 0.74),
     (0.44, 0.53), (0.64, 0.36), (0.66, 0.20)),
    ((0.70, 0.34), (0.52, 0.50), (0.32, 0.40), (0.34, 0.18), (0.56, 0.10), (0.70, 0.24), (0.68, 0.58), (0.56, 0.90)),
)  # fmt: skip


def _polyline(points: tuple[tuple[float, float], ...], length: int) -> npt.NDArray[np.float64]:
    """`length` points on the Catmull-Rom curve through `points`, shape (length, 2)."""
    p = np.array([points[0], *points, points[-1]])
    place = np.linspace(0, len(points) - 1, length)
    i = np.minimum(place.astype(int), len(points) - 2)
    u = (place - i)[:, np.newaxis]
    a, b, c, d = p[i], p[i + 1], p[i + 2], p[i + 3]
    curve: npt.NDArray[np.float64] = b + 0.5 * u * (c - a + u * (2 * a - 5 * b + 4 * c - d + u * (3 * (b - c) + d - a)))
    return curve


def _draw(curves: npt.NDArray[np.float64], radius: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Draw pen strokes of a radius in pixels along curves (n, points, 2); the ink is 0 to 1, shape (n, 28, 28)."""
    at = np.arange(28) + 0.5
    start, along = curves[:, :-1], np.diff(curves, axis=1)
    squares = np.maximum((along**2).sum(axis=2), 1e-12)
    nearest = np.full((len(curves), 28, 28), np.inf)
    for k in range(along.shape[1]):  # The squared distance of every pixel from each piece of the curve.
        x = at[np.newaxis, np.newaxis, :] - start[:, k, 0, np.newaxis, np.newaxis]
        y = at[np.newaxis, :, np.newaxis] - start[:, k, 1, np.newaxis, np.newaxis]
        dx, dy = along[:, k, 0, np.newaxis, np.newaxis], along[:, k, 1, np.newaxis, np.newaxis]
        u = np.clip((x * dx + y * dy) / squares[:, k, np.newaxis, np.newaxis], 0, 1)
        np.minimum(nearest, (x - u * dx) ** 2 + (y - u * dy) ** 2, out=nearest)
    ink: npt.NDArray[np.float64] = np.clip(radius[:, np.newaxis, np.newaxis] + 0.5 - np.sqrt(nearest), 0, 1)
    return ink


def make_digits(n: int, seed: int | None = 0) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.int64]]:
    """Draw `n` images of digits that resemble MNIST, for use when MNIST is not available.

    The ten classes are equally frequent. The digits are bent, rotated, slanted, shifted, thin or thick. About four
    fifths of the pixels are exactly 0, and the others are multiples of 1/255.

    Parameters
    ----------
    n : int
        The number of images, at least 1.
    seed : int or None, default 0
        The same seed gives the same digits; None gives different ones each time.

    Returns
    -------
    x : ndarray of float32, shape (n, 784)
        Pixels from 0 to 1.
    t : ndarray of int64, shape (n,)
        The digits, 0 to 9.

    Raises
    ------
    TypeError
        If `n` or `seed` is not an integer.
    ValueError
        If `n` is less than 1, or `seed` is negative.

    Examples
    --------
    >>> import fastnet
    >>> x, t = fastnet.datasets.make_digits(3, seed=0)
    >>> x.shape, t.shape
    ((3, 784), (3,))
    """
    n = checks.as_count(n, "n")
    rng = np.random.default_rng(checks.as_seed(seed))
    t = rng.permutation(np.arange(n, dtype=np.int64) % 10)
    pieces = 20
    fonts = np.stack([_polyline(stroke, pieces + 1) for stroke in _STROKES]) - 0.5
    x = np.empty((n, 784), dtype=np.float32)
    for first in range(0, n, 256):
        digits = t[first : first + 256]
        count = len(digits)
        # A hand trembles smoothly along the curve, as a few slow waves.
        wave = np.sin(np.linspace(0, 3, pieces + 1) * rng.uniform(0.5, 2, (count, 1)) + rng.uniform(0, 6.3, (count, 1)))
        curve = fonts[digits] + 0.05 * wave[..., np.newaxis] * rng.standard_normal((count, 1, 2))
        angle, slant = rng.normal(0, 0.13, count), rng.normal(0.1, 0.15, count)
        wide, tall = 20 * rng.uniform(0.8, 1.2, count), 20 * rng.uniform(0.9, 1.1, count)
        turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]]).transpose(2, 0, 1)
        zero = np.zeros(count)
        form = np.array([[wide, -slant * tall], [zero, tall]]).transpose(2, 0, 1)
        curve = curve @ (turn @ form).transpose(0, 2, 1) + 14 + rng.uniform(-1.5, 1.5, (count, 1, 2))
        ink = _draw(curve, rng.uniform(0.8, 1.9, count)) * rng.uniform(0.8, 1, (count, 1, 1))
        x[first : first + count] = (np.round(255 * ink) / 255).reshape(count, 784)
    return x, t
