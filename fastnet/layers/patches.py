"""Windows that slide over images: where they lie, what they hold, and how that is added back."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray

Pair = tuple[int, int]


@dataclass(frozen=True)
class Windows:
    """Windows of one size that slide over images of shape (batch, channels, height, width).

    Attributes
    ----------
    size, stride, pad : tuple of int
        Vertical and horizontal: of a window, from one window to the next, and how much is added on each side.
    """

    size: Pair
    stride: Pair
    pad: Pair

    def counts(self, shape: tuple[int, ...]) -> Pair:
        """How many windows fit below and beside each other: ⌊(n + 2·pad − size) / stride⌋ + 1.

        What remains at the lower and the right edge is in no window. ValueError if not one window fits.
        """
        free = [n + 2 * pad - size for n, size, pad in zip(shape[2:], self.size, self.pad, strict=True)]
        if min(free) < 0:
            (height, width), pad = self.size, self.pad
            raise ValueError(
                f"a window of {height}×{width} does not fit into x of shape {shape} with pad {pad[0]} above and below, "
                f"and {pad[1]} on the left and right"
            )
        down, across = (room // stride + 1 for room, stride in zip(free, self.stride, strict=True))
        return down, across

    def view(self, images: npt.NDArray[Any], mode: Literal["constant", "edge"] = "constant") -> npt.NDArray[Any]:
        """What the windows hold, shape (batch, channels, down, across, height, width): a read-only view.

        The padding is 0, or with mode ``"edge"`` repeats the nearest element of the image.
        """
        self.counts(images.shape)
        around = (0, 0), (0, 0), (self.pad[0],) * 2, (self.pad[1],) * 2
        padded = np.pad(images, around, mode) if any(self.pad) else images
        every = np.lib.stride_tricks.sliding_window_view(padded, self.size, axis=(2, 3))
        return every[:, :, :: self.stride[0], :: self.stride[1]]

    def columns(self, images: npt.NDArray[Any]) -> npt.NDArray[Any]:
        """The windows as the rows of a matrix, shape (batch·down·across, channels·height·width): the book's im2col."""
        view = self.view(images)
        batch, channels, down, across, height, width = view.shape
        rows = view.transpose(0, 2, 3, 1, 4, 5)
        return np.ascontiguousarray(rows.reshape(batch * down * across, channels * height * width))

    def images(self, columns: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """The images of `shape` in which each element is the sum of its places in `columns`: the book's col2im.

        It is the adjoint of `columns`: Σ columns(x)∘c = Σ x∘images(c).
        """
        down, across = self.counts(shape)
        parts = columns.reshape(shape[0], down, across, shape[1], *self.size)
        return self.add(parts.transpose(0, 3, 1, 2, 4, 5), shape)

    def add(self, parts: npt.NDArray[Any], shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """The sum of `parts`, which have the shape that `view` gives, in their places; the padding is cut off."""
        down, across = parts.shape[2:4]
        above, left = self.pad
        batch, channels, height, width = shape
        padded = np.zeros((batch, channels, height + 2 * above, width + 2 * left), parts.dtype)
        for i, j in itertools.product(range(self.size[0]), range(self.size[1])):
            # Element (i, j) of all windows: one place in each step of the strides.
            rows = slice(i, i + self.stride[0] * down, self.stride[0])
            beside = slice(j, j + self.stride[1] * across, self.stride[1])
            padded[:, :, rows, beside] += parts[..., i, j]
        return np.ascontiguousarray(padded[:, :, above : above + height, left : left + width])


def as_windows(size: Pair, stride: object, pad: object) -> Windows:
    """Windows whose `stride` and `pad`, a number or a pair (vertical, horizontal), are checked."""
    return Windows(size, as_pair(stride, "stride"), as_pair(pad, "pad", least=0))


def as_pair(value: object, name: str, least: int = 1) -> Pair:
    """An integer of at least `least`, twice, or a pair of such integers."""
    if not isinstance(value, (tuple, list)):
        number = checks.as_count(value, name, least)
        return number, number
    if len(value) != 2:
        raise ValueError(f"{name} must be an integer or a pair (vertical, horizontal), not {value!r}")
    first, second = (checks.as_count(part, f"{name}[{place}]", least) for place, part in enumerate(value))
    return first, second


def as_images(x: npt.ArrayLike, dtype: np.dtype[np.floating[Any]] | None = None) -> FloatArray:
    """`x` as an array of shape (batch, channels, height, width), none of which is 0."""
    array = checks.as_floating(x, "x", dtype)
    if array.ndim != 4:
        hint = ": put Reshape((channels, height, width)) before the layer" if array.ndim == 2 else ""
        raise ValueError(f"x must have shape (batch, channels, height, width), not {array.shape}{hint}")
    if len(array) == 0:
        raise ValueError(f"x of shape {array.shape} is an empty batch")
    if array.size == 0:
        raise ValueError(f"x of shape {array.shape} holds no pixels")
    return array
