"""Networks with layers of the library beside layers of one's own: each is computed as well as it can be."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends import active
from fastnet.backends.spec import Diagnostics, Loss, NetworkSpec, Output
from fastnet.layers import Affine, Flatten, Reshape
from fastnet.layers.activations import ActivationLayer
from fastnet.layers.base import as_gradient
from fastnet.layers.losses import MeanLoss
from fastnet.networks.computation import NumericalGradient
from fastnet.networks.layer_stages import (
    PARAMETERS,
    Shape,
    flat,
    is_stage,
    parameter_names,
    stages_of,
    state_for_stages,
)
from fastnet.networks.layerwise import Layerwise, NamedLayer, Part, State
from fastnet.networks.numerical import algorithms_of, as_algorithm, exact_differences


class StageRun:
    """Neighbouring layers of the library, which the backend computes as stages.

    It reads the arrays that the layers are bound to, as the layers themselves do. Where shapes do not fit, it calls the
    layers, which say so.
    """

    def __init__(self, layers: Sequence[NamedLayer], dtype: np.dtype[np.floating[Any]]) -> None:
        self.layers, self.dtype = layers, dtype
        self._last: tuple[FloatArray, State, Shape] | None = None  # of `forward` in training: x, state before, output

    def spec(self, shape: Shape, state: State) -> tuple[NetworkSpec, Shape] | None:
        """The stages for rows of this shape, with the present parameters, and the shape of the rows that come out."""
        params = {name: named.layer.params[own] for named in self.layers for own, name in named.params.items()}
        found = stages_of(self.layers, shape, params, state, self.dtype)
        if found is None:
            return None
        return NetworkSpec(found[0], Output.IDENTITY, Loss.MEAN_SQUARED_ERROR, self.dtype), found[1]

    def state(self) -> State:
        """The present state."""
        return {name: named.layer.state[own] for named in self.layers for own, name in named.state.items()}

    def forward(self, x: FloatArray, training: bool) -> FloatArray:
        self._last = None
        before = self.state()
        after = state_for_stages(before, self.dtype)
        found = self.spec(x.shape[1:], after)
        if found is None:
            for named in self.layers:
                x = named.forward(x, training)
            return x
        spec, shape = found
        if not training:
            return active().forward(spec, flat(x)).reshape(len(x), *shape)
        self._last = x, before, shape
        units = active().units(spec, flat(x), counts=True)
        for named in self.layers:
            named.layer.state = {own: after[name] for own, name in named.state.items()}
        return units.reshape(len(x), *shape)

    def backward(self, d: Any, inputs: bool) -> Any:
        if self._last is None:
            for named in reversed(self.layers):
                d = named.backward(d, inputs)
            return d
        x, before, shape = self._last
        found = self.spec(x.shape[1:], state_for_stages(before, self.dtype))
        assert found is not None
        given = as_gradient(d, (len(x), *shape), self.dtype)
        arrays, d_x = active().backward(found[0], flat(x), flat(given), inputs)
        rest = iter(arrays)
        for named in self.layers:
            named.layer.grads = {own: next(rest) for own in PARAMETERS if own in named.params}
        return None if d_x is None else d_x.reshape(x.shape)


class Mixed(Layerwise):
    """A network of runs of the library's layers, which the backend computes as stages, and of layers of one's own.

    Parameters behind the last layer of one's own have exact differences if the loss is the library's: what that layer
    gives is their batch. Those before it have the loop, since nothing is known of the layer's function.
    """

    def __init__(self, *arguments: Any, output: Output | None, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.output = output  # None with a loss of one's own

    def parts(self, first: int = 0, last: int | None = None) -> Sequence[Part]:
        found: list[Part] = []
        for staged, group in itertools.groupby(self.layers[first:last], is_stage):
            layers = list(group)
            found += [StageRun(layers, self.dtype)] if staged and _gains(layers) else layers
        return found

    @property
    def tail(self) -> int:
        """The first of the last layers that are all the library's, as the loss is; the number of layers if none is."""
        if self.output is None:
            return len(self.layers)
        return next((place for place in range(len(self.layers), 0, -1) if not is_stage(self.layers[place - 1])), 0)

    def default_step(self, algorithm: str) -> float:
        return 1e-4 if algorithm in ("nodal", "incremental") else super().default_step(algorithm)

    def numerical_gradient(
        self, rows: FloatArray, t: FloatArray | IntArray, h: float, algorithm: str, names: Sequence[str]
    ) -> NumericalGradient:
        chosen = as_algorithm(algorithm)
        known = [] if chosen == "loop" else parameter_names(self.layers[self.tail :])
        others = [name for name in names if name not in known]
        if others and algorithm not in ("auto", "loop"):
            own = f"the loss, {type(self.last).__name__}," if self.output is None else self.layers[self.tail - 1].label
            raise ValueError(
                f"algorithm {algorithm!r} is for layers and losses that the backend knows, and {', '.join(others)} "
                f"act through {own} which it does not know: 'auto' computes these by 'loop'"
            )
        exact = self._differences(rows, t, h, chosen) if len(others) < len(names) else None
        if exact is None:  # or the shapes do not fit, which the layers report
            return super().numerical_gradient(rows, t, h, "loop", names)
        found, of_tail, by = exact
        by_loop, loss = self.loop(rows, t, h, {name: np.arange(self.params[name].size) for name in others})
        found |= {name: values.reshape(self.params[name].shape) for name, values in by_loop.items()}
        evaluations = of_tail.evaluations + 2 * sum(self.params[name].size for name in others) * len(rows)
        return NumericalGradient(
            {name: found[name] for name in names},
            Diagnostics(loss, evaluations, of_tail.fallbacks, of_tail.kinks),
            {name: by.get(name, "loop") for name in names},
        )

    def _differences(
        self, rows: FloatArray, t: FloatArray | IntArray, h: float, algorithm: str
    ) -> tuple[dict[str, FloatArray], Diagnostics, dict[str, str]] | None:
        """The exact differences with respect to the parameters of the tail, and each one's algorithm.

        None where shapes do not fit.
        """
        assert isinstance(self.last, MeanLoss)
        assert self.output is not None
        layers = self.layers[self.tail :]
        with self._bound(self.params, self.last_pass.start(self.state)):
            x = rows.copy()  # in case a layer changes it
            for part in self.parts(0, self.tail):
                x = part.forward(x, training=True)
            run = StageRun(layers, self.dtype)
            made = run.spec(x.shape[1:], state_for_stages(run.state(), self.dtype))
        if made is None or len(made[1]) != 1:
            return None
        spec = replace(
            made[0],
            output=self.output,
            loss=self.last.kind,
            loss_constant=self.last.constant,
            weight_decay=self.weight_decay,
        )
        arrays, diagnostics = exact_differences(spec, flat(x), t, h, algorithm)
        tail = parameter_names(layers)
        by = dict(zip(tail, algorithms_of(spec, algorithm), strict=True))
        return dict(zip(tail, arrays, strict=True)), diagnostics, by


def _gains(layers: Sequence[NamedLayer]) -> bool:
    """Whether stages are faster than such layers: one of these kinds alone calls the backend by itself."""
    return len(layers) > 1 or not isinstance(layers[0].layer, (Affine, ActivationLayer, Flatten, Reshape))
