"""Stretches of training: minibatch after minibatch gathered, its gradient computed, the parameters changed in place."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fastnet._tools.interrupts import HeldInterrupts
from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends import _numpy
from fastnet.backends._numba import backend, threads
from fastnet.backends._numba.jit import jit
from fastnet.backends.spec import NetworkSpec
from fastnet.backends.training import Batches, GradientKind, Rule, Update

Computed: TypeAlias = tuple[float, list[FloatArray]]  # a batch's loss and gradient
UPDATE_PRODUCTS = 5.0  # An element's update takes about as long as so many multiply-adds.


class Dataset:
    """All rows to train with, or to answer, shape (rows, inputs)."""

    def __init__(self, x: FloatArray) -> None:
        self.x = x

    def forward(self, spec: NetworkSpec) -> FloatArray:
        """Return the network's answers to all rows."""
        return backend.forward(spec, self.x)


def prepare(x: FloatArray) -> Dataset:
    """Return all rows as `train` takes them: as they are."""
    return Dataset(x)


@jit(contract=False)
def change(
    begin: int,
    end: int,
    rule: int,
    constants: FloatArray,
    coefficients: FloatArray,
    g: FloatArray,
    p: FloatArray,
    s1: FloatArray,
    s2: FloatArray,
) -> None:
    # Elements begin to end of a parameter p and of what the optimizer keeps, s1 and s2, for the gradient g; all flat.
    # Each operation is rounded as in `fastnet.optimizers.rules`.
    of = p.dtype.type
    rate, first = of(coefficients[0]), of(constants[0])
    if rule == Rule.SGD:
        for i in range(begin, end):
            p[i] -= rate * g[i]
    elif rule == Rule.MOMENTUM:
        for i in range(begin, end):
            s1[i] = first * s1[i] + g[i]
            p[i] -= rate * s1[i]
    elif rule == Rule.NESTEROV:
        for i in range(begin, end):
            s1[i] = first * s1[i] + g[i]
            p[i] -= rate * (first * s1[i] + g[i])
    elif rule == Rule.ADAGRAD:
        for i in range(begin, end):
            s1[i] = s1[i] + g[i] * g[i]
            p[i] -= rate * g[i] / (np.sqrt(s1[i]) + first)
    elif rule == Rule.RMSPROP:
        rest, eps = of(1 - constants[0]), of(constants[1])
        for i in range(begin, end):
            s1[i] = first * s1[i] + rest * g[i] * g[i]
            p[i] -= rate * g[i] / (np.sqrt(s1[i]) + eps)
    else:
        rest1, second, rest2 = of(1 - constants[0]), of(constants[1]), of(1 - constants[1])
        eps, correction = of(constants[2]), of(coefficients[1])
        for i in range(begin, end):
            s1[i] = first * s1[i] + rest1 * g[i]
            s2[i] = second * s2[i] + rest2 * g[i] * g[i]
            p[i] -= rate * s1[i] / (np.sqrt(s2[i]) / correction + eps)


@_numpy.quietly
def _run(
    parameters: list[FloatArray],
    compute: Callable[[FloatArray, Any], Computed],
    keeping: Callable[[], AbstractContextManager[None]],
    batches: Batches,
    update: Update,
    losses: FloatArray,
    done: IntArray,
) -> None:
    """Train with `compute`, the loss and gradient of a batch; `keeping` is entered for each step."""
    constants = np.array([*update.constants, 0.0])
    for step, rows in enumerate(_rows_of(batches, parameters)):
        with keeping():
            losses[step], gradients = compute(batches.data.x[rows], batches.targets[rows])
            if not math.isfinite(losses[step]):
                return
            with HeldInterrupts():  # The step is made as a whole.
                for number, (p, g) in enumerate(zip(parameters, gradients, strict=True)):
                    slots = [slot[number].reshape(-1) for slot in update.slots]
                    s1, s2, *_ = [*slots, p.reshape(-1), p.reshape(-1)]  # Those that a rule has not are not used.
                    of_step = int(update.rule), constants, update.coefficients[step]
                    threads.share(change, (*of_step, g.reshape(-1), p.reshape(-1), s1, s2), p.size, UPDATE_PRODUCTS)
                done[0] += 1


def _rows_of(batches: Batches, parameters: list[FloatArray]) -> Iterator[IntArray]:
    """The rows of each batch, up to an epoch that leaves parameters that are not finite."""
    for epoch, order in enumerate(np.broadcast_to(batches.order, (batches.epochs, batches.order.shape[-1]))):
        if epoch and not all(np.isfinite(p).all() for p in parameters):
            return
        for first in range(0, len(order), batches.size):
            yield order[first : first + batches.size]


def train(
    spec: NetworkSpec,
    batches: Batches,
    gradient: GradientKind,
    h: float,
    update: Update,
    losses: FloatArray,
    done: IntArray,
    before: NetworkSpec | None = None,
) -> None:
    """Change the parameters of `spec` in place, batch after batch.

    `before`, which a chain does not need, holds the state from before the last step afterwards.
    """
    if any(stage.mask is not None for stage in spec.stages):
        raise ValueError("the masks of dropout are given for one batch, and training has many")

    def compute(x: FloatArray, t: Any) -> Computed:
        if gradient == GradientKind.BACKPROP:
            return backend.loss_and_gradient(spec, x, t)[:2]
        algorithm = backend.nodal if gradient == GradientKind.NODAL else backend.incremental
        gradients, diagnostics = algorithm(spec, x, t, h)
        if spec.layers:
            return diagnostics.loss, gradients
        return backend.loss(spec, x, t, training=True, counts=True), gradients

    @contextmanager
    def keeping() -> Iterator[None]:
        # A step that is not finished leaves the state as it was.
        assert before is not None
        made = int(done[0])
        _copy(spec, before)
        try:
            yield
        finally:
            if done[0] == made:
                _copy(before, spec)

    _run(spec.parameters, compute, nullcontext if spec.layers else keeping, batches, update, losses, done)


def _copy(one: NetworkSpec, other: NetworkSpec) -> None:
    """Copy the state of one network to the other's arrays."""
    for from_, to in zip(one.stages, other.stages, strict=True):
        names = ("running_mean", "running_var", "passes", "random")
        pairs: list[tuple[npt.NDArray[Any] | None, ...]] = [(getattr(from_, n), getattr(to, n)) for n in names]
        for source, place in pairs:
            if source is not None and place is not None:
                place[:] = source
