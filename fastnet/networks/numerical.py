"""Numerical gradients of a network that the backend in use computes as a whole."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends import active
from fastnet.backends._numpy.stage_kinds import mask_of
from fastnet.backends.spec import Diagnostics, NetworkSpec, Stage, StageKind
from fastnet.networks.computation import NumericalGradient

ROWS_AT_ONCE = 128  # of a gradient with respect to the inputs, which takes a matrix of as many rows and columns


def as_algorithm(algorithm: str, spec: NetworkSpec | None = None) -> str:
    """Return an algorithm that the backend in use has; raise ValueError if it does not have `algorithm`.

    ``"auto"`` becomes the first one of the backend that does something for the network, if that is given.
    """
    backend = active()
    if algorithm == "auto":
        return next(name for name in backend.algorithms if spec is None or _serves(name, spec))
    if algorithm not in backend.algorithms:
        raise ValueError(
            f"the {backend.name!r} backend has no algorithm {algorithm!r}: it has "
            f"{', '.join(map(repr, backend.algorithms))}"
        )
    return algorithm


def _serves(algorithm: str, spec: NetworkSpec) -> bool:
    """Whether an algorithm computes any parameter of the network in its own way."""
    if algorithm == "nodal" and not any(spec.has_nodes):
        return False
    return algorithm == "loop" or spec.has_exact_difference


def algorithms_of(spec: NetworkSpec, algorithm: str) -> list[str]:
    """The algorithm that computes each of ``spec.parameters``: what ``"nodal"`` does not know it leaves to another."""
    return [
        "incremental" if algorithm == "nodal" and not has_nodes else algorithm
        for stage, has_nodes in zip(spec.stages, spec.has_nodes, strict=True)
        for parameter in (stage.weight, stage.bias)
        if parameter is not None
    ]


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
    backend, chosen = active(), as_algorithm(algorithm, spec)
    if chosen != "loop":
        gradients, diagnostics = exact_differences(spec, x, t, h, chosen)
        every = dict(zip(names, gradients, strict=True))
        by = dict(zip(names, algorithms_of(spec, chosen), strict=True))
        algorithms = {name: by[name] for name in wanted}
        return NumericalGradient({name: every[name] for name in wanted}, diagnostics, algorithms)
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
    """Return the gradient with respect to rows `x`, shape (batch, inputs); the loop moves each of their elements.

    An affine stage whose inputs are the rows of the identity matrix has weights of shape (rows, units), and each row of
    them is what the next stage takes in that row. So the gradient with respect to these weights is that with respect to
    what the next stage takes: `x` itself, or behind a first affine stage its units, except by the loop. Times the
    transpose of its weight, this is the gradient with respect to `x`.

    As the loop's is, every difference of a loss that is not finite is NaN.
    """
    backend, chosen, first = active(), as_algorithm(algorithm, spec), spec.stages[0]
    found = np.full_like(x, np.nan)
    if not np.isfinite(backend.loss(spec, x, t, training=True)):
        return found
    units, stages = x, _with_masks(spec, len(x))
    weight = first.weight if chosen != "loop" and first.kind == StageKind.AFFINE else None
    if weight is not None:
        units, stages = backend.matmul(x, weight), stages[1:]
        units = units if first.bias is None else backend.add_bias(units, first.bias)
    finite = np.all(np.isfinite(units), axis=1, keepdims=True)[:, 0]
    if spec.couples_rows and not finite.all():
        return _plain_loop(spec, x, t, h)
    for part in [np.arange(len(x))] if spec.couples_rows else _parts(finite):
        of_part = (s if s.mask is None else replace(s, mask=s.mask[part]) for s in stages)
        moving = Stage(StageKind.AFFINE, len(part), units.shape[1], weight=units[part])
        moved = replace(spec, stages=(moving, *of_part), weight_decay=0.0)
        eye = np.eye(len(part), dtype=spec.dtype)
        if chosen == "loop":
            d = backend.loop(moved, eye, t[part], h, np.arange(units[part].size)).reshape(len(part), -1)
        else:
            d = exact_differences(moved, eye, t[part], h, chosen)[0][0]
        found[part] = d if weight is None else backend.matmul(d, weight, transpose_b=True)
        found[part] *= spec.dtype.type(len(part) / len(x))
    return found


def _with_masks(spec: NetworkSpec, rows: int) -> tuple[Stage, ...]:
    """The stages with the masks of a training pass over so many rows, which belong to places in the batch."""
    return tuple(
        stage
        if stage.random is None
        else replace(stage, mask=mask_of(stage, (rows, stage.outputs), spec.dtype), random=None)
        for stage in spec.stages
    )


def _parts(finite: npt.NDArray[np.bool_]) -> Iterator[IntArray]:
    """The numbers of the rows that go through together: finite ones some at a time, and each of the others by itself.

    In the product with an identity matrix a number that is not finite makes NaN of the other rows.
    """
    numbers = np.flatnonzero(finite)
    yield from (numbers[first : first + ROWS_AT_ONCE] for first in range(0, len(numbers), ROWS_AT_ONCE))
    yield from np.flatnonzero(~finite)[:, np.newaxis]


def _plain_loop(spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float) -> FloatArray:
    """The gradient with respect to rows `x` by two passes for each of their elements."""
    found, moved, step = np.empty_like(x), x.copy(), spec.dtype.type(h)
    for at in np.ndindex(x.shape):
        moved[at] = x[at] + step
        above = active().loss(spec, moved, t, training=True)
        moved[at] = x[at] - step
        found[at] = (above - active().loss(spec, moved, t, training=True)) / (2 * h)
        moved[at] = x[at]
    return found
