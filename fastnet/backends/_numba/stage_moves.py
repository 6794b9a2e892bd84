"""Differences through stages, all in float64: from moves of a stage's units to the change of each row's loss.

The moves of one perturbation, (units, rows), are those of some neighbouring units as long as no stage mixes these with
others, and then those of all units.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends._numba import activations, columns, losses, products, windows
from fastnet.backends._numba.elementary import LANES
from fastnet.backends._numba.jit import jit
from fastnet.backends._numba.losses import Answer
from fastnet.backends._numba.stage_network import Pass
from fastnet.backends.spec import Loss, Output, StageKind


class Base(NamedTuple):
    """What differences start from, besides the pass."""

    a: FloatArray  # (units, rows), flat as Pass.kept: what each activation took
    s: FloatArray  # likewise: what `activations.place` says of it
    c: FloatArray
    output: int
    loss: int
    loss_constant: float
    last: FloatArray  # (rows, classes): softmax's argument, or the answer itself
    y: FloatArray  # (rows, classes): the answer
    likeliest: IntArray  # (rows,): the class with the greatest answer
    labels: IntArray  # (rows,): the target's class, or -1 where `targets` counts
    targets: FloatArray  # (rows, classes), or (rows, 0) where all targets are labels
    h: float
    widest: int  # the most units that moves are of
    losses: FloatArray  # (rows,)
    far: int  # whether moves from any pre-activation, answer or loss may lose digits


class Work(NamedTuple):
    """A call's workspace."""

    now: FloatArray  # (units * rows,): moves of a stage's units
    then: FloatArray  # likewise: those of the next stage's
    pooled: FloatArray  # (2, rows)
    answers: FloatArray  # (rows, classes, LANES): moves of the answers, a lane for each perturbation
    soft: FloatArray  # (classes + 2, LANES)
    change: FloatArray  # (LANES,)
    crossed: IntArray  # (LANES,): whether a move took an answer across a kink of the loss


@jit(inline=True)
def new_work(base: Base, rows: int) -> Work:
    classes = base.y.shape[1]
    return Work(
        np.empty(base.widest * rows),
        np.empty(base.widest * rows),
        np.empty((2, rows)),
        np.zeros((rows, classes, LANES)),
        np.empty((classes + 2, LANES)),
        np.empty(LANES),
        np.zeros(LANES, np.int64),
    )


@jit(merge=True)
def _through_affine(at: Pass, number: int, first: int, units: int, now: FloatArray, then: FloatArray) -> None:
    stage = at.stages[number]
    weight = at.theta[stage.weights + first * stage.outputs : stage.biases]
    from_ = now[: units * at.rows].reshape((units, at.rows))
    to = then[: stage.outputs * at.rows].reshape((stage.outputs, at.rows))
    products.product(weight, products.ONE, stage.outputs, from_, to)


@jit(merge=True)
def _through_normed_affine(at: Pass, number: int, first: int, now: FloatArray, then: FloatArray) -> None:
    # The moves u (rows,) of one input of an affine stage through it and the batch normalisation after it. Those of unit
    # k are u w_k, so that one product, of the normalised values and e, the moves less their mean, gives all sums.
    affine, norm, rows = at.stages[number], at.stages[number + 1], at.rows
    e = now[:rows]
    mean = columns.sum_of(e) / rows
    for i in range(rows):
        e[i] -= mean
    square = columns.sum_of_products(e, 0.0, e, 0.0)
    for k in range(norm.outputs):
        w, gamma = at.theta[affine.weights + first * affine.outputs + k], at.theta[norm.weights + k]
        normal = at.kept[(norm.kept + k) * rows : (norm.kept + k + 1) * rows]
        of_move = columns.sum_of_products(e, 0.0, normal, 0.0)
        a, b = columns.factors(w * of_move, w * w * square, rows, at.inverse[norm.columns + k])
        a, b, to = gamma * w * a, gamma * b, then[k * rows : (k + 1) * rows]
        for i in range(rows):
            to[i] = e[i] * a + normal[i] * b


@jit(merge=True)
def _through_convolution(at: Pass, number: int, first: int, units: int, now: FloatArray, then: FloatArray) -> None:
    # Of the channels that the units are, without the bias.
    stage, rows = at.stages[number], at.rows
    image, inside = stage.height * stage.width, stage.window_height * stage.window_width
    filters = stage.outputs // stage.positions
    patch, to = np.empty((units // image * inside, rows)), np.empty((filters, rows))
    weight = at.theta[stage.weights + first // image * inside : stage.biases]
    for position in range(stage.positions):
        windows.gather_patch(stage, position, rows, now, patch)
        products.product(weight, stage.channels * inside, products.ONE, patch, to)
        for f in range(filters):
            out = then[(f * stage.positions + position) * rows :]
            for i in range(rows):
                out[i] = to[f, i]


@jit(merge=True)
def _through_activation(at: Pass, base: Base, number: int, first: int, moves: FloatArray) -> bool:
    # In place. Returns whether a unit changes the side of its kink.
    stage = at.stages[number]
    begin = (stage.kept + first) * at.rows
    a, crossed = base.a[begin : begin + moves.size], 0
    if activations.has_kink(stage.activation, stage.constant):
        for i in range(moves.size):
            crossed |= 1 if (a[i] > 0) != (a[i] + moves[i] > 0) else 0
    s, c = base.s[begin : begin + moves.size], base.c[begin : begin + moves.size]
    flat = moves.reshape((1, moves.size))
    if base.far:
        for i in range(moves.size):
            moves[i] = np.nan if activations.loses_digits(a[i], moves[i]) else moves[i]
    activations.differ(stage.activation, stage.constant, activations.ANY_MOVE, a, s, c, flat)
    return crossed != 0


@jit()
def carry(at: Pass, base: Base, number: int, first: int, units: int, lane: int, work: Work) -> bool:
    # Carries moves of neighbouring units of a stage, in work.now, to the answers: a lane of work.answers. Returns
    # whether they met a kink.
    now, then, rows, depth, kinked, skip = work.now, work.then, at.rows, len(at.stages), False, -1
    for later in range(number + 1, depth):
        stage, kind, moves = at.stages[later], at.stages[later].kind, now[: units * rows]
        if later == skip:
            continue
        together = 1
        if kind == StageKind.BATCH_NORM:
            together = stage.positions
        elif kind != StageKind.AFFINE and kind != StageKind.ACTIVATION and kind != StageKind.DROPOUT:
            together = stage.height * stage.width  # of a channel
        if first % together != 0 or units % together != 0:  # The stage would take apart what belongs together.
            all_moves = then[: stage.inputs * rows]
            all_moves[:] = 0
            for i in range(moves.size):
                all_moves[first * rows + i] = moves[i]
            now, then, first, units, moves = then, now, 0, stage.inputs, all_moves
        if kind == StageKind.ACTIVATION:
            kinked |= _through_activation(at, base, later, first, moves)
            continue
        if kind == StageKind.DROPOUT:
            mask = at.kept[(stage.kept + first) * rows :]
            for i in range(moves.size):
                moves[i] *= mask[i]
            continue
        if kind == StageKind.BATCH_NORM:
            size = stage.positions * rows
            for column in range(first // stage.positions, (first + units) // stage.positions):
                begin = column * size - first * rows
                normal = at.kept[stage.kept * rows + column * size : stage.kept * rows + (column + 1) * size]
                gamma = float(at.theta[stage.weights + column])
                columns.differ(moves[begin : begin + size], normal, at.inverse[stage.columns + column], gamma)
            continue
        if kind == StageKind.AFFINE or kind == StageKind.CONVOLUTION:
            following = min(later + 1, depth - 1)
            norm = at.stages[following]
            if kind == StageKind.CONVOLUTION:
                _through_convolution(at, later, first, units, now, then)
            elif units == 1 and following > later and norm.kind == StageKind.BATCH_NORM and norm.positions == 1:
                _through_normed_affine(at, later, first, now, then)
                skip = following
            else:
                _through_affine(at, later, first, units, now, then)
            first, units = 0, stage.outputs
        else:
            channels, image = units // together, (stage.source + first) * rows
            images = at.units[image : image + units * rows]
            for unit in range(channels * stage.positions):
                to = then[unit * rows : (unit + 1) * rows]
                if kind == StageKind.MAX_POOLING:
                    kinked |= windows.differ_max_pool(stage, unit, rows, images, now, to, work.pooled)
                else:
                    windows.average_pool(stage, unit, rows, now, to)
            first, units = first // together * stage.positions, channels * stage.positions
        now, then = then, now
    for i in range(rows):
        for k in range(base.y.shape[1]):
            moved = first <= k < first + units
            work.answers[i, k, lane] = now[(k - first) * rows + i] if moved else 0.0
    return kinked


@jit()
def change_losses(base: Base, row: int, work: Work) -> None:
    # work.answers -> work.change (LANES,), of the loss of a row, and work.crossed.
    of_row = Answer(base.last[row], base.y[row], base.likeliest[row], base.labels[row], base.targets[row])
    losses.loss_differences(
        base.output, base.loss, base.loss_constant, of_row, work.answers[row], work.soft, work.change
    )
    for k in range(base.y.shape[1] if base.far else 0):
        for lane in range(LANES):
            if activations.loses_digits(of_row.z[k], work.answers[row, k, lane]):
                work.change[lane] = np.nan
    for lane in range(LANES if base.far else 0):
        if activations.loses_digits(base.losses[row], work.change[lane]):
            work.change[lane] = np.nan
    if base.loss == Loss.ABSOLUTE_ERROR:
        for k in range(base.y.shape[1]):
            error = of_row.y[k] - losses.target_of(of_row, k)
            moves = work.soft[k] if base.output == Output.SOFTMAX else work.answers[row, k]
            for lane in range(LANES):
                work.crossed[lane] |= 1 if (error > 0) != (error + moves[lane] > 0) else 0
