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


FAR_FROM_ZERO = 512.0  # Moves from closer to 0 lose no more digits than a plain evaluation does.


@jit(inline=True)
def loses_digits(a: float, d: float) -> bool:
    # Whether a plain evaluation may keep more digits of a sum: a move d takes `a`, far from 0, back so near to 0 that
    # what is left of a + d has the rounding of a.
    return abs(a) > FAR_FROM_ZERO and 64 * abs(a + d) < abs(a)


@jit(inline=True)
def any_far(values: FloatArray) -> bool:
    # Whether moves from any of the values may lose digits.
    far = 0
    for i in range(values.size):
        far |= 0 if abs(values[i]) <= FAR_FROM_ZERO else 1
    return far != 0


@jit(inline=True, python=True)
def has_kink(kind: int, constant: float) -> bool:
    # Whether the derivative jumps at 0.
    linear = kind == Activation.STEP or kind == Activation.RELU or kind == Activation.LEAKY_RELU
    return linear or (kind == Activation.ELU and constant != 1)


@jit(inline=True, python=True)
def has_seam(kind: int, constant: float) -> bool:
    # Whether only the second derivative jumps there.
    return kind == Activation.ELU and constant == 1


@jit(inline=True, python=True)
def is_smooth(kind: int) -> bool:
    # Whether the activation is curved.
    return kind == Activation.SIGMOID or kind == Activation.TANH or kind >= Activation.SOFTPLUS


@jit()
def steepest(kind: int, constant: float) -> float:
    # The greatest |φ(a + d) - φ(a)| / |d|, which is infinite where φ jumps.
    if kind == Activation.STEP:
        return np.inf
    if kind == Activation.LEAKY_RELU or kind == Activation.ELU:
        return max(1.0, abs(constant))
    if kind == Activation.SILU or kind == Activation.GELU:
        return 1.1 if kind == Activation.SILU else 1.13
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
    elif kind == Activation.SOFTPLUS:
        for i in range(z.size):
            x = float(z[i])
            out[i] = (0.0 if x <= 0 else x) + elementary.log1p(elementary.exp(-abs(x)))
    elif kind == Activation.SILU:
        for i in range(z.size):
            x = -800.0 if z[i] < -800.0 else float(z[i])  # There the sigmoid is 0.
            e = elementary.exp(-abs(x))
            out[i] = x * ((e if x < 0 else 1.0) / (1.0 + e))
    elif kind == Activation.GELU:
        for i in range(z.size):
            x = -40.0 if z[i] < -40.0 else float(z[i])  # There the normal distribution is 0.
            out[i] = x * _distribution(x, elementary.normal(x)[0])
    elif kind == Activation.ELU:
        for i in range(z.size):
            x = float(z[i])
            out[i] = x if x > 0 else constant * elementary.expm1(x)


@jit(inline=True)
def _distribution(x: float, tail: float) -> float:
    # Phi(x), from Phi(-|x|).
    return 1.0 - tail if x > 0 else tail


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
    elif kind == Activation.SOFTPLUS or kind == Activation.SILU:
        for i in range(z.size):
            x = float(z[i])
            x = -800.0 if x < -800.0 else 800.0 if x > 800.0 else x
            e = elementary.exp(-abs(x))
            near = 1.0 / (1.0 + e)
            s, c = (e * near, near) if x < 0 else (near, e * near)
            out[i] = s * (1.0 + x * c) if kind == Activation.SILU else s
    elif kind == Activation.GELU:
        for i in range(z.size):
            x = float(z[i])
            x = -40.0 if x < -40.0 else 40.0 if x > 40.0 else x
            tail, density = elementary.normal(x)
            out[i] = _distribution(x, tail) + x * density
    elif kind == Activation.ELU:
        for i in range(z.size):
            x = float(z[i])
            out[i] = 1.0 if x > 0 else constant * elementary.exp(x)
    else:
        above = zero if kind == Activation.STEP else one
        below = constant if kind == Activation.LEAKY_RELU else zero
        for i in range(z.size):
            out[i] = above if z[i] > zero else below if z[i] <= zero else z[i]


@jit()
def place(kind: int, a: FloatArray, s: FloatArray, c: FloatArray) -> None:
    # a (size,) -> s = sigmoid(a) and c = sigmoid(-a) (size,), for tanh at 2a: what `differ` needs to know of a. In a
    # tail neither can be computed from the other. GELU needs the normal distribution and its density, ELU e^a and
    # e^a - 1 for a <= 0.
    if kind == Activation.GELU:
        for i in range(a.size):
            tail, density = elementary.normal(a[i])
            s[i], c[i] = _distribution(a[i], tail), density
    elif kind == Activation.ELU:
        for i in range(a.size):
            x = 0.0 if a[i] > 0 else a[i]
            s[i], c[i] = elementary.exp(x), elementary.expm1(x)
    elif is_smooth(kind):
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


@jit(python=False)
def softplus_difference(a: float, s: float, c: float, d: float) -> float:
    # log(1 + e^(a + d)) - log(1 + e^a): log1p(s u) with u = e^d - 1. Where that cancels, log(c + s e^d) has positive
    # terms. Beyond |d| = 30 the two values are far apart.
    if abs(d) > 30.0:
        b = a + d
        ramps = d if a > 0 and b > 0 else max(b, 0.0) - max(a, 0.0)
        return ramps + (math.log1p(math.exp(-abs(b))) - math.log1p(math.exp(-abs(a))))
    x = s * elementary.expm1(d)
    return math.log(c + s * math.exp(d)) if x < -0.5 else elementary.log1p(x)


@jit(python=False)
def _silu_difference(a: float, s: float, c: float, d: float) -> float:
    # d sigmoid(a + d) + a (sigmoid(a + d) - sigmoid(a))
    if abs(d) > 30.0:
        b = a + d
        e = math.exp(-abs(b))
        after = (1.0 if b > 0 else e) / (1.0 + e)
    else:
        u = elementary.expm1(abs(d))
        after = s * (1.0 + u) / (1.0 + s * u) if d > 0 else s / (1.0 + c * u)
    return d * after + a * _sigmoid_difference(a, s, c, d)


@jit(python=False)
def _gelu_difference(a: float, s: float, c: float, d: float) -> float:
    # d Phi(a + d) + a (Phi(a + d) - Phi(a)). Where the move is short the latter is the integral of the density, by
    # Gauss-Legendre quadrature with seven nodes; s is Phi(a) and c the density at a.
    if abs(d) * max(abs(a), 1.0) <= 0.5:
        mean = 0.20897959183673469388 * _share(a, 0.5 * d)
        mean += 0.19091502525255947248 * (_share(a, 0.70292257568869858345 * d) + _share(a, 0.29707742431130141655 * d))
        mean += 0.13985269574463833395 * (_share(a, 0.87076559279969722249 * d) + _share(a, 0.12923440720030277751 * d))
        mean += 0.064742483084434846635 * (
            _share(a, 0.97455395617137927623 * d) + _share(a, 0.02544604382862072377 * d)
        )
        rise = d * c * mean if c > 0 else 0.0
        return d * (s + rise) + a * rise
    b = a + d
    tail = elementary.normal(b)[0]
    after = _distribution(b, tail)
    rise = elementary.normal(a)[0] - tail if a > 0 and b > 0 else after - s
    return d * after + a * rise


@jit(inline=True)
def _share(a: float, s: float) -> float:
    # The density at a + s over that at a.
    return elementary.exp(-s * (a + 0.5 * s))


@jit(python=False)
def _elu_difference(a: float, s: float, c: float, d: float, alpha: float) -> float:
    # s is e^a and c is e^a - 1, for a <= 0. Across 0 each side's part, where |a| <= |d|: nothing cancels.
    b = a + d
    if a > 0:
        return d if b > 0 else alpha * elementary.expm1(b) - a
    if b > 0:
        return b - alpha * c
    return alpha * (math.exp(b) - s if abs(d) > 30.0 else s * elementary.expm1(d))


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
    elif kind == Activation.SOFTPLUS:
        for row in range(d.shape[0]):
            to = d[row]
            for i in range(to.size):
                to[i] = softplus_difference(a[i], s[i], c[i], np.float64(to[i]))
    elif kind == Activation.SILU:
        for row in range(d.shape[0]):
            to = d[row]
            for i in range(to.size):
                to[i] = _silu_difference(a[i], s[i], c[i], np.float64(to[i]))
    elif kind == Activation.GELU:
        for row in range(d.shape[0]):
            to = d[row]
            for i in range(to.size):
                to[i] = _gelu_difference(a[i], s[i], c[i], np.float64(to[i]))
    elif kind == Activation.ELU:
        for row in range(d.shape[0]):
            to = d[row]
            for i in range(to.size):
                to[i] = _elu_difference(a[i], s[i], c[i], np.float64(to[i]), constant)
