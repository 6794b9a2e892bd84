"""Outputs and losses: the value, the derivative and the difference of each, side by side."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends import _numpy
from fastnet.backends._numba import activations, elementary
from fastnet.backends._numba.elementary import LANES
from fastnet.backends._numba.jit import jit, plain
from fastnet.backends.spec import Loss, Output

EPSILON = _numpy.EPSILON


@jit()
def softmax(x: FloatArray, out: FloatArray) -> None:
    # x (batch, classes) -> out (batch, classes), which may be x.
    for i in range(x.shape[0]):
        top = x.dtype.type(-np.inf)
        for j in range(x.shape[1]):
            top = max(top, x[i, j])
        total = x.dtype.type(0)
        for j in range(x.shape[1]):
            out[i, j] = math.exp(x[i, j] - top)
            total += out[i, j]
        for j in range(x.shape[1]):
            out[i, j] /= total


@jit()
def sum_losses(loss: int, constant: float, y: FloatArray, labels: IntArray, rows: FloatArray) -> float:
    # y (batch, classes) and either labels (batch,) and rows (0, 0), or labels (0,) and rows (batch, classes)
    # -> the sum of the rows' losses. `constant` is the delta of the Huber loss.
    zero, one, half, epsilon = y.dtype.type(0), y.dtype.type(1), y.dtype.type(0.5), y.dtype.type(EPSILON)
    total = 0.0
    for i in range(y.shape[0]):
        error: Any = zero
        if loss == Loss.MEAN_SQUARED_ERROR:
            for j in range(y.shape[1]):
                target = rows[i, j] if rows.size > 0 else one if labels[i] == j else zero
                error += (y[i, j] - target) * (y[i, j] - target)
            error *= half
        elif loss != Loss.CROSS_ENTROPY:
            for j in range(y.shape[1]):
                target = rows[i, j] if rows.size > 0 else one if labels[i] == j else zero
                error += y.dtype.type(_loss_of(loss, constant, np.float64(y[i, j]), np.float64(target)))
        elif labels.size > 0:
            error = -math.log(y[i, labels[i]] + epsilon)
        else:
            for j in range(y.shape[1]):
                error -= rows[i, j] * math.log(y[i, j] + epsilon)
        total += error
    return total


@jit(python=False)
def _loss_of(loss: int, constant: float, y: float, t: float) -> float:
    # The share of one answer in the binary cross entropy, the Huber loss or the absolute error.
    if loss == Loss.BINARY_CROSS_ENTROPY:  # softplus(y) - t y, without terms of opposite signs
        return ((1.0 - t) * y if y > 0 else -t * y) + math.log1p(math.exp(-abs(y)))
    r = y - t
    if loss == Loss.HUBER:
        return constant * (abs(r) - constant / 2) if abs(r) > constant else r * r / 2
    return abs(r)


@jit(python=False)
def _difference_of(loss: int, constant: float, y: float, t: float, d: float) -> float:
    # What a change d of the answer y changes `_loss_of` by.
    if loss == Loss.BINARY_CROSS_ENTROPY:
        # With D(y, d) the difference of softplus, D(y, d) - d = D(-y, -d): no cancellation for t = 0 and t = 1.
        e = math.exp(-abs(y))
        near, far = 1.0 / (1.0 + e), e / (1.0 + e)
        s, c = (near, far) if y > 0 else (far, near)
        up = (1.0 - t) * activations.softplus_difference(y, s, c, d) if t != 1 else 0.0
        return up + t * activations.softplus_difference(-y, c, s, -d) if t != 0 else up
    r = y - t
    to = r + d
    if loss == Loss.HUBER:  # The parts of the way: `inner` within delta, and those beyond. r + d would be rounded.
        first, last = min(max(r, -constant), constant), min(max(to, -constant), constant)
        if first != r and first == last:
            return first * d
        way = d + (r - first)
        inner = way if last == to else last - first
        return inner * (first + inner / 2) + constant * (abs(way - inner) - abs(r - first))
    if r > 0:
        return d if to > 0 else -to - r
    return to + r if to > 0 else -d


def labels_and_rows(t: FloatArray | IntArray, dtype: npt.DTypeLike) -> tuple[IntArray, FloatArray]:
    """Return targets as `sum_losses` takes them: labels and rows, of which one is empty.

    Both kinds of targets then have the same types, and kernels are compiled once.
    """
    if t.ndim == 1:
        return plain(t), np.empty((0, 0), dtype)
    return np.empty(0, np.int64), plain(t)


def softmax_backward(y: FloatArray, dy: FloatArray) -> FloatArray:
    """Return the derivative with respect to softmax's argument, given that with respect to its value y."""
    product: FloatArray = y * (dy - (y * dy).sum(axis=1, keepdims=True))
    return product


class Answer(NamedTuple):
    """The answer to one row and its target: what differences of the row's loss start from."""

    z: FloatArray  # (classes,): softmax's argument, or the answer itself
    y: FloatArray  # (classes,): the answer
    likeliest: int  # the class with the greatest y
    label: int  # the target's class, or -1 where `row` is the target
    row: FloatArray  # (classes,), or (0,) where all targets are labels


@jit(inline=True)
def target_of(answer: Answer, k: int) -> float:
    return answer.row[k] if answer.label < 0 else 1.0 if answer.label == k else 0.0


_LONGEST = 600.0  # e^d is finite up to here, and so are sums of it.


@jit(python=False)
def _special_difference(
    output: int, loss: int, constant: float, answer: Answer, dz: FloatArray, dy: FloatArray, i: int
) -> float:
    # `loss_differences` for lane i in two special cases. Where e^d overflows, the change is so great that plain
    # subtraction cancels nothing. Where the argument of a logarithm falls below half, 1 + dy / (y + epsilon) cancels,
    # but the quotient of the two arguments does not.
    z, y = answer.z, answer.y
    soft = output == Output.SOFTMAX
    top, total, too_long = float(z[0] + dz[0, i]), 0.0, False
    if soft:
        for k in range(y.size):
            after = z[k] + dz[k, i]
            top = after if after > top or after != after else top
            too_long |= dz[k, i] - dz[answer.likeliest, i] > _LONGEST
        for k in range(y.size):
            total += math.exp(z[k] + dz[k, i] - top)
    change = 0.0
    for k in range(y.size):
        t = target_of(answer, k)
        if loss == Loss.CROSS_ENTROPY and t == 0:
            continue
        after = math.exp(z[k] + dz[k, i] - top) / total if soft else y[k] + dz[k, i]
        difference = after - y[k] if too_long else dy[k, i]
        if loss == Loss.MEAN_SQUARED_ERROR:
            change += difference * (y[k] - t + difference / 2)
        elif loss != Loss.CROSS_ENTROPY:
            change += _difference_of(loss, constant, y[k], t, difference)
        else:
            base = y[k] + EPSILON
            x = difference / base
            change -= t * (math.log((after + EPSILON) / base) if x < -0.5 else math.log1p(x))
    return change


@jit(python=False)
def loss_differences(
    output: int, loss: int, constant: float, answer: Answer, dz: FloatArray, work: FloatArray, change: FloatArray
) -> None:
    # dz (classes, LANES), moves of the answer's z -> change (LANES,) of the row's loss, without subtracting two losses.
    # work (classes + 2, LANES) is scratch.
    #
    # With q_k = e^dz_k - 1 and r = sum_k y_k q_k, softmax changes by y_k (q_k - r) / (1 + r). Adding the same number to
    # every dz_k changes nothing, so that of the likeliest class is made 0. Then 1 + r is at least its probability, and
    # neither 1 + r nor q_k - r cancels, even if one class has nearly all the probability.
    y, classes = answer.y, answer.y.size
    first, last = (answer.label, answer.label + 1) if answer.label >= 0 else (0, classes)
    r, scale, dy, special = work[classes], work[classes + 1], dz, 0
    if output == Output.SOFTMAX:
        dy = work[:classes]
        shift = dz[answer.likeliest]
        r[:] = 0
        for k in range(classes):
            from_, to, share = dz[k], dy[k], y[k]
            for i in range(LANES):
                d = from_[i] - shift[i]
                special |= 1 if d > _LONGEST else 0
                to[i] = elementary.expm1(d)
                r[i] += share * to[i]
        for i in range(LANES):
            scale[i] = 1 / (1 + r[i])
        if loss != Loss.CROSS_ENTROPY:
            first, last = 0, classes
        for k in range(first, last):
            to, share = dy[k], y[k]
            for i in range(LANES):
                to[i] = share * (to[i] - r[i]) * scale[i]
    change[:] = 0
    if loss == Loss.CROSS_ENTROPY:  # -sum_k t_k log1p(dy_k / (y_k + epsilon))
        for k in range(first, last):
            t, from_, base = target_of(answer, k), dy[k], y[k] + EPSILON
            if t != 0:
                for i in range(LANES):
                    x = from_[i] / base
                    special |= 1 if x < -0.5 else 0
                    change[i] -= t * elementary.log1p(x)
    elif loss == Loss.MEAN_SQUARED_ERROR:  # sum_k dy_k (y_k - t_k + dy_k / 2)
        for k in range(classes):
            from_, error = dy[k], y[k] - target_of(answer, k)
            for i in range(LANES):
                change[i] += from_[i] * (error + from_[i] / 2)
    else:
        for k in range(classes):
            from_, at, t = dy[k], y[k], target_of(answer, k)
            for i in range(LANES):
                change[i] += _difference_of(loss, constant, at, t, from_[i])
    if special:
        for i in range(LANES):
            change[i] = _special_difference(output, loss, constant, answer, dz, dy, i)
