"""Windows that slide over images of shape (channels, height, width, rows), flat: patches, pooling and the ways back."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet._tools.types import FloatArray
from fastnet.backends._numba.jit import jit


@jit(inline=True)
def window(stage: Any, position: int) -> tuple[int, int, int, int]:
    # The part of a window that lies inside the image: first y, last y, first x, last x.
    top = position // stage.out_width * stage.stride_y - stage.pad_y
    left = position % stage.out_width * stage.stride_x - stage.pad_x
    bottom, right = min(top + stage.window_height, stage.height), min(left + stage.window_width, stage.width)
    return max(top, 0), bottom, max(left, 0), right


@jit(inline=True)
def source_of(stage: Any, position: int, k: int) -> int:
    # The place in an image of element k of the patch at a position; -1 in the border.
    x = position % stage.out_width * stage.stride_x - stage.pad_x + k % stage.window_width
    rest = k // stage.window_width
    y = position // stage.out_width * stage.stride_y - stage.pad_y + rest % stage.window_height
    if y < 0 or y >= stage.height or x < 0 or x >= stage.width:
        return -1
    place: int = (rest // stage.window_height * stage.height + y) * stage.width + x
    return place


@jit()
def gather_patch(stage: Any, position: int, rows: int, images: FloatArray, patch: FloatArray) -> None:
    # images, flat -> patch (elements, rows) at a position; 0 in the border.
    for k in range(len(patch)):
        to, place = patch[k], source_of(stage, position, k)
        if place < 0:
            to[:] = 0
        else:
            from_ = images[place * rows : (place + 1) * rows]
            for i in range(rows):
                to[i] = from_[i]


@jit()
def scatter_patch(stage: Any, position: int, rows: int, patch: FloatArray, images: FloatArray) -> None:
    # Adds patch (elements, rows) to the elements of the images that it came from.
    for k in range(len(patch)):
        from_, place = patch[k], source_of(stage, position, k)
        if place >= 0:
            to = images[place * rows : (place + 1) * rows]
            for i in range(rows):
                to[i] += from_[i]


@jit()
def max_pool(stage: Any, unit: int, rows: int, images: FloatArray, to: FloatArray) -> None:
    # The greatest element of the window of an output unit: to (rows,). NaN wins.
    top, bottom, left, right = window(stage, unit % stage.positions)
    channel = unit // stage.positions * stage.height
    for y in range(top, bottom):
        for x in range(left, right):
            place = ((channel + y) * stage.width + x) * rows
            from_ = images[place : place + rows]
            if y == top and x == left:
                for i in range(rows):
                    to[i] = from_[i]
            else:
                for i in range(rows):
                    to[i] = from_[i] if (from_[i] > to[i]) | (from_[i] != from_[i]) else to[i]


@jit()
def max_pool_backward(
    stage: Any, unit: int, rows: int, images: FloatArray, d: FloatArray, d_images: FloatArray
) -> None:
    # Adds d (rows,) of an output unit to the winner of its window: the first of the greatest, or the first NaN.
    top, bottom, left, right = window(stage, unit % stage.positions)
    channel = unit // stage.positions * stage.height
    for i in range(rows):
        winner = ((channel + top) * stage.width + left) * rows + i
        for y in range(top, bottom):
            for x in range(left, right):
                place = ((channel + y) * stage.width + x) * rows + i
                value, best = images[place], images[winner]
                if value > best or (value != value and best == best):
                    winner = place
        d_images[winner] += d[i]


@jit()
def average_pool(stage: Any, unit: int, rows: int, images: FloatArray, to: FloatArray) -> None:
    # The mean of the window of an output unit: to (rows,). The border counts as zeros.
    top, bottom, left, right = window(stage, unit % stage.positions)
    channel = unit // stage.positions * stage.height
    to[:] = 0
    for y in range(top, bottom):
        for x in range(left, right):
            place = ((channel + y) * stage.width + x) * rows
            from_ = images[place : place + rows]
            for i in range(rows):
                to[i] += from_[i]
    size = to.dtype.type(stage.window_height * stage.window_width)
    for i in range(rows):
        to[i] /= size


@jit()
def average_pool_backward(stage: Any, unit: int, rows: int, d: FloatArray, d_images: FloatArray) -> None:
    # Adds the shares of d (rows,) of an output unit to the elements of its window.
    top, bottom, left, right = window(stage, unit % stage.positions)
    channel = unit // stage.positions * stage.height
    size = d.dtype.type(stage.window_height * stage.window_width)
    for y in range(top, bottom):
        for x in range(left, right):
            place = ((channel + y) * stage.width + x) * rows
            to = d_images[place : place + rows]
            for i in range(rows):
                to[i] += d[i] / size


@jit()
def differ_max_pool(
    stage: Any, unit: int, rows: int, images: FloatArray, d: FloatArray, to: FloatArray, work: FloatArray
) -> bool:
    # Moves d of the images -> to (rows,), that of the greatest element of an output unit's window; work (2, rows) is
    # scratch. Returns whether another element wins in a row.
    top, bottom, left, right = window(stage, unit % stage.positions)
    channel, greatest, of_winner = unit // stage.positions * stage.height, work[0], work[1]
    for y in range(top, bottom):
        for x in range(left, right):
            place = ((channel + y) * stage.width + x) * rows
            value, move = images[place : place + rows], d[place : place + rows]
            if y == top and x == left:
                for i in range(rows):
                    greatest[i], of_winner[i] = value[i], move[i]
            else:
                for i in range(rows):
                    wins = value[i] > greatest[i]
                    of_winner[i] = move[i] if wins else of_winner[i]
                    greatest[i] = value[i] if wins else greatest[i]
    to[:] = -np.inf
    for y in range(top, bottom):
        for x in range(left, right):
            place = ((channel + y) * stage.width + x) * rows
            value, move = images[place : place + rows], d[place : place + rows]
            for i in range(rows):
                change = value[i] - greatest[i] + move[i]
                to[i] = change if (change > to[i]) | (change != change) else to[i]
    changed = 0
    for i in range(rows):
        changed |= 1 if to[i] != of_winner[i] else 0
    return changed != 0
