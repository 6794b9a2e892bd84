"""Which stage each layer of the library is, where backends compute it as one."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeAlias

import numpy as np

from fastnet._tools import checks
from fastnet._tools.types import FloatArray
from fastnet.backends.spec import Stage, StageKind, Windows
from fastnet.layers import (
    Affine,
    AveragePooling,
    BatchNorm,
    Convolution,
    Dropout,
    Flatten,
    Layer,
    MaxPooling,
    Reshape,
)
from fastnet.layers.activations import KINDS
from fastnet.layers.dropout import GivenMask
from fastnet.networks.layerwise import NamedLayer, State
from fastnet.networks.overriding import overridden

Shape: TypeAlias = tuple[int, ...]  # of one row of a batch
Arrays: TypeAlias = Mapping[str, Any]  # a layer's params and state, by its own names
Made: TypeAlias = tuple[Stage | None, Shape]  # no stage where the units stay what they are


class DoesNotFit(Exception):  # noqa: N818 - not an error: the layers themselves say what is wrong
    """The shapes do not fit each other."""


def _affine(layer: Affine, arrays: Arrays, shape: Shape) -> Made:
    weight = arrays["W"]
    if len(shape) != 1 or shape[0] != weight.shape[0]:
        raise DoesNotFit
    outputs = weight.shape[1]
    return Stage(StageKind.AFFINE, shape[0], outputs, weight=weight, bias=arrays.get("b")), (outputs,)


def _activation(layer: Any, arrays: Arrays, shape: Shape) -> Made:
    units = math.prod(shape)
    return Stage(StageKind.ACTIVATION, units, units, activation=layer.kind, constant=layer.constant), shape


def _batch_norm(layer: BatchNorm, arrays: Arrays, shape: Shape) -> Made:
    columns, units = len(arrays["gamma"]), math.prod(shape)
    if len(shape) not in (1, 3) or shape[0] != columns:
        raise DoesNotFit
    stage = Stage(
        StageKind.BATCH_NORM,
        units,
        units,
        weight=arrays["gamma"],
        bias=arrays["beta"],
        running_mean=arrays["running_mean"],
        running_var=arrays["running_var"],
        positions=units // columns,
        passes=arrays.get("passes"),
        momentum=layer.momentum,
    )
    return stage, shape


def _dropout(layer: Dropout, arrays: Arrays, shape: Shape) -> Made:
    units = math.prod(shape)
    return Stage(StageKind.DROPOUT, units, units, ratio=layer.dropout_ratio, random=arrays["masks"]), shape


def _given_mask(layer: GivenMask, arrays: Arrays, shape: Shape) -> Made:
    units = math.prod(shape)
    if units != layer.units:
        raise DoesNotFit
    return Stage(StageKind.DROPOUT, units, units, mask=layer.mask, scale=layer.scale), shape


def _convolution(layer: Convolution, arrays: Arrays, shape: Shape) -> Made:
    weight = arrays["W"]
    filters, channels, *window = weight.shape
    if len(shape) != 3 or shape[0] != channels:
        raise DoesNotFit
    windows = _windows(shape, window, layer.stride, layer.pad)
    stage = Stage(
        StageKind.CONVOLUTION,
        math.prod(shape),
        filters * windows.positions,
        weight=weight,
        bias=arrays.get("b"),
        windows=windows,
    )
    return stage, (filters, windows.out_height, windows.out_width)


def _pooling(layer: MaxPooling | AveragePooling, arrays: Arrays, shape: Shape) -> Made:
    if len(shape) != 3:
        raise DoesNotFit
    kind = StageKind.MAX_POOLING if isinstance(layer, MaxPooling) else StageKind.AVERAGE_POOLING
    windows = _windows(shape, layer.window, layer.stride, layer.pad)
    stage = Stage(kind, math.prod(shape), shape[0] * windows.positions, windows=windows)
    return stage, (shape[0], windows.out_height, windows.out_width)


def _windows(shape: Shape, window: Sequence[int], stride: Sequence[int], pad: Sequence[int]) -> Windows:
    windows = Windows(*shape, *window, *stride, *pad)
    outside = any(p >= w for p, w in zip(pad, window, strict=True))  # the kernels have no windows in the border alone
    if outside or windows.out_height < 1 or windows.out_width < 1:
        raise DoesNotFit
    return windows


def _flatten(layer: Flatten, arrays: Arrays, shape: Shape) -> Made:
    return None, (math.prod(shape),)


def _reshape(layer: Reshape, arrays: Arrays, shape: Shape) -> Made:
    if shape not in (layer.shape, (math.prod(layer.shape),)):
        raise DoesNotFit
    return None, layer.shape


STAGES: dict[type[Layer], Callable[[Any, Arrays, Shape], Made]] = {
    Affine: _affine,
    AveragePooling: _pooling,
    BatchNorm: _batch_norm,
    Convolution: _convolution,
    Dropout: _dropout,
    Flatten: _flatten,
    GivenMask: _given_mask,
    MaxPooling: _pooling,
    Reshape: _reshape,
    **dict.fromkeys(KINDS, _activation),
}


PARAMETERS = ("W", "gamma", "b", "beta")  # a layer's own names of a stage's weight and bias, in the order of gradients


def is_stage(named: NamedLayer) -> bool:
    """Whether the layer is one of the library's that the kernels know, with no method of a subclass."""
    return type(named.layer) in STAGES and not overridden(named.layer, "forward", "backward", "branch")


def stages_of(
    layers: Sequence[NamedLayer],
    shape: Shape,
    params: Mapping[str, Any],
    state: State,
    dtype: np.dtype[np.floating[Any]],
) -> tuple[tuple[Stage, ...], Shape] | None:
    """The stages of layers that take rows of this shape, and the shape of the rows that come out.

    `state` has arrays of `dtype` and of integers that a training pass may change. None where there are no stages, or
    shapes do not fit, which the layers themselves report.
    """
    stages: list[Stage] = []
    for named in layers:
        arrays = {own: checks.as_floating(params[name], name, dtype) for own, name in named.params.items()}
        arrays |= {own: state[name] for own, name in named.state.items()}
        try:
            stage, shape = STAGES[type(named.layer)](named.layer, arrays, shape)
        except DoesNotFit:
            return None
        if stage is not None and stage.mask is not None:
            stage = replace(stage, mask=checks.as_floating(stage.mask, "a mask", dtype))
        if stage is not None:
            stages.append(stage)
    return (tuple(stages), shape) if stages else None


def parameter_names(layers: Sequence[NamedLayer]) -> list[str]:
    """The network's names of the parameters of such layers, in the order of ``NetworkSpec.parameters``."""
    return [named.params[own] for named in layers for own in PARAMETERS if own in named.params]


def state_for_stages(state: State, dtype: np.dtype[np.floating[Any]]) -> State:
    """Copies that a training pass of stages can change in place, statistics in the dtype of the parameters."""
    return {
        name: np.array(array, dtype if array.dtype.kind == "f" else array.dtype.newbyteorder("="), order="C")
        for name, array in state.items()
    }


def flat(rows: FloatArray) -> FloatArray:
    """The rows as (batch, units)."""
    return rows.reshape(len(rows), -1)
