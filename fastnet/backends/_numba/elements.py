"""Kernels of the Numba backend: activations, outputs and losses.

The value, the derivative and the difference of each activation and loss stand side by side. A difference, φ(a + d) −
φ(a), is computed without subtracting two values of φ: it keeps its digits however small d is. No derivative enters it.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import numpy as np

from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends import _numpy
from fastnet.backends._numba.jit import jit
from fastnet.backends.spec import Activation, Loss, Output

EPSILON = _numpy.EPSILON
LANES = 16  # units or perturbations that are computed side by side: loops of this length have no rest

# Elementary functions, float64, for loops that vectorise (a loop with math.exp does not) --------------------

_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # integer * high is exact
_ROUND = 6755399441055744.0  # 1.5 * 2**52: adding it rounds to an integer, which stands in the lowest bits
_ROUND_BITS = 0x4338000000000000
_SQRT_HALF_BITS = 0x3FE6A09E667F3BCD


@jit(inline=True)
def bits_of(x: float) -> Any:
    return np.float64(x).view(np.int64)


@jit(inline=True)
def from_bits(bits: int) -> float:
    value: float = np.int64(bits).view(np.float64)
    return value


@jit(inline=True)
def _reduced(x: float) -> tuple[int, float]:
    # e^x = 2^k (1 + p). x = k ln 2 + r; the polynomial is (e^r - 1 - r) / r^2, from Chebyshev nodes.
    shifted = x * _LOG2_E + _ROUND
    k = shifted - _ROUND
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    p = 2.7620088445409748161e-7 + r * 2.5100385495510319078e-8
    p = 2.4801521295954375131e-5 + r * (2.7557268459997064772e-6 + r * p)
    p = 0.0013888888917213716901 + r * (0.00019841269863053616878 + r * p)
    p = 0.041666666666624127873 + r * (0.0083333333333300618325 + r * p)
    p = 0.50000000000000010221 + r * (0.16666666666666667453 + r * p)
    return bits_of(shifted) - _ROUND_BITS, r + r * r * p


@jit(inline=True)
def _exp(x: float) -> float:
    # for x that are not positive
    x = -746.0 if x < -746.0 else x  # a comparison that NaN fails, so that it stays NaN
    k, p = _reduced(x)
    half = k >> 1  # two factors, since 2^k itself may be no normal number
    return (1 + p) * from_bits((half + 1023) << 52) * from_bits((k - half + 1023) << 52)


@jit(inline=True)
def _expm1(x: float) -> float:
    # e^x - 1: -1 for x below -60
    x = 710.0 if x > 710.0 else x
    x = -60.0 if x < -60.0 else x
    k, p = _reduced(x)
    scale = from_bits((k + 1022) << 52)  # 2^(k-1), doubled at the end, since 2^k overflows before e^x does
    half = scale * p + (scale - 0.5)
    return half + half


@jit(inline=True)
def _log1p(x: float) -> float:
    # log(1 + x) for -1 < x. 1 + x = 2^k m, with m in [sqrt(1/2), sqrt(2)), and log m = 2 artanh((m - 1) / (m + 1)).
    u = 1.0 + x
    lost = 1.0 - (u - x) if u > 2.0 else x - (u - 1.0)
    k_bits = (bits_of(u) - _SQRT_HALF_BITS) & -0x10000000000000
    m = from_bits(bits_of(u) - k_bits)
    k = from_bits((k_bits >> 52) + _ROUND_BITS) - _ROUND
    f = (m - 1.0) + lost * (m / u)
    s = f / (2.0 + f)
    z = s * s
    p = 0.18182889786191042483 + z * (0.15331699633543858719 + z * 0.14616721179861815749)
    p = 0.39999999999899381939 + z * (0.28571428626031066765 + z * (0.22222211125722808938 + z * p))
    p = 0.66666666666666696905 + z * p
    return k * _LN2_HIGH + ((f - s * (f - z * p)) + k * _LN2_LOW)


# Activations ----------------------------------------------------------------------------------------------

SMALL_MOVE = 5e-4, 0.02  # in float64 and float32: where all |d| are at most this, series replace exponentials


@jit()
def activate(kind: int, slope: Any, z: FloatArray, out: FloatArray) -> None:
    # z (size,) -> out (size,), which may be z. A loop for each kind, so that those without exp vectorise.
    zero, one = z.dtype.type(0), z.dtype.type(1)
    if kind == Activation.STEP:
        for i in range(z.size):
            out[i] = one if z[i] > zero else zero if z[i] <= zero else z[i]
    elif kind == Activation.SIGMOID:
        for i in range(z.size):
            e = _exp(-abs(np.float64(z[i])))  # at most 1: neither branch overflows
            out[i] = (e if z[i] < zero else 1.0) / (1.0 + e)
    elif kind == Activation.TANH:
        for i in range(z.size):
            out[i] = math.tanh(z[i])
    elif kind == Activation.RELU:
        for i in range(z.size):
            out[i] = zero if z[i] <= zero else z[i]
    elif kind == Activation.LEAKY_RELU:
        for i in range(z.size):
            out[i] = z[i] if z[i] > zero else z[i] * slope


@jit()
def derive(kind: int, slope: Any, z: FloatArray, out: FloatArray) -> None:
    # z (size,) -> out (size,), the activation's derivative at z
    zero, one = z.dtype.type(0), z.dtype.type(1)
    if kind == Activation.IDENTITY:
        out[:] = one
    elif kind == Activation.SIGMOID or kind == Activation.TANH:
        inner, outer = (2.0, 4.0) if kind == Activation.TANH else (1.0, 1.0)
        for i in range(z.size):
            e = _exp(-abs(inner * z[i]))  # tanh'(z) = 4 sigmoid'(2z): neither cancels in a tail
            out[i] = outer * (e / (1.0 + e) * (1.0 / (1.0 + e)))
    else:
        above = zero if kind == Activation.STEP else one
        below = slope if kind == Activation.LEAKY_RELU else zero
        for i in range(z.size):
            out[i] = above if z[i] > zero else below if z[i] <= zero else z[i]


@jit()
def place(kind: int, a: FloatArray, s: FloatArray, c: FloatArray) -> None:
    # a (size,) -> s = sigma(a), c = sigma(-a) (size,), for tanh at 2a: what its difference from a needs, and neither
    # can be had from the other in its tail
    if kind == Activation.SIGMOID or kind == Activation.TANH:
        inner = 2.0 if kind == Activation.TANH else 1.0
        for i in range(a.size):
            e = _exp(-abs(inner * a[i]))
            near = 1.0 / (1.0 + e)
            s[i] = e * near if a[i] < 0 else near
            c[i] = near if a[i] < 0 else e * near
    else:
        s[:], c[:] = 0, 0


@jit(inline=True)
def _sigmoid_difference(a: float, s: float, c: float, d: float) -> float:
    # The same for any d. Moves as long as 30 are plain subtractions, from the side where the values are small.
    if abs(d) <= 30.0:
        u = math.expm1(abs(d))
        return math.copysign(s * c * u / (1.0 + (s if d > 0 else c) * u), d)
    b = a + d
    right = a > 0 and b > 0
    e = math.exp(-abs(b))
    after = (e if right or b < 0 else 1.0) / (1.0 + e)
    return c - after if right else after - s


@jit()
def differ(kind: int, slope: float, small: bool, a: FloatArray, s: FloatArray, c: FloatArray, d: FloatArray) -> None:
    # a, s, c (units,), d (rows, units) -> d = phi(a + d) - phi(a); `small` where every |d| is below SMALL_MOVE
    if kind == Activation.SIGMOID or kind == Activation.TANH:
        # For d > 0 with u = e^d - 1: s c u / (1 + s u); for d < 0 mirrored. Nothing cancels. tanh a = 2 sigma(2a) - 1.
        outer = 2.0 if kind == Activation.TANH else 1.0
        for row in range(d.shape[0]):
            to = d[row]
            if small:  # the sixth power of 2|d| is below rounding: series for e^d - 1 and 1 / (1 + w)
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
                    u = _expm1(abs(x))
                    rise = outer * (s[i] * c[i] * u) / (1 + (s[i] if x > 0 else c[i]) * u)
                    to[i] = rise if x > 0 else -rise
    elif kind == Activation.STEP:
        for row in range(d.shape[0]):
            to = d[row]
            for i in range(to.size):
                b = a[i] + to[i]
                to[i] = (1.0 if b > 0 else 0.0 if b <= 0 else b) - (1.0 if a[i] > 0 else 0.0)
    elif kind == Activation.RELU or kind == Activation.LEAKY_RELU:
        # Linear on either side; across the kink each side's part, where |a| <= |d|, so that nothing cancels.
        low = slope if kind == Activation.LEAKY_RELU else 0.0
        for row in range(d.shape[0]):
            to = d[row]
            for i in range(to.size):
                x = np.float64(to[i])
                b = a[i] + x
                same = x if a[i] > 0 else low * x
                across = low * b - a[i] if a[i] > 0 else b - low * a[i]
                to[i] = same if (a[i] > 0) == (b > 0) else across


# Outputs and losses ---------------------------------------------------------------------------------------


@jit()
def softmax(x: FloatArray, out: FloatArray) -> None:
    # x (batch, classes) -> out (batch, classes), which may be x
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
def sum_losses(loss: int, y: FloatArray, labels: IntArray, rows: FloatArray) -> float:
    # y (batch, classes), labels (batch,) and rows (0, 0), or labels (0,) and rows (batch, classes) -> scalar
    zero, one, half, epsilon = y.dtype.type(0), y.dtype.type(1), y.dtype.type(0.5), y.dtype.type(EPSILON)
    total = 0.0
    for i in range(y.shape[0]):
        error: Any = zero
        if loss == Loss.MEAN_SQUARED_ERROR:
            for j in range(y.shape[1]):
                target = rows[i, j] if rows.size > 0 else one if labels[i] == j else zero
                error += (y[i, j] - target) * (y[i, j] - target)
            error *= half
        elif labels.size > 0:
            error = -math.log(y[i, labels[i]] + epsilon)
        else:
            for j in range(y.shape[1]):
                error -= rows[i, j] * math.log(y[i, j] + epsilon)
        total += error
    return total


def loss_derivative(loss: Loss, y: FloatArray, rows: FloatArray) -> FloatArray:
    """Return the loss's derivative by y (batch, classes)."""
    return -rows / (y + y.dtype.type(EPSILON)) if loss == Loss.CROSS_ENTROPY else y - rows


def softmax_backward(y: FloatArray, dy: FloatArray) -> FloatArray:
    """Return the loss's derivative by softmax's argument from that by its value y (batch, classes)."""
    product: FloatArray = y * (dy - (y * dy).sum(axis=1, keepdims=True))
    return product


class Answer(NamedTuple):
    """What differences of one row's loss start from."""

    z: FloatArray  # (classes,): softmax's argument, or the answer itself
    y: FloatArray  # (classes,)
    likeliest: int  # the class of the greatest y
    label: int  # the target, or -1 where its row counts
    row: FloatArray  # (classes,) or (0,)


@jit(inline=True)
def _target(answer: Answer, k: int) -> float:
    return answer.row[k] if answer.label < 0 else 1.0 if answer.label == k else 0.0


_LONGEST = 600.0  # e^d is finite, with room for sums


@jit()
def _special_difference(output: int, loss: int, answer: Answer, dz: FloatArray, dy: FloatArray, i: int) -> float:
    # loss_differences for lane i: where e^d is no number, the change is so great that nothing cancels; where the
    # argument of a logarithm falls below half, 1 + dy / (y + epsilon) cancels, and the quotient of arguments does not.
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
        t = _target(answer, k)
        if loss == Loss.CROSS_ENTROPY and t == 0:
            continue
        after = math.exp(z[k] + dz[k, i] - top) / total if soft else y[k] + dz[k, i]
        difference = after - y[k] if too_long else dy[k, i]
        if loss == Loss.MEAN_SQUARED_ERROR:
            change += difference * (y[k] - t + difference / 2)
        else:
            base = y[k] + EPSILON
            x = difference / base
            change -= t * (math.log((after + EPSILON) / base) if x < -0.5 else math.log1p(x))
    return change


@jit()
def loss_differences(
    output: int, loss: int, answer: Answer, dz: FloatArray, work: FloatArray, change: FloatArray
) -> None:
    # dz (classes, LANES): moves of the answer's z -> change (LANES,): of the row's loss, without subtracting two.
    # work (classes + 2, LANES)
    #
    # Softmax: with q_k = e^dz_k - 1 and r = sum_k y_k q_k it changes by y_k (q_k - r) / (1 + r). Adding one number to
    # every dz_k changes nothing; that of the likeliest class is made 0. So 1 + r is at least its probability, and
    # neither 1 + r nor q_k - r cancels, whichever class has nearly all the probability.
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
                to[i] = _expm1(d)
                r[i] += share * to[i]
        for i in range(LANES):
            scale[i] = 1 / (1 + r[i])
        if loss == Loss.MEAN_SQUARED_ERROR:
            first, last = 0, classes
        for k in range(first, last):
            to, share = dy[k], y[k]
            for i in range(LANES):
                to[i] = share * (to[i] - r[i]) * scale[i]
    change[:] = 0
    if loss == Loss.CROSS_ENTROPY:  # -sum_k t_k log1p(dy_k / (y_k + epsilon))
        for k in range(first, last):
            t, from_, base = _target(answer, k), dy[k], y[k] + EPSILON
            if t != 0:
                for i in range(LANES):
                    x = from_[i] / base
                    special |= 1 if x < -0.5 else 0
                    change[i] -= t * _log1p(x)
    else:  # sum_k dy_k (y_k - t_k + dy_k / 2)
        for k in range(classes):
            from_, error = dy[k], y[k] - _target(answer, k)
            for i in range(LANES):
                change[i] += from_[i] * (error + from_[i] / 2)
    if special:
        for i in range(LANES):
            change[i] = _special_difference(output, loss, answer, dz, dy, i)
