"""Stages for the tests, a batch for them, and how far two gradients are apart."""

from __future__ import annotations

import numpy as np

from fastnet.backends.spec import Activation, Stage, StageKind

ROWS = 6


def differences(backend, spec, x, t, h, nodal=True):
    """The gradient and its diagnostics by `nodal`, which the reference has not, or by `incremental`."""
    compute = backend.nodal if nodal and "nodal" in backend.algorithms else backend.incremental
    return compute(spec, x, t, h)


def affine(rng, inputs, outputs, dtype="float64", bias=True):
    weight = (rng.standard_normal((inputs, outputs)) / inputs**0.5).astype(dtype)
    b = rng.standard_normal(outputs).astype(dtype) if bias else None
    return Stage(StageKind.AFFINE, inputs, outputs, weight=weight, bias=b)


def activation(units, kind=Activation.TANH, constant=0.0):
    return Stage(StageKind.ACTIVATION, units, units, activation=kind, constant=constant)


def batch_norm(rng, units, positions=1, dtype="float64"):
    columns = units // positions
    return Stage(
        StageKind.BATCH_NORM,
        units,
        units,
        weight=(1 + 0.3 * rng.standard_normal(columns)).astype(dtype),
        bias=rng.standard_normal(columns).astype(dtype),
        positions=positions,
        running_mean=np.zeros(columns, dtype),
        running_var=np.ones(columns, dtype),
        passes=np.zeros(1, np.int64),
    )


def dropout(units, ratio=0.3):
    return Stage(StageKind.DROPOUT, units, units, ratio=ratio, random=np.array([3, 4, 0], np.uint64))


def convolution(rng, windows, filters, dtype="float64", bias=True):
    shape = (filters, windows.channels, windows.window_height, windows.window_width)
    weight = (rng.standard_normal(shape) / np.prod(shape[1:]) ** 0.5).astype(dtype)
    b = rng.standard_normal(filters).astype(dtype) if bias else None
    inputs = windows.channels * windows.height * windows.width
    return Stage(StageKind.CONVOLUTION, inputs, filters * windows.positions, weight=weight, bias=b, windows=windows)


def pooling(kind, windows):
    inputs = windows.channels * windows.height * windows.width
    return Stage(kind, inputs, windows.channels * windows.positions, windows=windows)


def batch(rng, inputs, dtype="float64", rows=ROWS, classes=3):
    return rng.standard_normal((rows, inputs)).astype(dtype), np.arange(rows) % classes


def largest_of(gradients):
    return max(float(np.abs(g).max()) for g in gradients)


def off(found, expected):
    """The greatest difference, relative to the greatest entry of all."""
    return largest_of([a - b for a, b in zip(found, expected, strict=True)]) / largest_of(expected)
