"""Layers that give the numbers of each row another shape."""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray
from fastnet.layers.base import Layer, as_gradient


class Flatten(Layer):
    """Images, or rows of any shape, as flat rows: what an affine layer takes.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnet.layers import Flatten
    >>> Flatten().forward(np.zeros((10, 16, 4, 4))).shape
    (10, 256)
    """

    def forward(self, x: npt.ArrayLike) -> FloatArray:
        """A copy of `x` of shape (batch, numbers), float32 or float64; `x` has shape (batch, …)."""
        array = checks.as_floating(x, "x")
        if array.ndim < 2:
            raise ValueError(f"x must have shape (batch, …), not {array.shape}")
        self._saved = array
        return array.reshape(len(array), math.prod(array.shape[1:])).copy()

    def backward(self, dout: npt.ArrayLike) -> FloatArray:
        """A copy of `dout`, which has shape (batch, numbers), in the shape and dtype of `x`."""
        x = self._last()
        return as_gradient(dout, (len(x), math.prod(x.shape[1:])), x.dtype).reshape(x.shape).copy()


class Reshape(Layer):
    """Flat rows as images: what `Convolution` takes. Rows that have the shape already stay as they are.

    Parameters
    ----------
    shape : tuple of int
        Of one row, such as (channels, height, width).

    Raises
    ------
    TypeError
        If `shape` is not a tuple or list of integers.
    ValueError
        If it is empty or has a number below 1.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnet.layers import Reshape
    >>> Reshape((1, 28, 28)).forward(np.zeros((10, 784))).shape
    (10, 1, 28, 28)
    """

    def __init__(self, shape: Iterable[int]) -> None:
        self._shape = as_shape(shape, "shape")

    @property
    def shape(self) -> tuple[int, ...]:
        return self._shape

    def forward(self, x: npt.ArrayLike) -> FloatArray:
        """A copy of `x` of shape ``(batch, *shape)``, float32 or float64.

        `x` has that shape, or (batch, numbers) with as many numbers in each row.
        """
        array, numbers = checks.as_floating(x, "x"), math.prod(self._shape)
        if array.ndim == 0 or array.shape[1:] not in ((numbers,), self._shape):
            shown = ", ".join(map(str, self._shape))
            raise ValueError(f"x must have shape (batch, {numbers}) or (batch, {shown}), not {array.shape}")
        self._saved = array
        return array.reshape(len(array), *self._shape).copy()

    def backward(self, dout: npt.ArrayLike) -> FloatArray:
        """A copy of `dout`, which has shape ``(batch, *shape)``, in the shape and dtype of `x`."""
        x = self._last()
        return as_gradient(dout, (len(x), *self._shape), x.dtype).reshape(x.shape).copy()


def as_shape(value: object, name: str) -> tuple[int, ...]:
    """A tuple of positive integers."""
    if not isinstance(value, (tuple, list)):
        raise TypeError(f"{name} must be a tuple of integers, not {checks.type_name(value)}")
    if not value:
        raise ValueError(f"{name} is empty")
    return tuple(checks.as_count(part, f"{name}[{place}]") for place, part in enumerate(value))
