"""Networks of the library's own layers, which the backend in use computes as a whole: a stage for each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np

from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends import StageBackend, TrainingBackend, active
from fastnet.backends.spec import Batches, Diagnostics, GradientKind, Output, Update
from fastnet.backends.stages import Stage, StageKind, StageSpec
from fastnet.layers.losses import MeanLoss
from fastnet.networks.chain import ROWS_AT_ONCE, as_algorithm
from fastnet.networks.computation import NumericalGradient
from fastnet.networks.layer_stages import flat, parameter_names, stages_of, state_for_stages
from fastnet.networks.layerwise import Layerwise, State


class Staged(Layerwise):
    """A network of stages: what `Layerwise` computes, computed by the backend."""

    def __init__(self, *arguments: Any, output: Output, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.output = output

    def spec(self, rows: FloatArray, params: Mapping[str, FloatArray], state: State) -> StageSpec | None:
        """The stages for such rows; None where shapes do not fit, which the layers themselves report."""
        found = stages_of(self.layers, rows.shape[1:], params, state, self.dtype)
        if found is None or len(found[1]) != 1:
            return None
        assert isinstance(self.last, MeanLoss)
        return StageSpec(found[0], self.output, self.last.kind, self.dtype, self.last.constant, self.weight_decay)

    def spec_of(self, rows: FloatArray) -> StageSpec | None:
        """The stages for such rows with the present parameters and state; None where shapes do not fit."""
        return self.spec(rows, self.params, self.state)

    def repeated(self, rows: FloatArray) -> StageSpec | None:
        """The stages of the pass that a numerical gradient repeats, with a state of their own."""
        return self.spec(rows, self.params, self.copied_state(self.last_pass.start(self.state)))

    def copied_state(self, state: State) -> State:
        """Copies that a training pass can change in place, statistics in the dtype of the parameters."""
        return state_for_stages(state, self.dtype)

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

    def _pass(
        self, rows: FloatArray, t: FloatArray | IntArray, *, inputs: bool
    ) -> tuple[float, dict[str, FloatArray], Any]:
        after = self.copied_state(self.state)
        spec = self.spec(rows, self.params, after)
        if spec is None:
            return super()._pass(rows, t, inputs=inputs)
        loss, gradients, d = _backend().stage_loss_and_gradient(spec, flat(rows), t, inputs)
        self._keep(dict(self.state), after)
        return loss, self.named(gradients), None if d is None else d.reshape(rows.shape)

    @property
    def names(self) -> list[str]:
        """The names of ``spec.parameters`` in `params`."""
        return parameter_names(self.layers)

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
            return NumericalGradient({name: every[name] for name in names}, diagnostics, dict.fromkeys(names, chosen))
        backend, sizes = _backend(), [p.size for p in spec.parameters]
        ends = np.cumsum(sizes)
        places = {name: np.arange(end - size, end) for name, size, end in zip(self.names, sizes, ends, strict=True)}
        entries = np.concatenate([places[name] for name in names])
        found = np.split(
            backend.stage_loop(spec, flat(rows), t, h, entries), np.cumsum([len(places[n]) for n in names])
        )
        gradients = {name: part.reshape(self.params[name].shape) for name, part in zip(names, found[:-1], strict=True)}
        base = backend.stage_loss(spec, flat(rows), t, training=True, counts=False)
        diagnostics = Diagnostics(base, 2 * len(entries) * len(rows))
        return NumericalGradient(gradients, diagnostics, dict.fromkeys(names, chosen))

    def numerical_input_gradient(
        self, rows: FloatArray, t: FloatArray | IntArray, h: float, algorithm: str
    ) -> FloatArray:
        """The gradient with respect to `rows`, by differences with respect to the weights of another network.

        An affine stage whose inputs are the rows of the identity matrix has weights of shape (rows, units), and each
        row of them is what the next stage takes in that row. So the differences with respect to these weights are those
        with respect to what the next stage takes: `rows` themselves, or behind a first affine stage its units. Times
        the transpose of its weight, these are the differences with respect to `rows`, as in `Chain`. The loop moves
        each element of `rows`.
        """
        spec = self.repeated(rows)
        if spec is None:
            return super().numerical_input_gradient(rows, t, h, algorithm)
        backend, chosen, x = _backend(), as_algorithm(algorithm), flat(rows)
        first = spec.stages[0]
        weight = first.weight if first.kind == StageKind.AFFINE and chosen != "loop" else None
        # Batch normalisation couples the rows, and masks belong to places in the batch: only without, parts will do.
        coupled = any(stage.kind in (StageKind.BATCH_NORM, StageKind.DROPOUT) for stage in spec.stages)
        size = len(x) if coupled else ROWS_AT_ONCE
        found = np.empty_like(x)
        for start in range(0, len(x), size):
            part = slice(start, start + size)
            units = x[part]
            if weight is not None:
                units = backend.stage_forward(replace(spec, stages=(first,), output=Output.IDENTITY), units)
            stage = Stage(StageKind.AFFINE, units.shape[0], units.shape[1], weight=units)
            moved = replace(
                spec, stages=(stage, *(spec.stages if weight is None else spec.stages[1:])), weight_decay=0.0
            )
            eye = np.eye(len(units), dtype=self.dtype)
            if chosen == "loop":
                d = backend.stage_loop(moved, eye, t[part], h, np.arange(units.size)).reshape(units.shape)
            else:
                d = backend.stage_differences(moved, eye, t[part], h, chosen == "nodal")[0][0]
            found[part] = d if weight is None else active().matmul(d, weight, transpose_b=True)
            found[part] *= self.dtype.type(len(units) / len(x))
        return found.reshape(rows.shape)

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


def _backend() -> StageBackend:
    return cast(StageBackend, active())  # `Network` has asked for one
