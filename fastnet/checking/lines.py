"""Taylor remainders of a chain's loss, along lines on which the layers before a parameter are computed once."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple, Protocol

import numpy as np

from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends import active
from fastnet.backends.spec import NetworkSpec, Output, StageKind
from fastnet.differentiation.noise import SAMPLES, SPACING, deviation_of
from fastnet.networks.chain import Chain

EPS = float(np.finfo(np.float64).eps)


class Lines(Protocol):
    """A function along a line for each of its arrays."""

    def noise(self) -> float:
        """Return the standard deviation of the function's rounding errors."""

    def remainders(self, name: str, gradient: FloatArray, distances: list[float]) -> list[float]:
        """Return abs(f(x + s·p) − f(x) − s·g·p) for each distance s, and a random direction p in one array.

        `gradient` is that of the array `name`, flat.
        """


def direction_of(rng: np.random.Generator, size: int) -> FloatArray:
    """Return a random vector of length 1."""
    direction = rng.standard_normal(size)
    direction /= math.sqrt(inner(direction, direction))
    return direction


def inner(a: FloatArray, b: FloatArray) -> float:
    """Return the sum of a·b, in one thread: BLAS would wake its own for it."""
    return float(np.sum(a * b))


class _Line(NamedTuple):
    """A random direction p in one array, and how it moves the units of the layer that the array enters.

    Attributes
    ----------
    layer : int
    move : ndarray
        The units move by s·move.
    along : callable
        Takes an array like the one that is moved, and gives its inner product with p.
    """

    layer: int
    move: FloatArray
    along: Callable[[FloatArray], float]


class ChainLines:
    """The loss of a chain along lines, in float64.

    The units of a layer are linear in its weight, its bias and its inputs. So along a line they move by s times an
    array, and only what lies behind them is computed for each distance s.

    Parameters
    ----------
    chain : Chain
    rows, t : ndarray
        A batch as `Chain.batch` gives it.
    inputs : bool
        Whether the one array that can be moved is the rows, ``"x"``, instead of the parameters.
    """

    def __init__(self, chain: Chain, rows: FloatArray, t: FloatArray | IntArray, inputs: bool) -> None:
        self._spec = spec = chain.spec if chain.dtype == np.float64 else chain.in_float64_spec()
        self._t = t if t.ndim == 1 else t.astype(np.float64, copy=False)
        backend = active()
        self._inputs: list[FloatArray] = [rows.astype(np.float64, copy=False)]  # of each layer
        self._units: list[FloatArray] = []
        for weight, bias, kind, constant in spec.layers:
            units = backend.matmul(self._inputs[-1], weight)
            self._units.append(units if bias is None else backend.add_bias(units, bias))
            self._inputs.append(backend.activation(kind, self._units[-1], constant))
        starts = [k for k, stage in enumerate(spec.stages) if stage.kind == StageKind.AFFINE]
        behind = [replace(spec, stages=spec.stages[k:], weight_decay=0.0) for k in starts[1:]]
        self._behind: list[NetworkSpec | None] = [*behind, None]  # the layers behind each one
        owners = [(k, p) for k, layer in enumerate(spec.layers) for p in layer[:2] if p is not None]
        # The layer that each array enters, and the array.
        self._places = {"x": (0, self._inputs[0])} if inputs else dict(zip(chain.names, owners, strict=True))

    def noise(self) -> float:
        """Return the standard deviation of the loss's rounding errors, as a bias of the first layer moves.

        It is measured at points a few units in the last place of the layer's units apart, and is at least a quarter of
        the unit in the last place of the loss.
        """
        units = self._units[0]
        move = direction_of(np.random.default_rng(0), units.shape[1])
        spacing = SPACING * EPS * float(np.abs(units).max() / np.abs(move).max())
        steps = np.arange(SAMPLES) * (spacing if math.isfinite(spacing) else 0.0)
        values = np.array([self._loss(0, move, s) for s in steps.tolist()])
        return max(float(deviation_of(values)), 0.25 * EPS * abs(float(values[0])))

    def remainders(self, name: str, gradient: FloatArray, distances: list[float]) -> list[float]:
        """Return the remainders as `Lines` describes them."""
        line, array = self._line(name), self._places[name][1]
        slope, decay = line.along(gradient.reshape(array.shape)), 0.0
        if array is self._spec.layers[line.layer].weight and self._spec.weight_decay:
            # The penalty ½λ|W + sp|² has the slope λ·W·p, and |p| = 1.
            decay = self._spec.weight_decay
            slope -= decay * line.along(array)
        start, *values = [self._loss(line.layer, line.move, s) for s in (0.0, *distances)]
        penalties = [0.5 * decay * s * s for s in distances]
        return [abs(f - start - s * slope + p) for f, s, p in zip(values, distances, penalties, strict=True)]

    def _line(self, name: str) -> _Line:
        layer, array = self._places[name]
        matmul, rng = active().matmul, np.random.default_rng(1)
        right = direction_of(rng, array.shape[-1])
        if array.ndim == 1:
            return _Line(layer, right, lambda given: inner(given, right))
        # A matrix of rank 1, left·rightᵀ: a product with it is one with two vectors.
        left, right = direction_of(rng, len(array))[:, None], right[:, None]
        weight, inputs = self._spec.layers[layer].weight, self._inputs[layer]
        move = matmul(inputs, left) * right.T if array is weight else left * matmul(right.T, weight)
        return _Line(layer, move, lambda given: inner(matmul(given, right), left))

    def _loss(self, layer: int, move: FloatArray, s: float) -> float:
        """Return the loss without penalty where the units of a layer move by s·`move`."""
        backend, spec, rest = active(), self._spec, self._behind[layer]
        _, _, kind, constant = spec.layers[layer]
        with np.errstate(over="ignore", invalid="ignore"):
            y = backend.activation(kind, self._units[layer] + s * move, constant)
        if rest is not None:
            return backend.loss(rest, y, self._t)
        answers = backend.softmax(y) if spec.output == Output.SOFTMAX else y
        return backend.mean_loss(spec.loss, answers, self._t, spec.loss_constant)
