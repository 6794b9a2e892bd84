"""Batch normalisation of one column, (elements,): value, derivative and difference. All sums are in float64."""

from __future__ import annotations

import math

from fastnet._tools.types import FloatArray
from fastnet.backends._numba.jit import jit


@jit(python=False)
def sum_of(x: FloatArray) -> float:
    # In four sums, which do not wait for each other.
    s0, s1, s2, s3, fours = 0.0, 0.0, 0.0, 0.0, x.size - x.size % 4
    for i in range(0, fours, 4):
        s0 += float(x[i])
        s1 += float(x[i + 1])
        s2 += float(x[i + 2])
        s3 += float(x[i + 3])
    for i in range(fours, x.size):
        s0 += float(x[i])
    return (s0 + s1) + (s2 + s3)


@jit(python=False)
def sum_of_products(x: FloatArray, mean: float, y: FloatArray, other: float) -> float:
    # The sum of (x - mean)(y - other).
    s0, s1, s2, s3, fours = 0.0, 0.0, 0.0, 0.0, x.size - x.size % 4
    for i in range(0, fours, 4):
        s0 += (float(x[i]) - mean) * (float(y[i]) - other)
        s1 += (float(x[i + 1]) - mean) * (float(y[i + 1]) - other)
        s2 += (float(x[i + 2]) - mean) * (float(y[i + 2]) - other)
        s3 += (float(x[i + 3]) - mean) * (float(y[i + 3]) - other)
    for i in range(fours, x.size):
        s0 += (float(x[i]) - mean) * (float(y[i]) - other)
    return (s0 + s1) + (s2 + s3)


@jit(python=False)
def moments(x: FloatArray) -> tuple[float, float]:
    # The mean and the biased variance.
    mean = sum_of(x) / x.size
    return mean, sum_of_products(x, mean, x, mean) / x.size


@jit(python=False)
def normalise_backward(d: FloatArray, normal: FloatArray, inverse: float, gamma: float) -> tuple[float, float]:
    # d, the derivative with respect to the output, becomes that with respect to the input: gamma / deviation
    # (d - (sum of d + x sum of d x) / elements). Returns the gradients of gamma and beta, which are the sums.
    dgamma, dbeta = sum_of_products(d, 0.0, normal, 0.0), sum_of(d)
    of_normal, shift, scale = dgamma / d.size, dbeta / d.size, gamma * inverse
    for i in range(d.size):
        d[i] = scale * (float(d[i]) - shift - float(normal[i]) * of_normal)
    return dgamma, dbeta


@jit(python=False)
def factors(of_move: float, square: float, count: int, inverse: float) -> tuple[float, float]:
    # With x the normalised values, e the moves less their mean, of_move the sum of e x and square that of e², the
    # variance grows by g = (2 s of_move + square) / count, and the normalised values move by e a + x b: a = 1 / s' and
    # b = -g / (s' (s + s')), s'² = s² + g. Nothing cancels.
    deviation = 1 / inverse
    grows = (2 * deviation * of_move + square) / count
    after = math.sqrt(deviation * deviation + grows)
    return 1 / after, -grows / (after * (after + deviation))


@jit(python=False)
def differ(d: FloatArray, normal: FloatArray, inverse: float, gamma: float) -> None:
    # Moves d of the input -> those of the output, in place.
    mean = sum_of(d) / d.size
    a, b = factors(sum_of_products(d, mean, normal, 0.0), sum_of_products(d, mean, d, mean), d.size, inverse)
    for i in range(d.size):
        d[i] = gamma * ((d[i] - mean) * a + normal[i] * b)
