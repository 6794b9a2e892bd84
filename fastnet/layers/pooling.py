"""Pooling layers: one number for each window of an image."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray
from fastnet.layers.base import Branch, Layer, as_gradient, quietly
from fastnet.layers.patches import Pair, as_images, as_windows


class _Pooling(Layer):
    """Windows that slide over each channel of the images: what both kinds of pooling share.

    Each window holds at least one element of the image, since `pad` is less than the size of the windows.
    """

    def __init__(self, pool_h: int, pool_w: int, stride: int | Pair = 1, pad: int | Pair = 0) -> None:
        size = checks.as_count(pool_h, "pool_h"), checks.as_count(pool_w, "pool_w")
        self._windows = as_windows(size, stride, pad)
        for name, length, added in zip(("pool_h", "pool_w"), size, self._windows.pad, strict=True):
            if added >= length:
                raise ValueError(f"pad must be less than {name}, {length}, not {added}: some windows would be empty")

    @property
    def window(self) -> Pair:
        return self._windows.size

    @property
    def stride(self) -> Pair:
        return self._windows.stride

    @property
    def pad(self) -> Pair:
        return self._windows.pad

    def forward(self, x: npt.ArrayLike) -> FloatArray:
        """One number for each window of each channel.

        Parameters
        ----------
        x : array_like
            Images, shape (batch, channels, height, width).

        Returns
        -------
        ndarray
            Shape (batch, channels, rows, columns); float32 or float64.

        Raises
        ------
        ValueError
            If `x` has another shape, or the windows are larger than the padded images.
        TypeError
            If `x` does not contain real numbers.
        """
        raise NotImplementedError


class MaxPooling(_Pooling):
    """The largest element of each window.

    The padding never wins: a window at the edge has the largest of the elements that it has of the image. (The book's
    `Pooling` pads with zeros, which win over negative numbers.) The largest of numbers with a NaN among them is NaN.
    The derivative belongs to the winner alone: the first of several equal ones, row by row, or the first NaN.

    Parameters
    ----------
    pool_h, pool_w : int
        The height and the width of the windows.
    stride : int or pair of int, default 1
        From one window to the next: vertically and horizontally. The usual choice is the size of the windows.
    pad : int or pair of int, default 0
        How much is added above and below the image, and on its left and right; less than the size of the windows.

    Attributes
    ----------
    window, stride, pad : tuple of int
        Vertical and horizontal.

    Raises
    ------
    TypeError
        If an argument is not an integer, or a pair of integers where that is possible.
    ValueError
        If a size or `stride` is less than 1, or `pad` is negative or not less than the size.

    Examples
    --------
    >>> from fastnet.layers import MaxPooling
    >>> pool = MaxPooling(2, 2, stride=2)
    >>> pool.forward([[[[1, 2, 0, 1], [3, 0, 2, 4]]]])
    array([[[[3., 4.]]]])
    >>> pool.backward([[[[5, 6]]]])
    array([[[[0., 0., 0., 0.],
             [5., 0., 0., 6.]]]])
    """

    def forward(self, x: npt.ArrayLike) -> FloatArray:
        images = as_images(x)
        winners = self._winners(images)
        self._saved = winners, images.shape, images.dtype
        return images.reshape(-1)[winners]

    forward.__doc__ = _Pooling.forward.__doc__

    def branch(self, x: FloatArray) -> Branch | None:
        winners = self._winners(as_images(x))
        return lambda images: images.reshape(-1)[winners]

    @quietly
    def backward(self, dout: npt.ArrayLike) -> FloatArray:
        """The derivative with respect to `x`, in its shape and dtype: `dout` where the winners are."""
        winners, shape, dtype = self._last()
        d = as_gradient(dout, winners.shape, dtype)
        # An element may win in several windows; its derivatives are added in float64.
        sums = np.bincount(winners.ravel(), d.ravel(), minlength=math.prod(shape))
        dx: FloatArray = sums.reshape(shape).astype(d.dtype)
        return dx

    def _winners(self, images: FloatArray) -> npt.NDArray[np.intp]:
        """The flat number in `images` of each window's first largest element, in the shape of the output.

        The padding repeats the nearest element of the image. That element lies in the same window, and not after its
        copies. So the largest element and the first place are those of the image, once the place is put back into it.
        """
        batch, channels, height, width = images.shape
        view = self._windows.view(images, "edge")
        down, across = view.shape[2:4]
        first = view.reshape(*view.shape[:4], math.prod(self.window)).argmax(axis=-1)
        row, column = np.divmod(first, self.window[1])
        row += (self.stride[0] * np.arange(down) - self.pad[0])[:, np.newaxis]
        column += self.stride[1] * np.arange(across) - self.pad[1]
        plane = np.arange(batch * channels).reshape(batch, channels, 1, 1)
        found: npt.NDArray[Any] = (plane * height + row.clip(0, height - 1)) * width + column.clip(0, width - 1)
        return found


class AveragePooling(_Pooling):
    """The mean of each window.

    The padding counts as zeros: every window's sum is divided by pool_h·pool_w, as PyTorch does by default. Sums are
    computed in float64, even for float32 data.

    Parameters
    ----------
    pool_h, pool_w : int
        The height and the width of the windows.
    stride : int or pair of int, default 1
        From one window to the next: vertically and horizontally. The usual choice is the size of the windows.
    pad : int or pair of int, default 0
        How much is added above and below the image, and on its left and right; less than the size of the windows.

    Attributes
    ----------
    window, stride, pad : tuple of int
        Vertical and horizontal.

    Raises
    ------
    TypeError, ValueError
        As `MaxPooling`.

    Examples
    --------
    >>> from fastnet.layers import AveragePooling
    >>> AveragePooling(2, 2, stride=2).forward([[[[1, 2, 0, 1], [3, 0, 2, 4]]]])
    array([[[[1.5 , 1.75]]]])
    """

    @quietly
    def forward(self, x: npt.ArrayLike) -> FloatArray:
        images = as_images(x)
        means = self._windows.view(images).mean(axis=(4, 5), dtype=np.float64)
        self._saved = images.shape, means.shape, images.dtype
        out: FloatArray = means.astype(images.dtype)
        return out

    forward.__doc__ = _Pooling.forward.__doc__

    @quietly
    def backward(self, dout: npt.ArrayLike) -> FloatArray:
        """The derivative with respect to `x`, in its shape and dtype: its part of `dout`, from each of its windows."""
        shape, given, dtype = self._last()
        d = as_gradient(dout, given, dtype)
        parts = (d / (math.prod(self.window)))[..., np.newaxis, np.newaxis]
        return self._windows.add(np.broadcast_to(parts, (*given, *self.window)), shape)
