"""The definition of finite differences, (L(θ + h) − L(θ − h)) / 2h, by subtraction in as many digits as it takes."""

from __future__ import annotations

import functools
import itertools

import numpy as np
from mpmath import mp, mpf

import oracle
from fastnet.backends.spec import Activation, Loss, Output

Long = np.longdouble


def constants_of(spec):
    """The activations' constants as the network's dtype has them."""
    return [float(spec.dtype.type(layer.constant)) for layer in spec.layers]


@functools.lru_cache(maxsize=10**5)
def _normal(a, prec):
    """Φ(a), its smaller side to 120 digits: much the slowest of these functions, and asked for again and again."""
    with mp.workdps(120):
        tail = mp.erfc(abs(a) / mp.sqrt(2)) / 2
    return 1 - tail if a > 0 else tail


def mp_activation(kind, a, slope):
    if kind == Activation.SIGMOID:
        return 1 / (1 + mp.exp(-a))
    if kind == Activation.TANH:
        return mp.tanh(a)
    if kind == Activation.STEP:
        return mpf(a > 0)
    if kind == Activation.RELU:
        return a if a > 0 else mpf(0)
    if kind == Activation.LEAKY_RELU:
        return a if a > 0 else slope * a
    if kind == Activation.SOFTPLUS:
        return mp.log1p(mp.exp(a)) if a < 0 else a + mp.log1p(mp.exp(-a))
    if kind == Activation.SILU:
        return a / (1 + mp.exp(-a))
    if kind == Activation.GELU:
        return a * _normal(a, mp.prec)
    if kind == Activation.ELU:
        return a if a > 0 else slope * mp.expm1(a)
    return a


def mp_loss(z, t, output, loss, constant=1.0):
    """The loss of one row, from the last layer's units z and the target row t."""
    if output == Output.SOFTMAX:
        top = max(z)
        e = [mp.exp(v - top) for v in z]
        z = [v / sum(e) for v in e]
    if loss == Loss.CROSS_ENTROPY:
        return -sum(s * mp.log(y + mpf(1e-7)) for s, y in zip(t, z, strict=True) if s)
    if loss == Loss.BINARY_CROSS_ENTROPY:
        return sum(mp_activation(Activation.SOFTPLUS, y, 0) - s * y for s, y in zip(t, z, strict=True))
    errors = [abs(y - s) for s, y in zip(t, z, strict=True)]
    if loss == Loss.ABSOLUTE_ERROR:
        return sum(errors)
    if loss == Loss.HUBER:
        delta = mpf(constant)
        return sum(r**2 / 2 if r <= delta else delta * (r - delta / 2) for r in errors)
    return sum(r**2 for r in errors) / 2


def to_long(numbers):
    """An array of mpf in long double; what is below its range is 0."""
    flat = [Long(mp.nstr(v, 25)) if abs(v) > mpf("1e-4900") else Long(0) for v in np.ravel(numbers)]
    return np.array(flat, Long).reshape(np.shape(numbers))


def exact_gradient(spec, x, t, h, digits, second=False):
    """The central differences by every parameter, by subtracting losses in `digits` decimal digits.

    If `second`, the second differences, which are the diagonal of the Hessian.
    """
    with mp.workdps(digits):
        weights = [[[mpf(float(v)) for v in row] for row in w] for w in spec.weights]
        biases = [None if b is None else [mpf(float(v)) for v in b] for _, b, *_ in spec.layers]
        step, slopes = mpf(float(spec.dtype.type(h))), [mpf(c) for c in constants_of(spec)]
        delta = oracle.loss_constant(spec)
        if t.ndim == 1:
            t = np.eye(spec.classes)[t]
        sums = [np.zeros(p.shape, object) for p in spec.parameters]

        def forward(a, at):
            """Each layer's inputs and pre-activations, from layer at's pre-activations a on, and the last units."""
            passed = []
            for layer in range(at, len(weights)):
                z = [mp_activation(spec.layers[layer].activation, v, slopes[layer]) for v in a]
                passed.append(z)
                if layer + 1 < len(weights):
                    a = affine(z, layer + 1)
            return passed

        def affine(z, layer):
            w, b = weights[layer], biases[layer]
            return [mp.fdot(z, [row[j] for row in w]) + (b[j] if b else 0) for j in range(len(w[0]))]

        for row, target in zip(x, t, strict=True):
            z = [mpf(float(v)) for v in row]
            target = [mpf(float(v)) for v in target]
            parameters = iter(sums)
            base = mp_loss(forward(affine(z, 0), 0)[-1], target, spec.output, spec.loss, delta)
            for layer, w in enumerate(weights):
                a = affine(z, layer)
                groups = [(next(parameters), z)]
                if biases[layer]:
                    groups.append((next(parameters)[None], [mpf(1)]))
                for total, inputs in groups:
                    for i, j in itertools.product(range(len(inputs)), range(len(w[0]))):
                        losses = []
                        for move in (step * inputs[i], -step * inputs[i]):
                            moved = [v + move if k == j else v for k, v in enumerate(a)]
                            losses.append(mp_loss(forward(moved, layer)[-1], target, spec.output, spec.loss, delta))
                        if second:
                            total[i, j] += (losses[0] - 2 * base + losses[1]) / (step**2 * len(x))
                        else:
                            total[i, j] += (losses[0] - losses[1]) / (2 * step * len(x))
                z = [mp_activation(spec.layers[layer].activation, v, slopes[layer]) for v in a]
        for p, total in zip(spec.parameters, sums, strict=True):
            if p.ndim == 2:
                total += mpf(spec.weight_decay) * (
                    1 if second else np.array([[mpf(float(v)) for v in row] for row in p])
                )
        return [to_long(total) for total in sums]
