"""The convolution layer: an affine layer that slides over images."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray
from fastnet.backends import active
from fastnet.layers.base import Layer, as_gradient, entry, quietly
from fastnet.layers.patches import Pair, as_images, as_windows

NUMBERS_AT_ONCE = 2**22  # in the matrix of windows: 32 MB in float64, whatever the batch


class Convolution(Layer):
    """The products of filters with each window of the images, plus a bias for each filter.

    ``y[n, f, i, j] = Σ W[f, c, k, l] · x[n, c, i·stride + k − pad, j·stride + l − pad] + b[f]``, where x is 0 outside
    the image. As everywhere in this field, the filters are not flipped. There are ⌊(height + 2·pad − filter height) /
    stride⌋ + 1 rows of windows, and as many columns for the widths; what remains at the lower and the right edge is in
    no window.

    Parameters
    ----------
    W : ndarray
        Filters, shape (filters, channels, height, width), float32 or float64.
    b : ndarray, optional
        Biases, shape (filters,), of the same dtype; without it, the layer adds none.
    stride : int or pair of int, default 1
        From one window to the next: vertically and horizontally.
    pad : int or pair of int, default 0
        How many zeros stand above and below the image, and on its left and right.

    Attributes
    ----------
    W, b : ndarray
        ``params["W"]`` and ``params["b"]``: the given arrays, not copies.
    dW, db : ndarray or None
        The gradients with respect to `W` and `b` from the last `backward`.
    stride, pad : tuple of int
        Vertical and horizontal.

    Raises
    ------
    TypeError
        If `W` or `b` is not an array of float32 or float64, their dtypes differ, or `stride` or `pad` is not an integer
        or a pair of integers.
    ValueError
        If the shapes do not match, `stride` is less than 1, or `pad` is negative.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnet.layers import Convolution
    >>> edges = Convolution(np.array([[[[-1.0, 1.0]]]]))
    >>> edges.forward([[[[0, 0, 1, 1]]]])
    array([[[[0., 1., 0.]]]])
    """

    decayed = ("W",)
    W, b = entry("params", "W"), entry("params", "b")
    dW, db = entry("grads", "W"), entry("grads", "b")  # noqa: N815

    def __init__(self, W: FloatArray, b: FloatArray | None = None, stride: int | Pair = 1, pad: int | Pair = 0) -> None:
        self.params = {"W": checks.as_parameter(W, "W", 4)}
        if b is not None:
            self.params["b"] = checks.as_parameter(b, "b", 1)
            if b.shape != W.shape[:1]:
                raise ValueError(f"b must have shape ({W.shape[0]},) for W of shape {W.shape}, not {b.shape}")
            if b.dtype != W.dtype:
                raise TypeError(f"b is {b.dtype}, but W is {W.dtype}")
        height, width = W.shape[2:]
        self._windows = as_windows((height, width), stride, pad)

    @property
    def stride(self) -> Pair:
        return self._windows.stride

    @property
    def pad(self) -> Pair:
        return self._windows.pad

    @quietly
    def forward(self, x: npt.ArrayLike) -> FloatArray:
        """Each filter's products with the windows of `x`.

        Parameters
        ----------
        x : array_like
            Images, shape (batch, channels, height, width).

        Returns
        -------
        ndarray
            Shape (batch, filters, rows, columns), in the dtype of `W`.

        Raises
        ------
        ValueError
            If `x` has another shape, the batch is empty, or the filters are larger than the padded images.
        TypeError
            If `x` does not contain real numbers.
        """
        weight = checks.as_floating(self.W, "W")
        images = as_images(x, weight.dtype)
        if images.shape[1] != weight.shape[1]:
            raise ValueError(f"x has {images.shape[1]} channel(s) for filters of shape {weight.shape}")
        down, across = self._windows.counts(images.shape)
        filters = _as_matrix(weight)
        out = np.empty((len(images), len(weight), down, across), weight.dtype)
        for part in self._parts(images):
            products = active().matmul(self._windows.columns(images[part]), filters, transpose_b=True)
            if self.b is not None:
                products = active().add_bias(products, checks.as_floating(self.b, "b"))
            out[part] = products.reshape(-1, down, across, len(weight)).transpose(0, 3, 1, 2)
        self._saved = images
        return out

    @quietly
    def backward(self, dout: npt.ArrayLike) -> FloatArray:
        """The derivative with respect to `x`, in its shape, from `dout`, in the shape of the output.

        The derivatives with respect to `W` and `b` are stored in `grads`.
        """
        images: FloatArray = self._last()
        weight = checks.as_floating(self.W, "W")
        filters = _as_matrix(weight)
        down, across = self._windows.counts(images.shape)
        d = as_gradient(dout, (len(images), len(weight), down, across), weight.dtype)
        dx, dfilters = np.empty_like(images), np.zeros_like(filters)
        for part in self._parts(images):
            # A row for each window.
            rows = np.ascontiguousarray(d[part].transpose(0, 2, 3, 1).reshape(-1, len(weight)))
            dfilters += active().matmul(rows, self._windows.columns(images[part]), transpose_a=True)
            dx[part] = self._windows.images(active().matmul(rows, filters), images[part].shape)
        self.grads = {"W": dfilters.reshape(weight.shape)}
        if self.b is not None:
            self.grads["b"] = d.sum(axis=(0, 2, 3), dtype=np.float64).astype(d.dtype)
        return dx

    def _parts(self, images: FloatArray) -> Iterator[slice]:
        """The batch in parts whose windows hold at most `NUMBERS_AT_ONCE` numbers; at least one image each."""
        down, across = self._windows.counts(images.shape)
        at_once = max(1, NUMBERS_AT_ONCE // (down * across * self.params["W"][0].size))
        for first in range(0, len(images), at_once):
            yield slice(first, first + at_once)


def _as_matrix(weight: FloatArray) -> FloatArray:
    """The filters as rows, shape (filters, channels·height·width)."""
    rows: FloatArray = weight.reshape(len(weight), -1)
    return rows
