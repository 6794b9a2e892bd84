"""Networks of the library's own layers, which the backend in use computes as a whole: a stage for each layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends import TrainingBackend, active
from fastnet.backends.spec import NetworkSpec, Output, StageKind
from fastnet.backends.training import Batches, GradientKind, Update
from fastnet.layers.losses import MeanLoss
from fastnet.networks import numerical
from fastnet.networks.computation import NumericalGradient
from fastnet.networks.layer_stages import flat, parameter_names, stages_of, state_for_stages
from fastnet.networks.layerwise import Layerwise, State


class Staged(Layerwise):
    """A network of stages: what `Layerwise` computes, computed by the backend."""

    def __init__(self, *arguments: Any, output: Output, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.output = output

    def spec(self, rows: FloatArray, params: Mapping[str, FloatArray], state: State) -> NetworkSpec | None:
        """The stages for such rows; None where shapes do not fit, which the layers themselves report."""
        found = stages_of(self.layers, rows.shape[1:], params, state, self.dtype)
        if found is None or len(found[1]) != 1:
            return None
        assert isinstance(self.last, MeanLoss)
        return NetworkSpec(found[0], self.output, self.last.kind, self.dtype, self.last.constant, self.weight_decay)

    def spec_of(self, rows: FloatArray) -> NetworkSpec | None:
        return self.spec(rows, self.params, self.copied_state(self.state))

    def repeated(self, rows: FloatArray) -> NetworkSpec | None:
        """The stages of the pass that a numerical gradient repeats, with a state of their own."""
        return self.spec(rows, self.params, self.copied_state(self.last_pass.start(self.state)))

    def copied_state(self, state: State) -> State:
        """Copies that a training pass can change in place, statistics in the dtype of the parameters."""
        return state_for_stages(state, self.dtype)

    def _keep(self, before: State, after: State) -> None:
        self.last_pass.before, self.last_pass.after = before, after
        self.state.update(after)

    def forward(self, rows: FloatArray) -> FloatArray:
        spec = self.spec_of(rows)
        if spec is None:
            return super().forward(rows)
        return active().forward(spec, flat(rows))

    def loss(self, rows: FloatArray, t: FloatArray | IntArray) -> float:
        spec = self.spec_of(rows)
        if spec is None:
            return super().loss(rows, t)
        return active().loss(spec, flat(rows), t)

    def training_loss(self, rows: FloatArray, t: FloatArray | IntArray) -> float:
        after = self.copied_state(self.state)
        spec = self.spec(rows, self.params, after)
        if spec is None:
            return super().training_loss(rows, t)
        loss = active().loss(spec, flat(rows), t, training=True, counts=True)
        self._keep(dict(self.state), after)
        return loss

    def _pass(
        self, rows: FloatArray, t: FloatArray | IntArray, *, inputs: bool
    ) -> tuple[float, dict[str, FloatArray], Any]:
        after = self.copied_state(self.state)
        spec = self.spec(rows, self.params, after)
        if spec is None:
            return super()._pass(rows, t, inputs=inputs)
        loss, gradients, d = active().loss_and_gradient(spec, flat(rows), t, inputs)
        self._keep(dict(self.state), after)
        return loss, self.named(gradients), None if d is None else d.reshape(rows.shape)

    @property
    def names(self) -> list[str]:
        """The names of ``spec.parameters`` in `params`."""
        return parameter_names(self.layers)

    def default_step(self, algorithm: str) -> float:
        return super().default_step(algorithm) if numerical.as_algorithm(algorithm) == "loop" else 1e-4

    def named(self, arrays: Sequence[FloatArray]) -> dict[str, FloatArray]:
        found = dict(zip(self.names, arrays, strict=True))
        return {name: found[name] for name in self.params}

    def numerical_gradient(
        self, rows: FloatArray, t: FloatArray | IntArray, h: float, algorithm: str, names: Sequence[str]
    ) -> NumericalGradient:
        spec = self.repeated(rows)
        if spec is None:
            return super().numerical_gradient(rows, t, h, algorithm, names)
        return numerical.numerical_gradient(spec, self.names, flat(rows), t, h, algorithm, names)

    def numerical_input_gradient(
        self, rows: FloatArray, t: FloatArray | IntArray, h: float, algorithm: str
    ) -> FloatArray:
        spec = self.repeated(rows)
        if spec is None:
            return super().numerical_input_gradient(rows, t, h, algorithm)
        return numerical.numerical_input_gradient(spec, flat(rows), t, h, algorithm).reshape(rows.shape)

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
            backend.train(spec, batches, gradient, h, update, losses, done, spec_before)
        finally:
            if done[0]:
                self._keep(before, after)


def describe_stages(spec: NetworkSpec) -> str:
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
