"""Networks with inputs up to the largest numbers: their differences in long double, and how far an answer is off."""

from __future__ import annotations

import itertools
from typing import Any, NamedTuple

import numpy as np

import oracle
from bounded import Bounded
from fastnet.backends.spec import Activation, Loss, NetworkSpec, Output

ANSWERS = (
    (Output.IDENTITY, Loss.MEAN_SQUARED_ERROR),
    (Output.SOFTMAX, Loss.MEAN_SQUARED_ERROR),
    (Output.SOFTMAX, Loss.CROSS_ENTROPY),
    (Output.IDENTITY, Loss.BINARY_CROSS_ENTROPY),
    (Output.IDENTITY, Loss.HUBER),
    (Output.IDENTITY, Loss.ABSOLUTE_ERROR),
)
SHAPES = ((3, 4, 2), (3, 2), (3, 4, 3, 2), (3, 4, 4, 3, 2))
STEPS = (1e-4, 0.1, 1.0, 1e-2, 1e-7)
SCALES = 19  # from 1 to 1e36 (float32) or 1e300
PROPERTIES = tuple(itertools.product(("float32", "float64"), Activation, ANSWERS, range(SCALES), (False, True)))
COUNT = len(PROPERTIES)  # 4,560


class Case(NamedTuple):
    spec: NetworkSpec
    x: Any
    t: Any
    h: float


def case(number: int) -> Case:
    """The network of that number, 0 to COUNT - 1: all of its rows are large, or one among 20 ordinary ones."""
    dtype, kind, answer, scale, outlier = PROPERTIES[number]
    rng = np.random.default_rng(number + 1)
    shape = SHAPES[(number + 1) % len(SHAPES)]
    largest = 10.0 ** ((36 if dtype == "float32" else 300) * scale / (SCALES - 1))
    kinds = [kind] * (len(shape) - 1)
    if (number + 1) % 3:
        kinds[-1] = Activation.IDENTITY
    rows = 20 if outlier else 4
    x = rng.standard_normal((rows, shape[0])) * (1 if outlier else largest)
    if outlier:
        x[7] *= largest
        x[rng.random(x.shape) < 0.3] = 0
    spec = NetworkSpec.chain(
        tuple(rng.standard_normal(s).astype(dtype) for s in itertools.pairwise(shape)),
        tuple(rng.standard_normal(n).astype(dtype) if (number + 1) % 7 else None for n in shape[1:]),
        tuple(kinds),
        *answer,
    )
    return Case(spec, x.astype(dtype), rng.integers(0, shape[-1], rows), STEPS[(number + 1) % len(STEPS)])


def _onward(spec: NetworkSpec, a: Any, layer: int) -> Any:
    # a (..., outputs) of a layer -> the last layer's units
    z = oracle.activation_value(spec.layers[layer].activation, a, spec.dtype.type(spec.layers[layer].constant))
    for weight, bias, kind, constant in spec.layers[layer + 1 :]:
        a = z @ weight.astype(np.longdouble)
        z = oracle.activation_value(kind, a if bias is None else a + bias, spec.dtype.type(constant))
    return z


def _row_losses(spec: NetworkSpec, z: Any, t: Any) -> Any:
    classes = z.shape[-1]
    y = Bounded.exact(z.reshape(-1, classes), spec.dtype)
    y = oracle.softmax(y) if spec.output == Output.SOFTMAX else y
    labels = np.broadcast_to(t, z.shape[:-1]).ravel()
    return oracle.row_losses(spec.loss, y, labels, oracle.loss_constant(spec)).value.reshape(z.shape[:-1])


def differences(spec: NetworkSpec, x: Any, t: Any, h: float) -> list[Any]:
    """The central difference with respect to every parameter, by two losses in long double."""
    step, z, rows = np.longdouble(spec.dtype.type(h)), x.astype(np.longdouble), len(x)
    found = []
    for layer, (weight, bias, kind, constant) in enumerate(spec.layers):
        inputs, outputs = weight.shape
        a = z @ weight.astype(np.longdouble)
        a = a if bias is None else a + bias
        moves = step * np.column_stack([z, np.ones(rows)])  # of a unit, by each weight and the bias
        moved = np.broadcast_to(a, (2, inputs + 1, outputs, rows, outputs)).copy()
        for j in range(outputs):
            moved[0, :, j, :, j] += moves.T
            moved[1, :, j, :, j] -= moves.T
        above, below = _row_losses(spec, _onward(spec, moved, layer), t)
        gradient = (above - below).sum(axis=-1) / (2 * step * rows)
        found += [gradient[:inputs]] + ([] if bias is None else [gradient[inputs]])
        z = oracle.activation_value(kind, a, spec.dtype.type(constant))
    return found


def every_entry(spec: NetworkSpec) -> Any:
    return np.arange(sum(parameter.size for parameter in spec.parameters))


def faults(backend: Any, number: int) -> list[str]:
    """What is wrong with a backend's exact differences: not finite where the loop is, or less accurate than it."""
    with np.errstate(all="ignore"):
        spec, x, t, h = case(number)
        exact = differences(spec, x, t, h)
        loop = spec.split(backend.loop(spec, x, t, h, every_entry(spec)))
        if not all(np.isfinite(gradient).all() for gradient in loop):
            return []
        eps, largest = float(np.finfo(spec.dtype).eps), max(float(abs(e).max()) for e in exact)
        off_by_loop = max(float(abs(g - e).max()) for g, e in zip(loop, exact, strict=True))
        found = []
        for algorithm in (name for name in backend.algorithms if name != "loop"):
            gradients, diagnostics = getattr(backend, algorithm)(spec, x, t, h)
            if not all(np.isfinite(gradient).all() for gradient in gradients):
                found.append(f"{algorithm} of network {number} is not finite")
                continue
            # The loop may be right by luck: it is allowed the rounding of its two losses, and some of the result.
            allowed = max(4 * off_by_loop, 100 * eps * largest, eps * abs(diagnostics.loss) / (2 * h))
            off = max(float(abs(g - e).max()) for g, e in zip(gradients, exact, strict=True))
            if not off <= allowed:
                found.append(f"{algorithm} of network {number} is off by {off:.1e}, the loop by {off_by_loop:.1e}")
    return found
