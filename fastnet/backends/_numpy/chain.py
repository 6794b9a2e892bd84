"""Chains: forward pass, backprop, and the numerical gradient by `loop` and `incremental`."""

from __future__ import annotations

import numpy as np

from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends._numpy.functions import (
    activation,
    activation_derivative,
    activation_difference,
    loses_digits,
    loss_derivative,
    loss_differences,
    mean_loss,
    quietly,
    replace_lost,
    row_losses,
    softmax,
    softmax_backward,
    softmax_difference,
    target_rows,
)
from fastnet.backends.spec import Diagnostics, Loss, NetworkSpec, Output, has_kink

ROWS_AT_ONCE = 4096  # that `incremental` computes with: they fit in the processor's cache


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
    return mean_loss(spec.loss, forward(spec, x), t, spec.loss_constant) + penalty(spec)


@quietly
def loss_and_gradient(spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray) -> tuple[float, list[FloatArray]]:
    """Return the loss and, by backprop, its gradient with respect to every array of ``spec.parameters``."""
    before, after = [], [x]  # each layer's units before and after its activation
    for weight, bias, kind, constant in spec.layers:
        a = after[-1] @ weight if bias is None else after[-1] @ weight + bias
        before.append(a)
        after.append(activation(kind, a, constant))
    y = softmax(after[-1]) if spec.output == Output.SOFTMAX else after[-1]

    dy = loss_derivative(spec.loss, y, target_rows(t, y), spec.loss_constant)
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
    loss = mean_loss(spec.loss, y, t, spec.loss_constant) + penalty(spec)
    return loss, reversed_gradients[::-1]


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
    losses = row_losses(spec, after[-1], targets)
    kinked = [np.zeros(w.shape[1], dtype=bool) for w in spec.weights]
    evaluations = 0

    def change(layer: int, unit: int, d: FloatArray) -> FloatArray:
        """Return the change of each row's loss, shape (moves, batch), when a unit's pre-activation changes by `d`."""
        nonlocal evaluations
        evaluations += d.size
        moves, rows = len(d), d.ravel()
        lost = np.zeros(len(rows), bool)

        def difference(at: int, a: FloatArray, da: FloatArray) -> FloatArray:
            nonlocal lost
            kind = spec.layers[at].activation
            lost |= loses_digits(a, da).reshape(len(rows), -1).any(axis=1)
            if has_kink(kind, spec.layers[at].constant):
                kinked[layer][unit] |= ((a > 0) != (a + da > 0)).any()
            return activation_difference(kind, a, da, spec.layers[at].constant)

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
        if spec.loss == Loss.ABSOLUTE_ERROR:
            soft = spec.output == Output.SOFTMAX
            y, dy = (softmax(answers), softmax_difference(answers, dz)) if soft else (answers, dz)
            kinked[layer][unit] |= ((y - wanted > 0) != (y - wanted + dy > 0)).any()
        changes = loss_differences(spec, answers, dz, wanted)
        lost |= loses_digits(answers, dz).any(axis=1) | loses_digits(np.tile(losses, moves), changes)
        return np.where(lost, changes.dtype.type(np.nan), changes).reshape(moves, -1)

    gradients: list[FloatArray] = []
    moves = max(1, ROWS_AT_ONCE // len(x))
    for layer, (weight, bias, *_) in enumerate(spec.layers):
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
    if np.isfinite(base):
        gradients = replace_lost(gradients, lambda lost: loop(spec, x, t, float(step), lost))
    if not np.isfinite(base):  # The difference of two such losses is not finite either.
        gradients = [np.full_like(g, np.nan) for g in gradients]
    return gradients, Diagnostics(base, evaluations, kinked=tuple(kinked))
