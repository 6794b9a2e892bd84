"""Windows that slide over images: what they hold, and how that is added back."""

from __future__ import annotations

import itertools
from typing import Literal

import numpy as np
import numpy.typing as npt

from fastnet._tools.types import FloatArray
from fastnet.backends.spec import Windows


def patches(w: Windows, units: FloatArray, border: Literal["constant", "edge"] = "constant") -> FloatArray:
    """What the windows of images hold, as a view of shape (…, channels, out_height, out_width, window).

    `units` has shape (…, channels·height·width), for any number of channels. The border is 0, or with ``"edge"``
    repeats the nearest element of the image, which lies in the same window, and not after its copies.
    """
    images = units.reshape(*units.shape[:-1], -1, w.height, w.width)
    around = [(0, 0)] * (images.ndim - 2) + [(w.pad_y,) * 2, (w.pad_x,) * 2]
    padded = np.pad(images, around, border) if w.pad_y or w.pad_x else images
    size = w.window_height, w.window_width
    every = np.lib.stride_tricks.sliding_window_view(padded, size, axis=(-2, -1))
    found: FloatArray = every[..., :: w.stride_y, :: w.stride_x, :, :]
    return found.reshape(*found.shape[:-2], -1)


def elements(w: Windows, taken: npt.NDArray[np.intp]) -> npt.NDArray[np.intp]:
    """The place in its channel of element `taken`, shape (…, out_height, out_width), of each window with an edge."""
    row, column = np.divmod(taken, w.window_width)
    row = row + (w.stride_y * np.arange(w.out_height) - w.pad_y)[:, np.newaxis]
    column = column + w.stride_x * np.arange(w.out_width) - w.pad_x
    places: npt.NDArray[np.intp] = row.clip(0, w.height - 1) * w.width + column.clip(0, w.width - 1)
    return places


def add_patches(w: Windows, parts: FloatArray) -> FloatArray:
    """The images, shape (rows, channels·height·width), in which each element is the sum of its places in `parts`.

    `parts` has the shape of `patches` of (rows, …). The border is cut off.
    """
    rows, channels = parts.shape[:2]
    padded = np.zeros((rows, channels, w.height + 2 * w.pad_y, w.width + 2 * w.pad_x), parts.dtype)
    for k, (i, j) in enumerate(itertools.product(range(w.window_height), range(w.window_width))):
        below = slice(i, i + w.stride_y * w.out_height, w.stride_y)
        beside = slice(j, j + w.stride_x * w.out_width, w.stride_x)
        padded[:, :, below, beside] += parts[..., k]
    inner = padded[:, :, w.pad_y : w.pad_y + w.height, w.pad_x : w.pad_x + w.width]
    return inner.reshape(rows, -1)
