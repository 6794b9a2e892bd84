"""A network of stages as the kernels see it, and one pass of a batch through it: the same types whatever its depth.

Units lie one after the other, each with its number in every row of the batch: a unit, a column and an image's channel
are contiguous, and all loops over rows vectorise. Threads share out units, which nothing couples but a mixing stage.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from fastnet._tools.types import FloatArray
from fastnet.backends._numba import threads
from fastnet.backends._numba.jit import plain
from fastnet.backends.spec import NetworkSpec, Stage, StageKind, Windows

PARTS = 16  # of a convolution's positions, whose shares of the gradient are added in one order

_PLACES = ("kind", "inputs", "outputs", "weights", "biases", "end", "source", "units", "kept", "columns", "positions")
_WINDOWS = (*Windows.__slots__, "out_height", "out_width")

# A stage, by names. `weights`, `biases` and `end` are places in `Pass.theta`; `source` and `units` say where its input
# and its output begin in `Pass.units`, in units; `kept` likewise in `Pass.kept`; `columns` in `Pass.mean`. A stage that
# changes its units where they are has the same source as units. `tasks` is how many parts threads may share its forward
# pass out in, each of some `products` for a row. `constant` is an activation's, or dropout's `scale`.
STAGE = np.dtype(
    (
        np.record,
        [(name, np.int64) for name in (*_PLACES, "activation", *_WINDOWS, "tasks")]
        + [("constant", np.float64), ("products", np.float64)],
    )
)


class Pass(NamedTuple):
    """A batch on its way through the stages."""

    theta: FloatArray  # every parameter, in the order of NetworkSpec.parameters
    stages: Any  # (depth,) records: STAGE
    rows: int
    training: bool
    units: FloatArray  # (units, rows), flat: x, and what each stage gives
    kept: FloatArray  # (units, rows), flat: dropout's masks, normalised values, and activations' slopes if `slopes`
    slopes: bool
    mean: FloatArray  # (columns,) of batch normalisations, float64
    variance: FloatArray  # (columns,), float64
    inverse: FloatArray  # (columns,): 1 / deviation, float64


class Layout(NamedTuple):
    """Where the stages of a network keep what they have."""

    stages: Any  # (depth,) records: STAGE
    units: int
    kept: int
    columns: int


def layout(spec: NetworkSpec) -> Layout:
    return _layout(tuple(_described(stage, spec.dtype) for stage in spec.stages))


def _described(stage: Stage, dtype: Any) -> tuple[Any, ...]:
    constant = float(dtype.type(stage.scale if stage.kind == StageKind.DROPOUT else stage.constant))
    sizes = tuple(0 if p is None else p.size for p in (stage.weight, stage.bias))
    fixed = stage.kind, stage.inputs, stage.outputs, stage.activation, stage.positions
    return *fixed, constant, *sizes, stage.windows


@lru_cache(maxsize=16)
def _layout(described: tuple[tuple[Any, ...], ...]) -> Layout:
    stages = np.zeros(len(described), STAGE)
    parameters = kept = columns = source = 0
    end = described[0][1]
    for record, (kind, inputs, outputs, activation, positions, constant, weight, bias, windows) in zip(
        stages, described, strict=True
    ):
        keeps = kind in (StageKind.ACTIVATION, StageKind.DROPOUT, StageKind.BATCH_NORM)
        tasks, products = outputs, 4 * threads.UNIT_PRODUCTS if kind == StageKind.ACTIVATION else 20
        if windows is not None:
            for name in _WINDOWS:
                record[name] = getattr(windows, name)
            positions = windows.positions
            products = 4 * windows.window_height * windows.window_width
        if kind == StageKind.AFFINE:
            products = inputs
        elif kind == StageKind.CONVOLUTION:
            tasks, products = positions, weight
        elif kind == StageKind.BATCH_NORM:
            tasks, products = outputs // positions, 20 * positions
        record["kind"], record["inputs"], record["outputs"], record["activation"] = kind, inputs, outputs, activation
        record["positions"], record["constant"] = positions, constant
        record["weights"], record["biases"], record["end"] = parameters, parameters + weight, parameters + weight + bias
        record["tasks"], record["products"] = tasks, products
        record["source"], record["columns"], record["kept"] = source, columns, kept
        if not keeps:
            source, end = end, end + outputs
        record["units"] = source
        parameters += weight + bias
        kept += outputs if keeps else 0
        columns += outputs // positions if kind == StageKind.BATCH_NORM else 0
    return Layout(stages, end, kept, columns)


def new_pass(spec: NetworkSpec, x: FloatArray, training: bool, slopes: bool, masks: list[FloatArray]) -> Pass:
    """Return a pass of rows x, shape (batch, inputs), that is still to be made.

    `masks` are those of the dropout stages in training, shape (batch, units). It has the dtype of `x`.
    """
    place, rows, rest = layout(spec), len(x), iter(masks)
    units = np.empty(place.units * rows, x.dtype)
    units[: x.size].reshape(x.shape[::-1])[:] = x.T
    kept = np.empty(place.kept * rows if training else 0, x.dtype)
    mean, variance, inverse = np.zeros(place.columns), np.zeros(place.columns), np.zeros(place.columns)
    for stage, record in zip(spec.stages, place.stages, strict=True):
        if stage.kind == StageKind.DROPOUT and training:
            mask = next(rest)
            kept[record["kept"] * rows :][: mask.size].reshape(mask.shape[::-1])[:] = mask.T
        elif stage.kind == StageKind.BATCH_NORM and not training:
            at = slice(record["columns"], record["columns"] + stage.outputs // stage.positions)
            mean[at], variance[at] = stage.running_mean, stage.running_var
            inverse[at] = 1 / np.sqrt(variance[at] + NORM_EPSILON)
    theta = NetworkSpec.flatten(spec.parameters) if spec.parameters else np.empty(0, x.dtype)
    return Pass(
        plain(theta.astype(x.dtype, copy=False)),
        place.stages,
        rows,
        training,
        units,
        kept,
        slopes,
        mean,
        variance,
        inverse,
    )


NORM_EPSILON = 1e-6  # Added to the variance, so that a constant column is not divided by 0.
