"""Activations: the value, the derivative and the difference of each, side by side.

A difference, φ(a + d) − φ(a), is computed without subtracting two values of φ, so that it keeps its digits however
small d is. No derivative enters it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet._tools.types import FloatArray
from fastnet.backends._numba import elementary
from fastnet.backends._numba.jit import jit
from fastnet.backends.spec import Activation

ANY_MOVE: Any = np.bool_(False)  # For `small` in `differ`. Numba gives the literal False a type of its own.


def small_move(dtype: npt.DTypeLike) -> float:
    """Return the longest move d for which `differ` may use series in place of exponentials."""
    return 0.02 if dtype == np.float32 else 5e-4


@jit(inline=True, python=True)
def has_kink(kind: int) -> bool:
    return kind == Activation.STEP or kind == Activation.RELU or kind == Activation.LEAKY_RELU


@jit(inline=True, python=True)
def is_smooth(kind: int) -> bool:
    # Whether the activation is curved, and smooth everywhere.
    return kind == Activation.SIGMOID or kind == Activation.TANH


@jit()
def steepest(kind: int, constant: float) -> float:
    # The greatest |φ(a + d) - φ(a)| / |d|, which is infinite where φ jumps.
    if kind == Activation.STEP:
        return np.inf
    if kind == Activation.LEAKY_RELU:
        return max(1.0, abs(constant))
    return 0.25 if kind == Activation.SIGMOID else 1.0


@jit()
def activate(kind: int, constant: Any, z: FloatArray, out: FloatArray) -> None:
    # z (size,) -> out (size,), which may be z. Each kind has a loop of its own, so that those without exp vectorise.
    zero, one = z.dtype.type(0), z.dtype.type(1)
    if kind == Activation.STEP:
        for i in range(z.size):
            out[i] = one if z[i] > zero else zero if z[i] <= zero else z[i]
    elif kind == Activation.SIGMOID:
        for i in range(z.size):
            e = elementary.exp(-abs(np.float64(z[i])))  # At most 1, so that neither branch overflows.
            out[i] = (e if z[i] < zero else 1.0) / (1.0 + e)
    elif kind == Activation.TANH:
        for i in range(z.size):
            out[i] = math.tanh(z[i])
    elif kind == Activation.RELU:
        for i in range(z.size):
            out[i] = zero if z[i] <= zero else z[i]
    elif kind == Activation.LEAKY_RELU:
        for i in range(z.size):
            out[i] = z[i] if z[i] > zero else z[i] * constant


@jit()
def derive(kind: int, constant: Any, z: FloatArray, out: FloatArray) -> None:
    # z (size,) -> out (size,), the derivative at z.
    zero, one = z.dtype.type(0), z.dtype.type(1)
    if kind == Activation.IDENTITY:
        out[:] = one
    elif kind == Activation.SIGMOID or kind == Activation.TANH:
        inner, outer = (2.0, 4.0) if kind == Activation.TANH else (1.0, 1.0)
        for i in range(z.size):
            e = elementary.exp(-abs(inner * z[i]))  # tanh'(z) = 4 sigmoid'(2z). Nothing cancels in the tails.
            out[i] = outer * (e / (1.0 + e) * (1.0 / (1.0 + e)))
    else:
        above = zero if kind == Activation.STEP else one
        below = constant if kind == Activation.LEAKY_RELU else zero
        for i in range(z.size):
            out[i] = above if z[i] > zero else below if z[i] <= zero else z[i]


@jit()
def place(kind: int, a: FloatArray, s: FloatArray, c: FloatArray) -> None:
    # a (size,) -> s = sigmoid(a) and c = sigmoid(-a) (size,), for tanh at 2a: what `differ` needs to know of a. In a
    # tail neither can be computed from the other.
    if kind == Activation.SIGMOID or kind == Activation.TANH:
        inner = 2.0 if kind == Activation.TANH else 1.0
        for i in range(a.size):
            e = elementary.exp(-abs(inner * a[i]))
            near = 1.0 / (1.0 + e)
            s[i] = e * near if a[i] < 0 else near
            c[i] = near if a[i] < 0 else e * near
    else:
        s[:], c[:] = 0, 0


@jit(inline=True)
def _sigmoid_difference(a: float, s: float, c: float, d: float) -> float:
    # sigmoid(a + d) - sigmoid(a) for any d. For |d| > 30 a plain subtraction is exact enough, from the side where
    # the values are small.
    if abs(d) <= 30.0:
        u = math.expm1(abs(d))
        return math.copysign(s * c * u / (1.0 + (s if d > 0 else c) * u), d)
    b = a + d
    right = a > 0 and b > 0
    e = math.exp(-abs(b))
    after = (e if right or b < 0 else 1.0) / (1.0 + e)
    return c - after if right else after - s


@jit()
def differ(kind: int, constant: float, small: bool, a: FloatArray, s: FloatArray, c: FloatArray, d: FloatArray) -> None:
    # a, s, c (units,), d (rows, units) -> d = φ(a + d) - φ(a). `small` says that no |d| exceeds `small_move`.
    if kind == Activation.SIGMOID or kind == Activation.TANH:
        # With u = e^|d| - 1: s c u / (1 + s u) for d > 0 and -s c u / (1 + c u) for d < 0. Nothing cancels. For tanh,
        # tanh(a) = 2 sigmoid(2a) - 1.
        outer = 2.0 if kind == Activation.TANH else 1.0
        for row in range(d.shape[0]):
            to = d[row]
            if small:  # The sixth power of 2|d| is below rounding, so series serve for e^|d| - 1 and 1 / (1 + w).
                for i in range(to.size):
                    x = outer * to[i]
                    size = abs(x)
                    u = size * (1 + size * (1 / 2 + size * (1 / 6 + size * (1 / 24 + size * (1 / 120)))))
                    w = (s[i] if x > 0 else c[i]) * u
                    rise = outer * (s[i] * c[i] * u) * (1 - w * (1 - w * (1 - w * (1 - w * (1 - w)))))
                    to[i] = rise if x > 0 else -rise
                continue
            far = 0
            for i in range(to.size):
                far |= 0 if abs(outer * to[i]) <= 30.0 else 1
            if far:
                for i in range(to.size):
                    to[i] = outer * _sigmoid_difference(outer * a[i], s[i], c[i], outer * to[i])
            else:
                for i in range(to.size):
                    x = outer * to[i]
                    u = elementary.expm1(abs(x))
                    rise = outer * (s[i] * c[i] * u) / (1 + (s[i] if x > 0 else c[i]) * u)
                    to[i] = rise if x > 0 else -rise
    elif kind == Activation.STEP:
        for row in range(d.shape[0]):
            to = d[row]
            for i in range(to.size):
                b = a[i] + to[i]
                to[i] = (1.0 if b > 0 else 0.0 if b <= 0 else b) - (1.0 if a[i] > 0 else 0.0)
    elif kind == Activation.RELU or kind == Activation.LEAKY_RELU:
        # Linear on either side. Across the kink the two parts are added; |a| <= |d| there, so that nothing cancels.
        low = constant if kind == Activation.LEAKY_RELU else 0.0
        for row in range(d.shape[0]):
            to = d[row]
            for i in range(to.size):
                x = np.float64(to[i])
                b = a[i] + x
                same = x if a[i] > 0 else low * x
                across = low * b - a[i] if a[i] > 0 else b - low * a[i]
                to[i] = same if (a[i] > 0) == (b > 0) else across
