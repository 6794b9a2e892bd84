"""Activations and losses: the value, the derivative and the difference of each, side by side."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends.spec import Activation, Loss, Output

quietly = np.errstate(all="ignore")  # NaN and infinities are valid answers, as in the compiled kernels.

FAR_FROM_ZERO = 512  # Moves from closer to 0 lose no more digits than a plain evaluation does.

EPSILON = 1e-7  # Added inside the logarithm of the cross entropy, so that an answer of 0 has a finite loss.


class Answering(Protocol):
    """A description of a network, as far as its answer and its loss are concerned."""

    @property
    def output(self) -> Output: ...
    @property
    def loss(self) -> Loss: ...
    @property
    def loss_constant(self) -> float: ...


@quietly
def matmul(a: FloatArray, b: FloatArray, transpose_a: bool = False, transpose_b: bool = False) -> FloatArray:
    product: FloatArray = (a.T if transpose_a else a) @ (b.T if transpose_b else b)
    return product


@quietly
def add_bias(x: FloatArray, b: FloatArray) -> FloatArray:
    return x + b


@quietly
def activation(kind: Activation, x: FloatArray, constant: float = 0.0) -> FloatArray:
    if x.ndim == 0:  # Before NumPy 2, a single number and one of Python's make a float64.
        return activation(kind, x.reshape(1), constant).reshape(())
    if kind == Activation.STEP:
        return np.where(np.isnan(x), x, x > 0).astype(x.dtype)
    if kind == Activation.SIGMOID:
        e = np.exp(-np.abs(x))  # At most 1, so that neither branch overflows.
        return np.where(x >= 0, 1 / (1 + e), e / (1 + e)).astype(x.dtype)
    if kind == Activation.TANH:
        return np.tanh(x)
    if kind == Activation.RELU:
        return np.maximum(x, 0)
    if kind == Activation.LEAKY_RELU:
        return np.where(x > 0, x, x * x.dtype.type(constant)).astype(x.dtype)
    if kind == Activation.SOFTPLUS:
        return np.logaddexp(x, 0)
    if kind == Activation.SILU:
        x = np.maximum(x, -800)  # There σ is 0, and 0·(-inf) would be NaN.
        return x * activation(Activation.SIGMOID, x)
    if kind == Activation.GELU:
        x = np.maximum(x, -40)
        return x * normal_distribution(x)
    if kind == Activation.ELU:
        return np.where(x > 0, x, x.dtype.type(constant) * np.expm1(np.minimum(x, 0))).astype(x.dtype)
    return x.copy()


@quietly
def normal_distribution(x: FloatArray) -> FloatArray:
    """Φ(x) of the standard normal distribution, with full relative accuracy in the lower tail."""
    values = [math.erfc(-v / math.sqrt(2)) / 2 for v in x.astype(np.float64).ravel().tolist()]
    return np.array(values, dtype=x.dtype).reshape(x.shape)


@quietly
def normal_density(x: FloatArray) -> FloatArray:
    x = x.astype(np.float64)
    density: FloatArray = np.exp(-x * x / 2) / math.sqrt(2 * math.pi)
    return density


@quietly
def activation_derivative(kind: Activation, x: FloatArray, constant: float = 0.0) -> FloatArray:
    if kind == Activation.STEP:
        return np.where(np.isnan(x), x, 0).astype(x.dtype)
    if kind == Activation.SIGMOID:
        return activation(kind, x) * activation(kind, -x)
    if kind == Activation.TANH:
        return 4 * activation_derivative(Activation.SIGMOID, 2 * x)
    if kind == Activation.RELU:
        return np.where(np.isnan(x), x, x > 0).astype(x.dtype)
    if kind == Activation.LEAKY_RELU:
        return np.where(np.isnan(x), x, np.where(x > 0, 1, constant)).astype(x.dtype)
    if kind == Activation.SOFTPLUS:
        return activation(Activation.SIGMOID, x)
    if kind == Activation.SILU:
        x = np.clip(x, -800, 800)
        return activation(Activation.SIGMOID, x) * (1 + x * activation(Activation.SIGMOID, -x))
    if kind == Activation.GELU:
        x = np.clip(x, -40, 40)
        return (normal_distribution(x) + x * normal_density(x)).astype(x.dtype)
    if kind == Activation.ELU:
        return np.where(x > 0, 1, x.dtype.type(constant) * np.exp(np.minimum(x, 0))).astype(x.dtype)
    return np.ones_like(x)


@quietly
def activation_difference(kind: Activation, a: FloatArray, d: FloatArray, constant: float = 0.0) -> FloatArray:
    """Return φ(a + d) − φ(a) without subtracting two values of φ: no digits are lost, however small `d` is."""
    if kind == Activation.SIGMOID:
        # With u = e^|d| − 1, s = σ(a) and c = σ(−a): ±s·c·u / (1 + w·u) with w = s upwards and c downwards.
        s, c = activation(kind, a), activation(kind, -a)
        far = np.abs(d) > 30
        u = np.expm1(np.minimum(np.abs(d), 30))
        exact = np.sign(d) * s * c * u / (1 + np.where(d > 0, s, c) * u)
        if not far.any() and not np.isnan(d).any():
            near: FloatArray = exact.astype(a.dtype)
            return near
        right = (a > 0) & (a + d > 0)  # Here σ(−a) is the value near 0.
        plain = np.where(right, c - activation(kind, -a - d), activation(kind, a + d) - s)
        return np.where(~far & ~np.isnan(d), exact, plain).astype(a.dtype)
    if kind == Activation.TANH:
        return 2 * activation_difference(Activation.SIGMOID, 2 * a, 2 * d)
    if kind in (Activation.RELU, Activation.LEAKY_RELU):
        slope = a.dtype.type(0 if kind == Activation.RELU else constant)
        across = np.where(a > 0, slope * (a + d) - a, a + d - slope * a)
        return np.where((a > 0) == (a + d > 0), np.where(a > 0, d, slope * d), across).astype(a.dtype)
    if kind == Activation.STEP:
        return activation(kind, a + d) - activation(kind, a)
    if kind == Activation.SOFTPLUS:
        return softplus_difference(a, d)
    if kind == Activation.SILU:
        before, rise = activation(Activation.SIGMOID, a), activation_difference(Activation.SIGMOID, a, d)
        after = np.where(np.abs(d) <= 0.5, before + rise, activation(Activation.SIGMOID, a + d))
        return (d * after + a * rise).astype(a.dtype)
    if kind == Activation.GELU:
        return gelu_difference(a, d)
    if kind == Activation.ELU:
        b, alpha = a + d, a.dtype.type(constant)
        # α·e^a·(e^d − 1) to the left of 0; across it, where |a| ≤ |d|, each side's part.
        left = np.where(d > 30, np.exp(b) - np.exp(a), np.exp(np.minimum(a, 0)) * np.expm1(np.minimum(d, 30)))
        across = np.where(a > 0, alpha * np.expm1(np.minimum(b, 0)) - a, b - alpha * np.expm1(np.minimum(a, 0)))
        return np.where((a > 0) == (b > 0), np.where(a > 0, d, alpha * left), across).astype(a.dtype)
    return d + np.zeros_like(a)


@quietly
def softplus_difference(a: FloatArray, d: FloatArray) -> FloatArray:
    """Return log(1 + e^(a + d)) − log(1 + e^a)."""
    s, c = activation(Activation.SIGMOID, a), activation(Activation.SIGMOID, -a)
    x = s * np.expm1(np.minimum(d, 30))
    # 1 + x is c + s·e^d, whose terms are positive: where x falls below −½, 1 + x would cancel.
    near = np.where(x < -0.5, np.log(c + s * np.exp(np.minimum(d, 30))), np.log1p(x))
    # Beyond |d| = 30 the parts of max(a, 0) + log1p(e^−|a|) differ by enough to be subtracted.
    b = a + d
    ramps = np.where((a > 0) & (b > 0), d, np.maximum(b, 0) - np.maximum(a, 0))
    far = ramps + (np.log1p(np.exp(-np.abs(b))) - np.log1p(np.exp(-np.abs(a))))
    return np.where(np.abs(d) > 30, far, near).astype(a.dtype)


# Gauss-Legendre quadrature with seven nodes: over a range of at most ½ and |a| times it, the error is below rounding.
NODES, WEIGHTS = (1 + np.polynomial.legendre.leggauss(7)[0]) / 2, np.polynomial.legendre.leggauss(7)[1] / 2


@quietly
def gelu_difference(a: FloatArray, d: FloatArray) -> FloatArray:
    """Return d·Φ(a + d) + a·(Φ(a + d) − Φ(a)), the latter as the integral of the density where it is short."""
    a, d, dtype = a.astype(np.float64), d.astype(np.float64), a.dtype
    near = np.abs(d) * np.maximum(np.abs(a), 1) <= 0.5
    before, after = normal_distribution(a), normal_distribution(a + d)
    right = (a > 0) & (a + d > 0)  # Here Φ(−a) is the value near 0.
    plain = np.where(right, normal_distribution(-a) - normal_distribution(-a - d), after - before)
    integral = d * sum(w * normal_density(a + d * node) for node, w in zip(NODES, WEIGHTS, strict=True))
    rise = np.where(near, integral, plain)
    after = np.where(near, before + rise, after)
    return (d * after + a * rise).astype(dtype)


@quietly
def softmax_difference(z: FloatArray, dz: FloatArray) -> FloatArray:
    """Return softmax(z + dz) − softmax(z) of each row, likewise without subtraction."""
    y = softmax(z)
    # Adding the same number to a whole row of dz changes nothing. With 0 for the likeliest class nothing cancels below.
    d = dz - np.take_along_axis(dz, y.argmax(axis=1, keepdims=True), axis=1)
    q = np.expm1(d)
    r = (y * q).sum(axis=1, keepdims=True)
    too_long = d.max(axis=1, keepdims=True) > (600 if y.dtype == np.float64 else 80)  # e^d overflows.
    exact: FloatArray = y * (q - r) / (1 + r)
    return np.where(too_long, softmax(z + dz) - y, exact).astype(y.dtype) if too_long.any() else exact


@quietly
def loss_differences(spec: Answering, z: FloatArray, dz: FloatArray, t: FloatArray) -> FloatArray:
    """Return the change of each row's loss, shape (batch,), when the last layer's units z change by dz."""
    soft = spec.output == Output.SOFTMAX
    y, dy = (softmax(z), softmax_difference(z, dz)) if soft else (z, dz)
    if spec.loss != Loss.CROSS_ENTROPY:
        return error_differences(spec.loss, y, dy, t, spec.loss_constant)
    base = y + y.dtype.type(EPSILON)
    change = dy / base
    of_logarithm = np.log1p(change)
    # Where the argument falls below half, 1 + dy/base cancels, but the quotient of the two arguments does not.
    falls = change < -0.5
    if falls.any():
        after = softmax(z + dz) if soft else y + dy
        of_logarithm = np.where(falls, np.log((after + y.dtype.type(EPSILON)) / base), of_logarithm)
    losses: FloatArray = np.where(t == 0, 0, -t * of_logarithm).sum(axis=1)
    return losses


@quietly
def error_differences(kind: Loss, y: FloatArray, dy: FloatArray, t: FloatArray, constant: float) -> FloatArray:
    """Return the change of each row's loss, shape (batch,), when the answers y change by dy."""
    r = y - t
    if kind == Loss.BINARY_CROSS_ENTROPY:
        # softplus(y) − t·y by the differences D of softplus, of which D(y, d) − d = D(−y, −d).
        rises = (1 - t) * softplus_difference(y, dy)
        changes = np.where(t == 1, 0, rises) + np.where(t == 0, 0, t * softplus_difference(-y, -dy))
    elif kind == Loss.HUBER:
        # The parts of the way from r to r + dy: `inner` within δ, and those beyond. Its end is taken relative to
        # `first`, because r + dy would be rounded to the digits of r.
        delta, to = y.dtype.type(constant), r + dy
        first, last = np.clip(r, -delta, delta), np.clip(to, -delta, delta)
        way = dy + (r - first)
        inner = np.where(last == to, way, last - first)
        outer = np.abs(way - inner) - np.abs(r - first)
        beyond = (first != r) & (first == last)
        changes = np.where(beyond, first * dy, inner * (first + inner / 2) + delta * outer)
    elif kind == Loss.ABSOLUTE_ERROR:
        to = r + dy
        across = np.where(r > 0, -to - r, to + r)
        changes = np.where((r > 0) == (to > 0), np.where(r > 0, dy, -dy), across)
    else:
        changes = dy * (r + dy / 2)
    total: FloatArray = changes.sum(axis=1)
    return total


@quietly
def softmax(x: FloatArray) -> FloatArray:
    e = np.exp(x - x.max(axis=1, keepdims=True))
    y: FloatArray = e / e.sum(axis=1, keepdims=True)
    return y


def target_rows(t: FloatArray | IntArray, y: FloatArray) -> FloatArray:
    """Return `t` as rows of the shape of `y`: labels become one-hot."""
    if t.ndim == 2:
        return t.astype(y.dtype, copy=False)
    rows = np.zeros_like(y)
    rows[np.arange(len(t)), t] = 1
    return rows


@quietly
def row_losses(spec: Answering, z: FloatArray, targets: FloatArray) -> FloatArray:
    """Return the loss of each row of the last units z, shape (batch, classes)."""
    y = softmax(z) if spec.output == Output.SOFTMAX else z
    rows = (slice(i, i + 1) for i in range(len(z)))
    return np.array([mean_loss(spec.loss, y[row], targets[row], spec.loss_constant) for row in rows])


def loses_digits(a: FloatArray, d: FloatArray) -> npt.NDArray[np.bool_]:
    """Whether a move `d` takes `a`, far from 0, back so near to 0 that what is left of a + d has the rounding of a.

    A plain evaluation may keep more digits.
    """
    lost: npt.NDArray[np.bool_] = (np.abs(a) > FAR_FROM_ZERO) & (64 * np.abs(a + d) < np.abs(a))
    return lost


def replace_lost(
    gradients: list[FloatArray], evaluate: Callable[[npt.NDArray[np.int64]], FloatArray]
) -> list[FloatArray]:
    """Replace the entries that exact differences leave open, by those of the loop, which is the definition.

    They are not finite where a move loses digits, or where something on its way overflows, although the loss is finite.
    `evaluate` takes flat indices into all of the arrays.
    """
    flat = np.concatenate([gradient.ravel() for gradient in gradients])
    lost = np.flatnonzero(~np.isfinite(flat))
    if not len(lost):
        return gradients
    flat[lost] = evaluate(lost)
    ends = np.cumsum([gradient.size for gradient in gradients])[:-1]
    return [part.reshape(gradient.shape) for part, gradient in zip(np.split(flat, ends), gradients, strict=True)]


@quietly
def mean_loss(kind: Loss, y: FloatArray, t: FloatArray | IntArray, constant: float = 0.0) -> float:
    """Return the loss of the answers y, shape (batch, classes), averaged over the batch; `constant` is the Huber δ."""
    if kind == Loss.CROSS_ENTROPY and t.ndim == 1:
        losses = -np.log(y[np.arange(len(t)), t] + y.dtype.type(EPSILON))
    else:
        losses = _losses(kind, y, target_rows(t, y), y.dtype.type(constant)).sum(axis=1)
    return float(losses.mean(dtype=np.float64))


def _losses(kind: Loss, y: FloatArray, t: FloatArray, constant: np.floating[Any]) -> FloatArray:
    """The share of each answer in the loss, (batch, classes)."""
    if kind == Loss.CROSS_ENTROPY:
        return -t * np.log(y + y.dtype.type(EPSILON))
    r: FloatArray = y - t
    size: FloatArray = np.abs(r)
    if kind == Loss.BINARY_CROSS_ENTROPY:  # softplus(y) − t·y, without terms of opposite signs
        return np.where(y > 0, (1 - t) * y, -t * y) + np.log1p(np.exp(-np.abs(y)))
    if kind == Loss.HUBER:
        return np.where(size > constant, constant * (size - constant / 2), r * r / 2)
    return size if kind == Loss.ABSOLUTE_ERROR else r * r / 2


@quietly
def loss_derivative(kind: Loss, y: FloatArray, t: FloatArray, constant: float = 0.0) -> FloatArray:
    """The derivative of each row's loss with respect to its answers y; all shapes (batch, classes)."""
    if kind == Loss.CROSS_ENTROPY:
        return -t / (y + y.dtype.type(EPSILON))
    if kind == Loss.BINARY_CROSS_ENTROPY:  # σ(y) − t, from the side where σ is small
        small = activation(Activation.SIGMOID, -np.abs(y))
        return np.where(y > 0, (1 - t) - small, small - t)
    r: FloatArray = y - t
    if kind == Loss.HUBER:
        return np.clip(r, -y.dtype.type(constant), y.dtype.type(constant))
    return np.sign(r) if kind == Loss.ABSOLUTE_ERROR else r


@quietly
def softmax_backward(y: FloatArray, dy: FloatArray) -> FloatArray:
    """The derivative with respect to x, where y = softmax(x), from `dy`, that with respect to y."""
    dx: FloatArray = y * (dy - (y * dy).sum(axis=1, keepdims=True))
    return dx
