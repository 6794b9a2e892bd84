"""The loss of a network of stages in long double, by the stages' definitions: what its differences are judged by."""

from __future__ import annotations

from dataclasses import replace

import numpy as np

import oracle
from bounded import Bounded
from fastnet.backends._numpy.stage_kinds import mask_of
from fastnet.backends.spec import Loss, Output, StageKind

LONG = np.longdouble
NORM_EPSILON = LONG("1e-6")


def central_differences(spec, x, t, h, entries):
    """The central differences of the loss in training at `entries`, flat indices into ``spec.parameters``."""
    parameters = [p.astype(LONG) for p in spec.parameters]
    moving = iter(parameters)
    stages = [
        replace(stage, weight=None if stage.weight is None else next(moving))
        if stage.bias is None
        else replace(stage, weight=next(moving), bias=next(moving))
        for stage in spec.stages
    ]
    owners = [number for number, stage in enumerate(spec.stages) for p in (stage.weight, stage.bias) if p is not None]
    decayed = {id(weight) for weight in spec.weights}
    inputs = [x.astype(LONG)]
    for stage in stages:
        inputs.append(units(stage, inputs[-1], spec.dtype))
    ends, step = np.cumsum([p.size for p in parameters]), LONG(spec.dtype.type(h))

    def loss(first):
        z = inputs[first]
        for stage in stages[first:]:
            z = units(stage, z, spec.dtype)
        return loss_of(spec, z, t)

    found = []
    for entry in entries:
        which = int(np.searchsorted(ends, entry, side="right"))
        flat = parameters[which].reshape(-1)  # a view
        at = entry - ends[which] + flat.size
        value = flat[at]
        flat[at] = value + step
        above = loss(owners[which])
        flat[at] = value - step
        below = loss(owners[which])
        flat[at] = value
        decay = LONG(spec.weight_decay) if id(spec.parameters[which]) in decayed else LONG(0)
        found.append((above - below) / (2 * step) + decay * value)
    return np.array(found)


def units(stage, z, dtype):
    """What a stage gives in training for z, shape (rows, inputs)."""
    if stage.kind == StageKind.AFFINE:
        return z @ stage.weight + (0 if stage.bias is None else stage.bias)
    if stage.kind == StageKind.ACTIVATION:
        return oracle.activation_value(stage.activation, z, dtype.type(stage.constant))
    if stage.kind == StageKind.DROPOUT:
        return z * mask_of(stage, z.shape, dtype)
    if stage.kind == StageKind.BATCH_NORM:
        by_columns = z.reshape(len(z), -1, stage.positions)
        c = by_columns - by_columns.mean(axis=(0, 2), keepdims=True)
        normal = c / np.sqrt((c * c).mean(axis=(0, 2), keepdims=True) + NORM_EPSILON)
        return (stage.weight[:, np.newaxis] * normal + stage.bias[:, np.newaxis]).reshape(z.shape)
    w = stage.windows
    border = -np.inf if stage.kind == StageKind.MAX_POOLING else 0
    padded = np.pad(
        z.reshape(len(z), w.channels, w.height, w.width),
        ((0, 0), (0, 0), (w.pad_y,) * 2, (w.pad_x,) * 2),
        constant_values=border,
    )
    seen = np.lib.stride_tricks.sliding_window_view(padded, (w.window_height, w.window_width), axis=(2, 3))
    seen = seen[:, :, :: w.stride_y, :: w.stride_x]
    if stage.kind == StageKind.CONVOLUTION:
        y = np.einsum("nchwij,fcij->nfhw", seen, stage.weight)
        y = y if stage.bias is None else y + stage.bias[:, np.newaxis, np.newaxis]
    else:
        y = seen.max(axis=(4, 5)) if stage.kind == StageKind.MAX_POOLING else seen.mean(axis=(4, 5))
    return y.reshape(len(z), -1)


def loss_of(spec, z, t):
    """The mean loss of the last stage's units z, without the penalty."""
    if spec.output == Output.SOFTMAX:
        z = np.exp(z - z.max(axis=1, keepdims=True))
        z = z / z.sum(axis=1, keepdims=True)
    constant = spec.dtype.type(spec.loss_constant) if spec.loss == Loss.HUBER else 0
    return oracle.row_losses(spec.loss, Bounded.exact(z, "float64"), t, constant).value.mean()
