"""Networks of the library's own layers, which the backend in use computes as a whole: a stage for each layer."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from fastnet._tools import checks
from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends import StageBackend, TrainingBackend, active
from fastnet.backends.spec import Batches, Diagnostics, GradientKind, Output, Update
from fastnet.backends.stages import Stage, StageKind, StageSpec, Windows
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
from fastnet.layers.losses import MeanLoss
from fastnet.networks.chain import as_algorithm
from fastnet.networks.computation import NumericalGradient
from fastnet.networks.layerwise import Layerwise, NamedLayer, State
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
    MaxPooling: _pooling,
    Reshape: _reshape,
    **dict.fromkeys(KINDS, _activation),
}


def has_stages(layers: Sequence[NamedLayer]) -> bool:
    """Whether each of the layers is one of the library's that the kernels know, with no method of a subclass."""
    return all(
        type(named.layer) in STAGES and not overridden(named.layer, "forward", "backward", "branch") for named in layers
    )


class Staged(Layerwise):
    """A network of stages: what `Layerwise` computes, computed by the backend."""

    def __init__(self, *arguments: Any, output: Output, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.output = output

    def spec(self, rows: FloatArray, params: Mapping[str, FloatArray], state: State) -> StageSpec | None:
        """The stages for such rows; None where shapes do not fit, which the layers themselves report."""
        stages, shape = [], rows.shape[1:]
        for named in self.layers:
            arrays = {own: checks.as_floating(params[name], name, self.dtype) for own, name in named.params.items()}
            arrays |= {own: state[name] for own, name in named.state.items()}
            try:
                stage, shape = STAGES[type(named.layer)](named.layer, arrays, shape)
            except DoesNotFit:
                return None
            if stage is not None:
                stages.append(stage)
        if len(shape) != 1 or not stages:
            return None
        assert isinstance(self.last, MeanLoss)
        return StageSpec(tuple(stages), self.output, self.last.kind, self.dtype, self.last.constant, self.weight_decay)

    def spec_of(self, rows: FloatArray) -> StageSpec | None:
        """The stages for such rows with the present parameters and state; None where shapes do not fit."""
        return self.spec(rows, self.params, self.state)

    def repeated(self, rows: FloatArray) -> StageSpec | None:
        """The stages of the pass that a numerical gradient repeats, with a state of their own."""
        return self.spec(rows, self.params, self.copied_state(self.last_pass.start(self.state)))

    def copied_state(self, state: State) -> State:
        """Copies that a training pass can change in place, statistics in the dtype of the parameters."""
        return {
            name: np.array(array, self.dtype if array.dtype.kind == "f" else array.dtype.newbyteorder("="), order="C")
            for name, array in state.items()
        }

    def _keep(self, before: State, after: State) -> None:
        self.last_pass.before, self.last_pass.after = before, after
        self.state.update(after)

    def forward(self, rows: FloatArray) -> FloatArray:
        spec = self.spec(rows, self.params, self.copied_state(self.state))
        if spec is None:
            return super().forward(rows)
        return _backend().stage_forward(spec, flat(rows))

    def loss(self, rows: FloatArray, t: FloatArray | IntArray) -> float:
        spec = self.spec(rows, self.params, self.copied_state(self.state))
        if spec is None:
            return super().loss(rows, t)
        return _backend().stage_loss(spec, flat(rows), t, training=False, counts=False)

    def training_loss(self, rows: FloatArray, t: FloatArray | IntArray) -> float:
        after = self.copied_state(self.state)
        spec = self.spec(rows, self.params, after)
        if spec is None:
            return super().training_loss(rows, t)
        loss = _backend().stage_loss(spec, flat(rows), t, training=True, counts=True)
        self._keep(dict(self.state), after)
        return loss

    def _pass(self, rows: FloatArray, t: FloatArray | IntArray) -> tuple[float, dict[str, FloatArray], Any]:
        return self._backprop(rows, t, inputs=True)

    def loss_and_gradient(self, rows: FloatArray, t: FloatArray | IntArray) -> tuple[float, dict[str, FloatArray]]:
        return self._backprop(rows, t, inputs=False)[:2]

    def _backprop(
        self, rows: FloatArray, t: FloatArray | IntArray, *, inputs: bool
    ) -> tuple[float, dict[str, FloatArray], Any]:
        after = self.copied_state(self.state)
        spec = self.spec(rows, self.params, after)
        if spec is None:
            return super()._pass(rows, t)
        loss, gradients, d = _backend().stage_loss_and_gradient(spec, flat(rows), t, inputs)
        self._keep(dict(self.state), after)
        return loss, self.named(gradients), None if d is None else d.reshape(rows.shape)

    @property
    def names(self) -> list[str]:
        """The names of ``spec.parameters`` in `params`."""
        return [
            named.params[own] for named in self.layers for own in ("W", "gamma", "b", "beta") if own in named.params
        ]

    def default_step(self, algorithm: str) -> float:
        return super().default_step(algorithm) if as_algorithm(algorithm) == "loop" else 1e-4

    def named(self, arrays: Sequence[FloatArray]) -> dict[str, FloatArray]:
        found = dict(zip(self.names, arrays, strict=True))
        return {name: found[name] for name in self.params}

    def numerical_gradient(
        self, rows: FloatArray, t: FloatArray | IntArray, h: float, algorithm: str, names: Sequence[str]
    ) -> NumericalGradient:
        spec = self.repeated(rows)
        if spec is None:
            return super().numerical_gradient(rows, t, h, algorithm, names)
        chosen = as_algorithm(algorithm)
        if chosen != "loop":
            arrays, loss, evaluations, fallbacks, kinked = _backend().stage_differences(
                spec, flat(rows), t, h, chosen == "nodal"
            )
            every = self.named(arrays)
            diagnostics = Diagnostics(loss, evaluations, fallbacks, sum(int(k.sum()) for k in kinked))
            return NumericalGradient({name: every[name] for name in names}, diagnostics)
        backend, sizes = _backend(), [p.size for p in spec.parameters]
        ends = np.cumsum(sizes)
        places = {name: np.arange(end - size, end) for name, size, end in zip(self.names, sizes, ends, strict=True)}
        entries = np.concatenate([places[name] for name in names])
        found = np.split(
            backend.stage_loop(spec, flat(rows), t, h, entries), np.cumsum([len(places[n]) for n in names])
        )
        gradients = {name: part.reshape(self.params[name].shape) for name, part in zip(names, found[:-1], strict=True)}
        base = backend.stage_loss(spec, flat(rows), t, training=True, counts=False)
        return NumericalGradient(gradients, Diagnostics(base, 2 * len(entries) * len(rows)))

    def train(
        self,
        backend: TrainingBackend,
        rows: FloatArray,
        batches: Batches,
        gradient: GradientKind,
        h: float,
        update: Update,
        losses: FloatArray,
        done: IntArray,
    ) -> None:
        """Train with minibatches of `rows` inside the backend, as `TrainingBackend.train` describes it."""
        after, before = self.copied_state(self.state), self.copied_state(self.state)
        spec, spec_before = (self.spec(rows, self.params, state) for state in (after, before))
        assert spec is not None
        assert spec_before is not None
        try:
            backend.stage_train(spec, spec_before, batches, gradient, h, update, losses, done)
        finally:
            if done[0]:
                self._keep(before, after)


def describe_stages(spec: StageSpec) -> str:
    """The sizes of affine stages and convolutions, as in ``1×28×28-30×24×24-100-10``, and which other stages it has."""
    sizes, others = [str(spec.inputs)], []
    names = {
        StageKind.BATCH_NORM: "batch norm",
        StageKind.DROPOUT: "dropout",
        StageKind.MAX_POOLING: "max pooling",
        StageKind.AVERAGE_POOLING: "average pooling",
    }
    for stage in spec.stages:
        if stage.kind == StageKind.AFFINE:
            sizes.append(str(stage.outputs))
        elif stage.kind == StageKind.CONVOLUTION and stage.windows is not None:
            w = stage.windows
            if len(sizes) == 1:
                sizes = [f"{w.channels}×{w.height}×{w.width}"]
            sizes.append(f"{stage.outputs // w.positions}×{w.out_height}×{w.out_width}")
        elif stage.kind in names:
            others.append(names[stage.kind])
    with_others = f" ({', '.join(dict.fromkeys(others))})" if others else ""
    return "-".join(sizes) + with_others


def flat(rows: FloatArray) -> FloatArray:
    """The rows as (batch, units)."""
    return rows.reshape(len(rows), -1)


def _backend() -> StageBackend:
    backend = active()
    assert isinstance(backend, StageBackend)
    return backend
