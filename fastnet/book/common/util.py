"""`common/util.py` of the book: curves, data sets, and the windows of convolutions."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet.layers.patches import Windows, as_images, as_windows

__all__ = ["col2im", "conv_output_size", "im2col", "np", "shuffle_dataset", "smooth_curve"]

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


def im2col(input_data: npt.ArrayLike, filter_h: int, filter_w: int, stride: int = 1, pad: int = 0) -> npt.NDArray[Any]:
    """The windows of images as the rows of a matrix, so that a convolution becomes a product of matrices.

    Parameters
    ----------
    input_data : array_like
        Images, shape (batch, channels, height, width).
    filter_h, filter_w : int
        The height and the width of the windows.
    stride : int, default 1
        From one window to the next.
    pad : int, default 0
        How many zeros stand on each side of the images.

    Returns
    -------
    ndarray
        Shape (batch·rows·columns, channels·filter_h·filter_w), with the numbers of windows below and beside each other.

    Raises
    ------
    ValueError, TypeError
        If the windows are larger than the padded images, or an argument has another shape or type.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnet.book.common.util import im2col
    >>> im2col(np.random.rand(10, 3, 7, 7), 5, 5).shape
    (90, 75)
    """
    return _windows(filter_h, filter_w, stride, pad).columns(as_images(input_data))


def col2im(
    col: npt.ArrayLike, input_shape: tuple[int, ...], filter_h: int, filter_w: int, stride: int = 1, pad: int = 0
) -> npt.NDArray[Any]:
    """The images in which each element is the sum of its places in the windows: the adjoint of `im2col`.

    Parameters
    ----------
    col : array_like
        What `im2col` gives for images of that shape.
    input_shape : tuple of int
        (batch, channels, height, width)
    filter_h, filter_w, stride, pad : int
        As for `im2col`.

    Returns
    -------
    ndarray
        Shape `input_shape`.

    Raises
    ------
    ValueError, TypeError
        As `im2col`.
    """
    columns, windows = checks.as_floating(col, "col"), _windows(filter_h, filter_w, stride, pad)
    shape = tuple(checks.as_count(n, f"input_shape[{place}]") for place, n in enumerate(input_shape))
    if len(shape) != 4:
        raise ValueError(f"input_shape must be (batch, channels, height, width), not {shape}")
    down, across = windows.counts(shape)
    wanted = shape[0] * down * across, shape[1] * filter_h * filter_w
    if columns.shape != wanted:
        raise ValueError(f"col must have shape {wanted} for images of shape {shape}, not {columns.shape}")
    return windows.images(columns, shape)


def _windows(height: int, width: int, stride: int, pad: int) -> Windows:
    return as_windows((checks.as_count(height, "filter_h"), checks.as_count(width, "filter_w")), stride, pad)
