"""Second derivatives of a chain: the reference, and what a backend without functions of its own computes them by.

`hessian_diagonal` carries pairs of moves through the network. A pair is half the sum and half the difference of two
changes, its even and its odd part. Each activation and each loss has a formula for the even part that subtracts nothing
nearly equal, so that it keeps its digits however small the step is.
"""

from __future__ import annotations

import numpy as np

from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends._numpy import chain
from fastnet.backends._numpy.functions import (
    EPSILON,
    NODES,
    WEIGHTS,
    activation,
    activation_derivative,
    activation_difference,
    error_differences,
    loss_derivative,
    loss_differences,
    normal_density,
    quietly,
    softmax,
    softplus_difference,
    target_rows,
)
from fastnet.backends.spec import Activation, Diagnostics, Loss, NetworkSpec, Output, has_kink

Pair = tuple[FloatArray, FloatArray]  # half the sum and half the difference of two changes


@quietly
def hessian_diagonal(
    spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float
) -> tuple[list[FloatArray], Diagnostics]:
    """Return the second difference (L(θ + h) − 2L(θ) + L(θ − h)) / h² with respect to every parameter θ."""
    step, last = spec.dtype.type(h), len(spec.weights) - 1
    second_of_decay = spec.dtype.type(spec.weight_decay)
    before, after = [], [x]
    for weight, bias, kind, constant in spec.layers:
        before.append(after[-1] @ weight if bias is None else after[-1] @ weight + bias)
        after.append(activation(kind, before[-1], constant))
    targets = target_rows(t, after[-1])
    kinked = [np.zeros(w.shape[1], dtype=bool) for w in spec.weights]
    evaluations = 0

    def effect(layer: int, unit: int, d: FloatArray) -> FloatArray:
        """Return the sum of each row's two changes of the loss, (moves, batch), by moves `d` and −`d` of a unit."""
        nonlocal evaluations
        evaluations += 2 * d.size
        moves = len(d)

        def carry(at: int, a: FloatArray, pair: Pair) -> Pair:
            _, _, kind, constant = spec.layers[at]
            if has_kink(kind, constant):
                for end in (a + (pair[0] + pair[1]), a + (pair[0] - pair[1])):
                    kinked[layer][unit] |= ((a > 0) != (end > 0)).any()
            return activation_pair(kind, a, pair, constant)

        even, odd = carry(layer, np.tile(before[layer][:, unit], moves), (np.zeros_like(d.ravel()), d.ravel()))
        if layer == last:
            dz = np.zeros((2, d.size, spec.classes), dtype=spec.dtype)
            dz[0, :, unit], dz[1, :, unit] = even, odd
            pair: Pair = (dz[0], dz[1])
        else:
            row = spec.weights[layer + 1][unit]
            pair = (even[:, np.newaxis] * row, odd[:, np.newaxis] * row)
            for at in range(layer + 1, last + 1):
                pair = carry(at, np.tile(before[at], (moves, 1)), pair)
                if at < last:
                    pair = (pair[0] @ spec.weights[at + 1], pair[1] @ spec.weights[at + 1])
        answers, wanted = (np.tile(rows, (moves, 1)) for rows in (after[-1], targets))
        if spec.loss == Loss.ABSOLUTE_ERROR:
            y, (even, odd) = answer_pair(spec, answers, pair)
            for change in (even + odd, even - odd):
                kinked[layer][unit] |= ((y - wanted > 0) != (y - wanted + change > 0)).any()
        return sum_of_loss_changes(spec, answers, pair, wanted).reshape(moves, -1)

    diagonal: list[FloatArray] = []
    moves = max(1, chain.ROWS_AT_ONCE // len(x))
    for layer, (weight, bias, *_) in enumerate(spec.layers):
        inputs = after[layer] if bias is None else np.column_stack([after[layer], np.ones_like(x[:, 0])])
        differences = np.empty((inputs.shape[1], weight.shape[1]), dtype=spec.dtype)
        for unit in range(weight.shape[1]):
            for first in range(0, inputs.shape[1], moves):
                changes = effect(layer, unit, step * inputs[:, first : first + moves].T)
                differences[first : first + moves, unit] = changes.mean(axis=1, dtype=np.float64) / float(step) ** 2
        diagonal.append(differences[: len(weight)] + second_of_decay)
        if bias is not None:
            diagonal.append(differences[-1])
    base = chain.loss(spec, x, t)
    if not np.isfinite(base):
        diagonal = [np.full_like(d, np.nan) for d in diagonal]
    return diagonal, Diagnostics(base, evaluations, kinked=tuple(kinked))


def hyperbolic(q: FloatArray) -> Pair:
    """Return e^q + e^−q − 2 and sinh q."""
    return 4 * np.sinh(q / 2) ** 2, np.sinh(q)


def activation_pair(kind: Activation, a: FloatArray, move: Pair, constant: float) -> Pair:
    """Return the pair of φ's changes from a pair of moves of `a`.

    With b = a + even, the two ends are b ± odd: the rounding of b is a relative one of the even part there.
    """
    if kind == Activation.IDENTITY:
        return move
    even, odd = symmetric_pair(kind, a + move[0], move[1], constant)
    return activation_difference(kind, a, move[0], constant) + even, odd


def symmetric_pair(kind: Activation, a: FloatArray, q: FloatArray, constant: float = 0.0) -> Pair:
    """Return (φ(a + q) + φ(a − q)) / 2 − φ(a) and (φ(a + q) − φ(a − q)) / 2."""
    dtype = a.dtype
    up, down = (activation_difference(kind, a, d, constant) for d in (q, -q))
    odd: FloatArray = (up - down) / 2
    plain: FloatArray = (up + down) / 2  # for long moves, where nothing cancels in the sum
    size = np.abs(q)
    beyond = np.maximum(size - np.abs(a), 0)  # of the kink at 0
    short = np.where(size <= 30, q, 0)
    if kind in (Activation.RELU, Activation.LEAKY_RELU):
        slope = dtype.type(0 if kind == Activation.RELU else constant)
        return (1 - slope) * beyond / 2, odd
    if kind == Activation.SIGMOID:
        v = activation_derivative(kind, a) * hyperbolic(short)[0]
        return np.where(size <= 30, -np.tanh(a / 2) / 2 * v / (1 + v), plain).astype(dtype), odd
    if kind == Activation.TANH:
        even, odd = symmetric_pair(Activation.SIGMOID, 2 * a, 2 * q)
        return 2 * even, 2 * odd
    if kind == Activation.SOFTPLUS:
        v = activation_derivative(Activation.SIGMOID, a) * hyperbolic(short)[0]
        return np.where(size <= 30, np.log1p(v) / 2, plain).astype(dtype), odd
    if kind == Activation.SILU:
        even, rise = symmetric_pair(Activation.SIGMOID, a, q)
        return a * even + q * rise, odd
    if kind == Activation.GELU:
        return np.where(size * np.maximum(np.abs(a), 1) <= 0.5, gelu_even(a, q), plain).astype(dtype), odd
    if kind == Activation.ELU:
        alpha = dtype.type(constant)
        left = alpha * np.exp(np.minimum(a, 0)) * hyperbolic(np.where(size <= 1, q, 0))[0]
        w = np.where(size <= 1, beyond, 0)
        # Beyond 0 the line and the exponential differ by (1 − α)w, and by α times what e^∓w has beyond its tangent.
        bent = np.where(a > 0, expm1_less_x(-w), -expm1_less_x(w))
        even = np.where(a > 0, 0, left) + (1 - alpha) * w + alpha * bent
        return np.where(size <= 1, even / 2, plain).astype(dtype), odd
    return plain, odd


def expm1_less_x(x: FloatArray) -> FloatArray:
    """Return e^x − 1 − x, for short x by its series."""
    series = np.ones_like(x)
    for i in range(15, 2, -1):
        series = 1 + x * series / i
    return np.where(np.abs(x) < 0.5, x * x * series / 2, np.expm1(x) - x).astype(x.dtype)


def gelu_even(a: FloatArray, q: FloatArray) -> FloatArray:
    """Return the even part of a·Φ(a) for short moves, by the integrals of the density from a − q to a and to a + q."""
    a, q = a.astype(np.float64), q.astype(np.float64)
    decays = [(q * node, w * np.exp(-((q * node) ** 2) / 2)) for node, w in zip(NODES, WEIGHTS, strict=True)]
    even = sum(-decay * np.sinh(a * s) for s, decay in decays)
    odd = sum(decay * np.cosh(a * s) for s, decay in decays)
    both: FloatArray = normal_density(a) * q * (a * even + q * odd)
    return both


def softmax_changes(y: FloatArray, move: Pair) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return g + g' + g·g', g·g' and (g − g') / 2 of the relative changes g and g' of the probabilities y."""
    top = y.argmax(axis=1, keepdims=True)
    even, odd = (part - np.take_along_axis(part, top, axis=1) for part in move)
    # The same number for every class changes nothing: the odd parts get the mean 0, so that A + B below is of order h².
    odd = odd - (y * odd).sum(axis=1, keepdims=True)
    tau, sinh = hyperbolic(odd)
    u = np.expm1(even)
    both = (y * (2 * u + (1 + u) * tau)).sum(axis=1, keepdims=True)
    half = (y * (1 + u) * sinh).sum(axis=1, keepdims=True)
    above, below = both / 2 + half, both / 2 - half
    up = (np.expm1(even + odd) - above) / (1 + above)
    down = (np.expm1(even - odd) - below) / (1 + below)
    joint = np.expm1(2 * even - np.log1p(both + above * below))  # (1 + g)(1 + g') − 1
    return joint, up * down, (up - down) / 2


def answer_pair(spec: NetworkSpec, z: FloatArray, move: Pair) -> tuple[FloatArray, Pair]:
    """Return the answers, and the pair of their changes, from the last layer's units and the pair of theirs."""
    if spec.output != Output.SOFTMAX:
        return z, move
    y = softmax(z)
    joint, product, half = softmax_changes(y, move)
    return y, (y * (joint - product) / 2, y * half)


def sum_of_loss_changes(spec: NetworkSpec, z: FloatArray, move: Pair, t: FloatArray) -> FloatArray:
    """Return the sum of the two changes of each row's loss, shape (batch,), by a pair of moves of the units z."""
    even, odd = move
    if spec.output != Output.SOFTMAX:
        return sum_of_error_changes(spec, z, move, t)
    top = softmax(z).argmax(axis=1, keepdims=True)
    reach = sum(np.abs(part - np.take_along_axis(part, top, axis=1)) for part in move)
    far = ~(np.max(reach, axis=1) <= 0.5)
    near_move = (np.where(far[:, np.newaxis], 0, even), np.where(far[:, np.newaxis], 0, odd))
    if spec.loss == Loss.CROSS_ENTROPY:
        y = softmax(z)
        joint, product, _ = softmax_changes(y, near_move)
        base = y + y.dtype.type(EPSILON)
        # (1 + R·g)(1 + R·g') − 1 with R = y / (y + ε)
        changes = y / base * (joint - y.dtype.type(EPSILON) / base * product)
        near: FloatArray = np.where(t == 0, 0, -t * np.log1p(changes)).sum(axis=1)
    else:
        y, pair = answer_pair(spec, z, near_move)
        near = sum_of_error_changes(spec, y, pair, t)
    if not far.any():
        return near
    plain = loss_differences(spec, z, even + odd, t) + loss_differences(spec, z, even - odd, t)
    return np.where(far, plain, near)


def sum_of_error_changes(spec: NetworkSpec, y: FloatArray, change: Pair, t: FloatArray) -> FloatArray:
    """Return the same from a pair of changes of the answers, for all losses but the cross entropy."""
    even, odd = change
    r, q = np.abs(y + even - t), np.abs(odd)
    if spec.loss == Loss.BINARY_CROSS_ENTROPY:
        a = y + even
        v = activation_derivative(Activation.SIGMOID, a) * hyperbolic(np.minimum(q, 30))[0]
        plain = softplus_difference(a, q) + softplus_difference(a, -q)
        second = np.where(q <= 30, np.log1p(v), plain)
    elif spec.loss == Loss.HUBER:
        # q² inside, 0 beyond; one end may go out, or the other one come back and go `through` to the other side.
        delta = y.dtype.type(spec.loss_constant)
        out, back, through = np.maximum(q + r - delta, 0), np.maximum(q - r + delta, 0), np.maximum(q - r - delta, 0)
        outside = np.where(through > 0, 2 * delta * (q - r), back * back / 2)
        second = np.where(r > delta, outside, q * q - out * out / 2 - through * through / 2)
    elif spec.loss == Loss.ABSOLUTE_ERROR:
        second = 2 * np.maximum(q - r, 0)
    else:
        second = q * q
    total: FloatArray = 2 * error_differences(spec.loss, y, even, t, spec.loss_constant) + second.sum(axis=1)
    return total


@quietly
def hessian_vector_product(
    spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, v: list[FloatArray]
) -> list[FloatArray]:
    """Return the derivative of the gradient along `v`, arrays like ``spec.parameters``.

    Each quantity of the forward pass and of backprop has its derivative along `v` beside it: the operator R{·} of
    B. Pearlmutter, *Fast exact multiplication by the Hessian*, Neural Computation 6, 1994.
    """
    along = spec.with_parameters(v)
    z: FloatArray = x
    r_z: FloatArray = np.zeros_like(x)
    passed: list[tuple[FloatArray, ...]] = []  # each layer's inputs, their R, its pre-activations and theirs
    for (weight, bias, kind, constant), (r_weight, r_bias, *_) in zip(spec.layers, along.layers, strict=True):
        a: FloatArray = z @ weight if bias is None else z @ weight + bias
        r_a: FloatArray = z @ r_weight if r_bias is None else z @ r_weight + r_bias
        if passed:
            r_a += r_z @ weight
        passed.append((z, r_z, a, r_a))
        z, r_z = activation(kind, a, constant), activation_derivative(kind, a, constant) * r_a

    y, r_y = z, r_z
    if spec.output == Output.SOFTMAX:
        y = softmax(z)
        r_y = y * (r_z - (y * r_z).sum(axis=1, keepdims=True))
    targets = target_rows(t, y)
    dz = loss_derivative(spec.loss, y, targets, spec.loss_constant)
    r_dz = loss_curvature(spec.loss, y, targets, spec.loss_constant) * r_y
    if spec.output == Output.SOFTMAX:
        inner = (y * dz).sum(axis=1, keepdims=True)
        r_inner = (r_y * dz + y * r_dz).sum(axis=1, keepdims=True)
        dz, r_dz = y * (dz - inner), r_y * (dz - inner) + y * (r_dz - r_inner)
    dz, r_dz = dz / y.dtype.type(len(x)), r_dz / y.dtype.type(len(x))

    reversed_products: list[FloatArray] = []
    for layer in reversed(range(len(spec.weights))):
        weight, bias, kind, constant = spec.layers[layer]
        z, r_z, a, r_a = passed[layer]
        slope = activation_derivative(kind, a, constant)
        da, r_da = dz * slope, r_dz * slope + dz * activation_curvature(kind, a, constant) * r_a
        if bias is not None:
            reversed_products.append(r_da.sum(axis=0))
        product = r_z.T @ da + z.T @ r_da if layer else z.T @ r_da
        reversed_products.append(chain.with_decay(spec, product, along.weights[layer]))
        dz, r_dz = da @ weight.T, r_da @ weight.T + da @ along.weights[layer].T
    return reversed_products[::-1]


def activation_curvature(kind: Activation, x: FloatArray, constant: float) -> FloatArray:
    """The second derivative of φ; at a kink that of the side on which the first one is taken."""
    if kind == Activation.SIGMOID:
        return -np.tanh(x / 2) * activation_derivative(kind, x)
    if kind == Activation.TANH:
        return 8 * activation_curvature(Activation.SIGMOID, 2 * x, constant)
    if kind == Activation.SOFTPLUS:
        return activation_derivative(Activation.SIGMOID, x)
    if kind == Activation.SILU:
        x = np.clip(x, -800, 800)
        return activation_derivative(Activation.SIGMOID, x) * (2 - x * np.tanh(x / 2))
    if kind == Activation.GELU:
        x = np.clip(x, -40, 40)
        return (normal_density(x) * (2 - x.astype(np.float64) ** 2)).astype(x.dtype)
    if kind == Activation.ELU:
        return np.where(x > 0, 0, x.dtype.type(constant) * np.exp(np.minimum(x, 0))).astype(x.dtype)
    return np.where(np.isnan(x), x, 0).astype(x.dtype)


def loss_curvature(kind: Loss, y: FloatArray, t: FloatArray, constant: float) -> FloatArray:
    """The second derivative of each answer's share in a row's loss; 0 at a kink."""
    if kind == Loss.CROSS_ENTROPY:
        return t / (y + y.dtype.type(EPSILON)) ** 2
    if kind == Loss.BINARY_CROSS_ENTROPY:
        return activation_derivative(Activation.SIGMOID, y)
    if kind == Loss.HUBER:
        return (np.abs(y - t) <= constant).astype(y.dtype)
    return np.full_like(y, kind == Loss.MEAN_SQUARED_ERROR)
