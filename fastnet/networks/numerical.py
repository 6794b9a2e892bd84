"""Numerical gradients of a network that the backend in use computes as a whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TypeAlias

import numpy as np

from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends import active
from fastnet.backends.spec import Diagnostics, NetworkSpec, Stage, StageKind
from fastnet.networks.computation import NumericalGradient

ROWS_AT_ONCE = 128  # of a gradient with respect to the inputs, which takes a matrix of as many rows and columns
# Of a network, rows and targets: the gradient with respect to the weight of the first stage, an affine one.
FirstGradient: TypeAlias = Callable[[NetworkSpec, FloatArray, FloatArray | IntArray], FloatArray]


def as_algorithm(algorithm: str) -> str:
    """Return an algorithm that the backend in use has; raise ValueError if it does not have `algorithm`."""
    backend = active()
    chosen = backend.algorithms[0] if algorithm == "auto" else algorithm
    if chosen not in backend.algorithms:
        raise ValueError(
            f"the {backend.name!r} backend has no algorithm {algorithm!r}: it has "
            f"{', '.join(map(repr, backend.algorithms))}"
        )
    return chosen


def exact_differences(
    spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float, algorithm: str
) -> tuple[list[FloatArray], Diagnostics]:
    """Return the gradient by ``"nodal"`` or ``"incremental"``. Its diagnostics list kinks by unit, and so of chains."""
    backend = active()
    gradients, found = (backend.nodal if algorithm == "nodal" else backend.incremental)(spec, x, t, h)
    return gradients, found if spec.layers else replace(found, kinked=())


def numerical_gradient(
    spec: NetworkSpec,
    names: Sequence[str],
    x: FloatArray,
    t: FloatArray | IntArray,
    h: float,
    algorithm: str,
    wanted: Sequence[str],
) -> NumericalGradient:
    """Return the gradient with respect to the `wanted` ones of ``spec.parameters``, whose names are `names`."""
    backend, chosen = active(), as_algorithm(algorithm)
    if chosen != "loop":
        gradients, diagnostics = exact_differences(spec, x, t, h, chosen)
        every = dict(zip(names, gradients, strict=True))
        return NumericalGradient({name: every[name] for name in wanted}, diagnostics, dict.fromkeys(wanted, chosen))
    numbers = dict(zip(names, spec.split(np.arange(sum(p.size for p in spec.parameters))), strict=True))
    entries = np.concatenate([numbers[name].ravel() for name in wanted])
    flat = backend.loop(spec, x, t, h, entries)
    pieces = np.split(flat, np.cumsum([numbers[name].size for name in wanted])[:-1])
    found = {name: piece.reshape(numbers[name].shape) for name, piece in zip(wanted, pieces, strict=True)}
    base = backend.loss(spec, x, t, training=True)
    return NumericalGradient(found, Diagnostics(base, 2 * len(entries) * len(x)), dict.fromkeys(wanted, chosen))


def numerical_input_gradient(
    spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float, algorithm: str
) -> FloatArray:
    """Return the gradient with respect to rows `x`, shape (batch, inputs); the loop moves each of their elements."""
    backend, chosen = active(), as_algorithm(algorithm)

    def compute(moved: NetworkSpec, eye: FloatArray, targets: FloatArray | IntArray) -> FloatArray:
        if chosen != "loop":
            return exact_differences(moved, eye, targets, h, chosen)[0][0]
        first = moved.parameters[0]
        return backend.loop(moved, eye, targets, h, np.arange(first.size)).reshape(first.shape)

    return input_gradient(spec, x, t, compute, at_units=chosen != "loop")


def input_gradient(
    spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, compute: FirstGradient, at_units: bool = True
) -> FloatArray:
    """Return the gradient with respect to rows `x`, by a gradient with respect to parameters of another network.

    An affine stage whose inputs are the rows of the identity matrix has weights of shape (rows, units), and each row of
    them is what the next stage takes in that row. So the gradient with respect to these weights is that with respect to
    what the next stage takes: `x` itself, or behind a first affine stage its units, if `at_units`. Times the transpose
    of its weight, this is the gradient with respect to `x`.
    """
    backend, first = active(), spec.stages[0]
    weight = first.weight if at_units and first.kind == StageKind.AFFINE else None
    size = ROWS_AT_ONCE if all(stage.takes_rows_alone for stage in spec.stages) else len(x)
    found = np.empty_like(x)
    for start in range(0, len(x), size):
        part = slice(start, start + size)
        units = x[part]
        if weight is not None:
            units = backend.matmul(units, weight)
            if first.bias is not None:
                units = backend.add_bias(units, first.bias)
        stage = Stage(StageKind.AFFINE, units.shape[0], units.shape[1], weight=units)
        moved = replace(spec, stages=(stage, *(spec.stages if weight is None else spec.stages[1:])), weight_decay=0.0)
        d = compute(moved, np.eye(len(units), dtype=spec.dtype), t[part])
        found[part] = d if weight is None else backend.matmul(d, weight, transpose_b=True)
        found[part] *= spec.dtype.type(len(units) / len(x))
    return found
