"""Elementary functions in float64, for loops that vectorise: a loop that calls `math.exp` does not.

The formulas, their errors and their sources are those of ``cpp/kernels/elementary.hpp``.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet.backends._numba.jit import jit

LANES = 16  # Units or moves that are computed side by side: a loop of this length needs no scalar remainder.

_LOG2_E = 1.4426950408889634
_LN2_HIGH, _LN2_LOW = 6.93147180369123816490e-01, 1.90821492927058770002e-10  # k * high is exact for integers k
_ROUND = 6755399441055744.0  # 1.5 * 2**52: adding it rounds to an integer and leaves that in the lowest bits
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
def exp(x: float) -> float:
    # e^x for x <= 0.
    x = -746.0 if x < -746.0 else x  # NaN fails the comparison and stays NaN
    k, p = _reduced(x)
    half = k >> 1  # 2^k may be subnormal, so it is applied as two factors
    return (1 + p) * from_bits((half + 1023) << 52) * from_bits((k - half + 1023) << 52)


@jit(inline=True)
def expm1(x: float) -> float:
    # e^x - 1. Below x = -60 that is -1.
    x = 710.0 if x > 710.0 else x
    x = -60.0 if x < -60.0 else x
    k, p = _reduced(x)
    scale = from_bits((k + 1022) << 52)  # 2^(k-1), doubled at the end: 2^k overflows before e^x does
    half = scale * p + (scale - 0.5)
    return half + half


@jit(inline=True)
def log1p(x: float) -> float:
    # log(1 + x) for x > -1. 1 + x = 2^k m with m in [sqrt(1/2), sqrt(2)), and log m = 2 artanh((m - 1) / (m + 1)).
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


@jit(inline=True)
def normal(x: float) -> tuple[float, float]:
    # Of the standard normal distribution: Phi(-|x|), and the density at x.
    x = 39.0 if abs(x) > 39.0 else abs(x)
    high = from_bits(bits_of(x) & -0x8000000)  # its square is exact; that of x, rounded, would cost digits
    rest = -0.5 * (x - high) * (x + high)
    e = exp(-0.5 * high * high)
    e += e * rest * (1 + rest * (1 / 2 + rest * (1 / 6)))
    t = (x - 5.0) / (x + 5.0)
    p = 3.2688496187291256e-10 + t * -5.27878828453522e-10
    p = 3.294994529930807e-09 + t * (9.133126623332033e-09 + t * p)
    p = -3.8635135357133113e-08 + t * (-6.833292147490236e-08 + t * p)
    p = 1.7640637558442865e-07 + t * (4.3357479777920675e-07 + t * p)
    p = 5.354084605385497e-07 + t * (-2.8600981916002082e-06 + t * p)
    p = -2.6436896598280645e-05 + t * (1.9390775782261885e-05 + t * p)
    p = 0.0004250958155307532 + t * (-0.00010817683359950904 + t * p)
    p = -0.003571695429257843 + t * (-0.00011869356980815865 + t * p)
    p = -0.03933220135575824 + t * (0.015422845682093045 + t * p)
    p = -0.10065743821676269 + t * (0.07248782697576947 + t * p)
    p = -0.05400807503407664 + t * (0.10088858203456283 + t * p)
    p = 0.8461123547250693 + t * (-0.039647008404005875 + t * p)
    return e * p / (1.0 + 2.0 * x), e * 0.39894228040143267794
