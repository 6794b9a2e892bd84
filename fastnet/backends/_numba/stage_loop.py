"""`loop` of a network of stages: two full training passes for each perturbed parameter."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends._numba import losses, products
from fastnet.backends._numba.jit import borrowed, jit
from fastnet.backends._numba.stage_network import Pass
from fastnet.backends._numba.stage_pass import forward_stage
from fastnet.backends.spec import Output, StageKind


class Loop(NamedTuple):
    """What is perturbed, and what the loss is."""

    output: int
    loss: int
    loss_constant: float
    weight_decay: float
    labels: IntArray  # (batch,) or (0,)
    targets: FloatArray  # (0, 0) or (batch, classes)
    h: float
    entries: IntArray  # indices into Pass.theta
    differences: FloatArray  # (entries,): the result


@jit(merge=True)
def _mean_loss(loop: Loop, work: Pass, x: FloatArray, y: FloatArray) -> float:
    # The loss without its penalty; x (inputs * rows,) goes through, and y (batch, classes) is scratch.
    for i in range(x.size):
        work.units[i] = x[i]
    for number in range(len(work.stages)):
        forward_stage(products.ONE - products.ONE, work.stages[number].tasks, number, work)
    last = work.units[work.units.size - y.size :]
    for k in range(y.shape[1]):
        for i in range(y.shape[0]):
            y[i, k] = last[k * y.shape[0] + i]
    if loop.output == Output.SOFTMAX:
        losses.softmax(y, y)
    return losses.sum_losses(loop.loss, loop.loss_constant, y, loop.labels, loop.targets) / len(y)


@jit()
def perturb(begin: int, end: int, work: Pass, loop: Loop) -> None:
    # Elements begin to end of loop.differences.
    work, loop = borrowed(work), borrowed(loop)
    theta, step, h = work.theta.copy(), work.theta.dtype.type(loop.h), loop.h
    own = Pass(
        theta,
        work.stages,
        work.rows,
        work.training,
        work.units.copy(),
        work.kept.copy(),
        work.slopes,
        work.mean.copy(),
        work.variance.copy(),
        work.inverse.copy(),
    )
    x = work.units[: work.stages[0].inputs * work.rows]
    y = np.empty((work.rows, work.stages[-1].outputs), theta.dtype)
    for n in range(begin, end):
        entry = loop.entries[n]
        value, decay = theta[entry], 0.0
        for number in range(len(work.stages)):
            stage = work.stages[number]
            decays = loop.weight_decay != 0 and stage.kind != StageKind.BATCH_NORM
            if decays and stage.weights <= entry < stage.biases:
                decay = loop.weight_decay * float(value)  # of the penalty λ/2·w², exactly
        change = 0.0
        for side in range(2):
            theta[entry] = value + step if side == 0 else value - step
            loss = _mean_loss(loop, own, x, y)
            change = loss if side == 0 else change - loss
        theta[entry] = value
        loop.differences[n] = change / (2 * h) + decay
