"""The reference backend: short, obvious and slow. The other backends are tested against it."""

from __future__ import annotations

import numpy as np

from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends.spec import Activation, Diagnostics, Loss, NetworkSpec, Output

name = "numpy"
algorithms = ("incremental", "loop")
ROWS_AT_ONCE = 4096  # that `incremental` computes with: they fit in the processor's cache

quietly = np.errstate(all="ignore")  # NaN and infinities are valid answers, as in the compiled kernels.

EPSILON = 1e-7  # Added inside the logarithm of the cross entropy, so that an answer of 0 has a finite loss.


@quietly
def matmul(a: FloatArray, b: FloatArray, transpose_a: bool = False, transpose_b: bool = False) -> FloatArray:
    product: FloatArray = (a.T if transpose_a else a) @ (b.T if transpose_b else b)
    return product


@quietly
def add_bias(x: FloatArray, b: FloatArray) -> FloatArray:
    return x + b


@quietly
def activation(kind: Activation, x: FloatArray, constant: float = 0.0) -> FloatArray:
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
    return x.copy()


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
    return d + np.zeros_like(a)


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
def loss_differences(spec: NetworkSpec, z: FloatArray, dz: FloatArray, t: FloatArray) -> FloatArray:
    """Return the change of each row's loss, shape (batch,), when the last layer's units z change by dz."""
    soft = spec.output == Output.SOFTMAX
    y, dy = (softmax(z), softmax_difference(z, dz)) if soft else (z, dz)
    if spec.loss == Loss.MEAN_SQUARED_ERROR:
        errors: FloatArray = (dy * (y - t + dy / 2)).sum(axis=1)
        return errors
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
def cross_entropy_error(y: FloatArray, t: FloatArray | IntArray) -> float:
    if t.ndim == 1:
        losses = -np.log(y[np.arange(len(t)), t] + y.dtype.type(EPSILON))
    else:
        losses = -(t * np.log(y + y.dtype.type(EPSILON))).sum(axis=1)
    return float(losses.mean(dtype=np.float64))


@quietly
def mean_squared_error(y: FloatArray, t: FloatArray | IntArray) -> float:
    losses = 0.5 * ((y - target_rows(t, y)) ** 2).sum(axis=1)
    return float(losses.mean(dtype=np.float64))


@quietly
def loss_derivative(kind: Loss, y: FloatArray, t: FloatArray) -> FloatArray:
    """The derivative of each row's loss with respect to its answers y; all shapes (batch, classes)."""
    return -t / (y + y.dtype.type(EPSILON)) if kind == Loss.CROSS_ENTROPY else y - t


@quietly
def softmax_backward(y: FloatArray, dy: FloatArray) -> FloatArray:
    """The derivative with respect to x, where y = softmax(x), from `dy`, that with respect to y."""
    dx: FloatArray = y * (dy - (y * dy).sum(axis=1, keepdims=True))
    return dx


@quietly
def forward(spec: NetworkSpec, x: FloatArray) -> FloatArray:
    """Return the network's answer, shape (batch, classes)."""
    for weight, bias, kind, constant in spec.layers:
        x = x @ weight if bias is None else x @ weight + bias
        x = activation(kind, x, constant)
    return softmax(x) if spec.output == Output.SOFTMAX else x


@quietly
def penalty(spec: NetworkSpec) -> float:
    if spec.weight_decay == 0:
        return 0.0
    return 0.5 * spec.weight_decay * sum(float(np.sum(np.square(w, dtype=np.float64))) for w in spec.weights)


def with_decay(spec: NetworkSpec, gradient: FloatArray, weight: FloatArray) -> FloatArray:
    """Add to a weight's gradient that of the penalty: λW, by derivative and by central difference alike."""
    return gradient if spec.weight_decay == 0 else gradient + weight.dtype.type(spec.weight_decay) * weight


@quietly
def loss(spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray) -> float:
    return mean_loss(spec, forward(spec, x), t)


def mean_loss(spec: NetworkSpec, y: FloatArray, t: FloatArray | IntArray) -> float:
    """Return the loss of the answers y (batch, classes), including the penalty."""
    error = cross_entropy_error if spec.loss == Loss.CROSS_ENTROPY else mean_squared_error
    return error(y, t) + penalty(spec)


@quietly
def loss_and_gradient(spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray) -> tuple[float, list[FloatArray]]:
    """Return the loss and, by backprop, its gradient with respect to every array of ``spec.parameters``."""
    before, after = [], [x]  # each layer's units before and after its activation
    for weight, bias, kind, constant in spec.layers:
        a = after[-1] @ weight if bias is None else after[-1] @ weight + bias
        before.append(a)
        after.append(activation(kind, a, constant))
    y = softmax(after[-1]) if spec.output == Output.SOFTMAX else after[-1]

    dy = loss_derivative(spec.loss, y, target_rows(t, y))
    if spec.output == Output.SOFTMAX:
        dy = softmax_backward(y, dy)
    dz = dy / y.dtype.type(len(x))

    reversed_gradients: list[FloatArray] = []
    for layer in reversed(range(len(spec.weights))):
        weight, bias, kind, constant = spec.layers[layer]
        da = dz * activation_derivative(kind, before[layer], constant)
        if bias is not None:
            reversed_gradients.append(da.sum(axis=0))
        reversed_gradients.append(with_decay(spec, after[layer].T @ da, weight))
        dz = da @ weight.T
    return mean_loss(spec, y, t), reversed_gradients[::-1]


def gradient(spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray) -> list[FloatArray]:
    return loss_and_gradient(spec, x, t)[1]


@quietly
def loop(spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float, entries: IntArray) -> FloatArray:
    """Return the central difference at each of `entries`, flat indices into ``spec.parameters``.

    Each takes two full forward passes.
    """
    spec = spec.copy()
    ends = np.cumsum([p.size for p in spec.parameters])
    differences = np.empty(len(entries), dtype=spec.dtype)
    for k, entry in enumerate(entries):
        which = int(np.searchsorted(ends, entry, side="right"))
        parameter = spec.parameters[which].reshape(-1)
        at = int(entry - ends[which] + parameter.size)
        value = parameter[at]
        parameter[at] = value + spec.dtype.type(h)
        above = loss(spec, x, t)
        parameter[at] = value - spec.dtype.type(h)
        below = loss(spec, x, t)
        parameter[at] = value
        differences[k] = (above - below) / (2 * h)
    return differences


@quietly
def incremental(
    spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float
) -> tuple[list[FloatArray], Diagnostics]:
    """Return the central difference with respect to every parameter.

    Each perturbation is carried to the loss as an exact difference.
    """
    spec.check_differences()
    step, last = spec.dtype.type(h), len(spec.weights) - 1
    before, after = [], [x]
    for weight, bias, kind, constant in spec.layers:
        before.append(after[-1] @ weight if bias is None else after[-1] @ weight + bias)
        after.append(activation(kind, before[-1], constant))
    targets = target_rows(t, after[-1])
    kinked = [np.zeros(w.shape[1], dtype=bool) for w in spec.weights]
    evaluations = 0

    def change(layer: int, unit: int, d: FloatArray) -> FloatArray:
        """Return the change of each row's loss, shape (moves, batch), when a unit's pre-activation changes by `d`."""
        nonlocal evaluations
        evaluations += d.size
        moves, rows = len(d), d.ravel()

        def difference(at: int, a: FloatArray, da: FloatArray) -> FloatArray:
            kind = spec.activations[at]
            if kind in (Activation.STEP, Activation.RELU, Activation.LEAKY_RELU):
                kinked[layer][unit] |= ((a > 0) != (a + da > 0)).any()
            return activation_difference(kind, a, da, spec.constants[at])

        of_unit = difference(layer, np.tile(before[layer][:, unit], moves), rows)
        if layer == last:
            dz = np.zeros((len(rows), weight.shape[1]), dtype=spec.dtype)
            dz[:, unit] = of_unit
        else:
            da = of_unit[:, np.newaxis] * spec.weights[layer + 1][unit]
            for at in range(layer + 1, last + 1):
                dz = difference(at, np.tile(before[at], (moves, 1)), da)
                da = dz if at == last else dz @ spec.weights[at + 1]
        answers, wanted = (np.tile(rows, (moves, 1)) for rows in (after[-1], targets))
        return loss_differences(spec, answers, dz, wanted).reshape(moves, -1)

    gradients: list[FloatArray] = []
    moves = max(1, ROWS_AT_ONCE // len(x))
    for layer, (weight, bias) in enumerate(zip(spec.weights, spec.biases, strict=True)):
        inputs = after[layer] if bias is None else np.column_stack([after[layer], np.ones_like(x[:, 0])])
        differences = np.empty((inputs.shape[1], weight.shape[1]), dtype=spec.dtype)
        for unit in range(weight.shape[1]):
            for first in range(0, inputs.shape[1], moves):
                d = step * inputs[:, first : first + moves].T
                changes = change(layer, unit, d) - change(layer, unit, -d)
                differences[first : first + moves, unit] = changes.mean(axis=1, dtype=np.float64) / (2 * float(step))
        gradients.append(with_decay(spec, differences[: len(weight)], weight))
        if bias is not None:
            gradients.append(differences[-1])
    base = loss(spec, x, t)
    if not np.isfinite(base):  # The difference of two such losses is not finite either.
        gradients = [np.full_like(g, np.nan) for g in gradients]
    return gradients, Diagnostics(base, evaluations, kinked=tuple(kinked))


def get_num_threads() -> int:
    return 1


def set_num_threads(count: int) -> None:
    """Do nothing: this backend's own code has one thread, and NumPy's matrix product keeps its own setting."""
