"""Networks of stages: a pass through them, backprop, and the numerical gradient by `loop` and by exact differences."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends._numpy.chain import penalty, with_decay
from fastnet.backends._numpy.functions import (
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
from fastnet.backends._numpy.stage_kinds import KINDS, ParameterStep, Step
from fastnet.backends.spec import Diagnostics, Loss, NetworkSpec, Output, StageKind

NUMBERS_AT_ONCE = 2**20  # in the moves that go through a stage together: 8 MB in float64


def run(spec: NetworkSpec, x: FloatArray, training: bool, first: int = 0) -> list[Step]:
    """Take rows x, shape (batch, inputs of stage `first`), through all stages from there on; keep what each does."""
    steps: list[Step] = []
    for stage in spec.stages[first:]:
        steps.append(KINDS[stage.kind](stage, steps[-1].y if steps else x, training))
    return steps


def count_pass(spec: NetworkSpec, moments: dict[int, tuple[FloatArray, FloatArray]]) -> None:
    """Change the state in place as a training pass does; `moments` are each batch normalisation's, by its number.

    The running statistics are averages of those of all passes, with weights that forget old passes at the rate of
    `momentum` and sum to 1. Given statistics are an average of infinitely many passes.
    """
    for number, stage in enumerate(spec.stages):
        if stage.kind == StageKind.DROPOUT and stage.random is not None:
            stage.random[2] += np.uint64(1)
        elif stage.kind == StageKind.BATCH_NORM and stage.running_mean is not None and stage.running_var is not None:
            share = 1 - stage.momentum
            if stage.passes is not None:
                stage.passes[0] += 1
                passes = int(stage.passes[0])
                share = share / (1 - stage.momentum**passes) if stage.momentum < 1 else 1 / passes
            for running, now in zip((stage.running_mean, stage.running_var), moments[number], strict=True):
                before = running.astype(np.float64)
                running[:] = before + share * (now - before)


def _moments(steps: list[Step]) -> dict[int, tuple[FloatArray, FloatArray]]:
    return {number: step.moments for number, step in enumerate(steps) if step.moments is not None}


def _answer(spec: NetworkSpec, steps: list[Step]) -> FloatArray:
    return softmax(steps[-1].y) if spec.output == Output.SOFTMAX else steps[-1].y


def _loss(spec: NetworkSpec, steps: list[Step], t: FloatArray | IntArray) -> float:
    return mean_loss(spec.loss, _answer(spec, steps), t, spec.loss_constant) + penalty(spec)


@quietly
def forward(spec: NetworkSpec, x: FloatArray) -> FloatArray:
    """Return the network's answer in inference, shape (batch, classes)."""
    return _answer(spec, run(spec, x, training=False))


@quietly
def loss(spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, training: bool, counts: bool) -> float:
    """Return the loss in training or inference; `counts` says whether a training pass changes the state."""
    steps = run(spec, x, training)
    if training and counts:
        count_pass(spec, _moments(steps))
    return _loss(spec, steps, t)


@quietly
def loss_and_gradient(
    spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, inputs: bool
) -> tuple[float, list[FloatArray], FloatArray | None]:
    """Return the loss of a training pass that counts, its gradient by backprop, and that with respect to `x`."""
    steps = run(spec, x, training=True)
    count_pass(spec, _moments(steps))
    y = _answer(spec, steps)
    d = loss_derivative(spec.loss, y, target_rows(t, y), spec.loss_constant)
    d = (softmax_backward(y, d) if spec.output == Output.SOFTMAX else d) / y.dtype.type(len(x))
    return _loss(spec, steps, t), *_backward(spec, steps, d, inputs)


def _backward(
    spec: NetworkSpec, steps: list[Step], d: FloatArray, inputs: bool
) -> tuple[list[FloatArray], FloatArray | None]:
    gradients: list[FloatArray] = []
    for step in reversed(steps):
        d, of_stage = step.backward(d)
        gradients = of_stage + gradients
    return with_decays(spec, gradients), d if inputs else None


@quietly
def units(spec: NetworkSpec, x: FloatArray, counts: bool) -> FloatArray:
    """Return the last stage's units in training, shape (batch, classes)."""
    steps = run(spec, x, training=True)
    if counts:
        count_pass(spec, _moments(steps))
    return steps[-1].y


@quietly
def backward(
    spec: NetworkSpec, x: FloatArray, d: FloatArray, inputs: bool
) -> tuple[list[FloatArray], FloatArray | None]:
    """Return the gradient of a function of the last stage's units, whose derivative with respect to them is `d`."""
    return _backward(spec, run(spec, x, training=True), d, inputs)


def with_decays(spec: NetworkSpec, gradients: list[FloatArray]) -> list[FloatArray]:
    """Add to the gradients of weights that of the penalty."""
    decayed = {id(weight) for weight in spec.weights}
    pairs = zip(gradients, spec.parameters, strict=True)
    return [with_decay(spec, g, p) if id(p) in decayed else g for g, p in pairs]


@quietly
def loop(spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float, entries: IntArray) -> FloatArray:
    """Return the central differences of the loss in training for `entries`, flat indices into ``spec.parameters``.

    A pass starts at the stage that has the parameter, since those before it give the same as ever.
    """
    spec = spec.copy()
    parameters = spec.parameters
    inputs = [step.x for step in run(spec, x, training=True)]
    owners = [number for number, stage in enumerate(spec.stages) for p in (stage.weight, stage.bias) if p is not None]
    ends = np.cumsum([p.size for p in parameters])
    differences = np.empty(len(entries), spec.dtype)
    for k, entry in enumerate(entries):
        which = int(np.searchsorted(ends, entry, side="right"))
        first = owners[which]
        flat = parameters[which].reshape(-1)  # a view
        at = int(entry - ends[which] + flat.size)
        value = flat[at]
        flat[at] = value + spec.dtype.type(h)
        above = _loss(spec, run(spec, inputs[first], True, first), t)
        flat[at] = value - spec.dtype.type(h)
        below = _loss(spec, run(spec, inputs[first], True, first), t)
        flat[at] = value
        differences[k] = (above - below) / (2 * h)
    return differences


@quietly
def incremental(
    spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float
) -> tuple[list[FloatArray], Diagnostics]:
    """Return the central difference with respect to every parameter, each moved by itself."""
    spec.check_differences()
    steps = run(spec, x, training=True)
    targets, size = target_rows(t, steps[-1].y), float(spec.dtype.type(h))
    gradients, kinks, evaluations = [], [], 0
    losses = row_losses(spec, steps[-1].y, targets)
    widest = max(stage.outputs for stage in spec.stages)
    at_once = max(1, NUMBERS_AT_ONCE // (widest * len(x)))

    def changes(number: int, moves: FloatArray, first: int) -> tuple[FloatArray, npt.NDArray[np.bool_]]:
        # The changes of the loss, shape (moves,), when the units of a stage move, and whether a move met a kink.
        nonlocal evaluations
        evaluations += len(moves) * len(x)
        kinked = np.zeros(len(moves), bool)
        for step in steps[number + 1 :]:
            moves, first, met = step.differ(moves, first)
            kinked |= met
        dz = spread(moves, first, spec.classes).reshape(-1, spec.classes)
        z, wanted = (np.tile(rows, (len(moves), 1)) for rows in (steps[-1].y, targets))
        if spec.loss == Loss.ABSOLUTE_ERROR:
            soft = spec.output == Output.SOFTMAX
            error, dy = (softmax(z) if soft else z) - wanted, softmax_difference(z, dz) if soft else dz
            kinked |= ((error > 0) != (error + dy > 0)).reshape(len(moves), -1).any(axis=1)
        of_rows = loss_differences(spec, z, dz, wanted)
        of_rows[loses_digits(z, dz).any(axis=1) | loses_digits(np.tile(losses, len(moves)), of_rows)] = np.nan
        of_rows = of_rows.reshape(len(moves), -1)
        return of_rows.mean(axis=1, dtype=np.float64), kinked

    for number, step in enumerate(steps):
        if not isinstance(step, ParameterStep):
            continue
        count = step.weights_of_column + (len(step.parameters) - 1)
        found = np.empty((step.columns, count), spec.dtype)
        met = np.zeros((step.columns, count), bool)
        for column in range(step.columns):
            for k in range(0, count, at_once):
                part = slice(k, min(k + at_once, count))
                moves, first = step.own_moves(column, part)
                above, kinked_above = changes(number, spec.dtype.type(h) * moves, first)
                below, kinked_below = changes(number, -spec.dtype.type(h) * moves, first)
                found[column, part] = (above - below) / (2 * size)
                met[column, part] = kinked_above | kinked_below
        gradients += step.as_parameters(found)
        kinks += step.as_parameters(met)
    gradients, base = with_decays(spec, gradients), _loss(spec, steps, t)
    if np.isfinite(base):
        gradients = replace_lost(gradients, lambda lost: loop(spec, x, t, size, lost))
    met_kinks = sum(int(k.sum()) for k in kinks)
    return gradients, Diagnostics(base, evaluations, 0, met_kinks, tuple(kinks))


def spread(moves: FloatArray, first: int, units: int) -> FloatArray:
    """Moves of some neighbouring units as moves of all."""
    every = np.zeros((*moves.shape[:-1], units), moves.dtype)
    every[..., first : first + moves.shape[-1]] = moves
    return every
