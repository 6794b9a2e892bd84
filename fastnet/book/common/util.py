"""`common/util.py` of the book: curves, data sets, and the windows of convolutions."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

__all__ = ["conv_output_size", "np", "shuffle_dataset", "smooth_curve"]

HALF = 5  # half of the eleven points that a point of a smooth curve is the mean of


def smooth_curve(x: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """A curve of losses, smoothed by a Kaiser window (β = 2) of 11 points; the ends are mirrored.

    Parameters
    ----------
    x : array_like
        Shape (n,), n ≥ 1.

    Returns
    -------
    ndarray
        float64, shape (n,).

    Raises
    ------
    ValueError
        If `x` has another shape.

    References
    ----------
    J. F. Kaiser, Digital filters, in: System Analysis by Digital Computer, 1966.
    """
    curve = np.asarray(x, dtype=np.float64)
    if curve.ndim != 1 or len(curve) == 0:
        raise ValueError(f"x must have shape (n,) with n >= 1, not {curve.shape}")
    window = np.kaiser(2 * HALF + 1, 2)
    # As in the book, the first point is not repeated in its mirror image, and the last one is.
    longer = np.pad(np.pad(curve, (HALF, 0), "reflect"), (0, HALF), "symmetric")
    return np.convolve(longer, window / window.sum(), "valid")


def shuffle_dataset(x: npt.NDArray[Any], t: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """Shuffle rows and their targets, with ``np.random.permutation``.

    Parameters
    ----------
    x, t : ndarray
        As many rows, of any shape.

    Returns
    -------
    x, t : ndarray
        Copies, in one new order.

    Raises
    ------
    ValueError
        If their numbers of rows differ.
    """
    if len(x) != len(t):
        raise ValueError(f"t has {len(t)} rows for the {len(x)} rows of x")
    order = np.random.permutation(len(x))
    return x[order], t[order]


def conv_output_size(input_size: int, filter_size: int, stride: int = 1, pad: int = 0) -> float:
    """How many windows fit beside each other: (input_size + 2·pad − filter_size) / stride + 1.

    Parameters
    ----------
    input_size, filter_size : int
        The width or the height of the images and of the filters.
    stride, pad : int

    Returns
    -------
    float
        As in the book; not a whole number if something remains at the edge, which is in no window.
    """
    return (input_size + 2 * pad - filter_size) / stride + 1
