"""Stretches of iterations inside the backend: whether a training can have them, and how they are handed over."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from fastnet._tools.interrupts import HeldInterrupts
from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends import TrainingBackend, active
from fastnet.backends.choice import training_backend
from fastnet.backends.training import Batches, GradientKind, Rule, Update
from fastnet.networks.base import BaseNetwork
from fastnet.networks.chain import Chain
from fastnet.networks.overriding import COMPUTES, FUNCTION, overridden
from fastnet.networks.staged import Staged
from fastnet.optimizers import OPTIMIZERS, Optimizer
from fastnet.training.history import History
from fastnet.training.inputs import TrainingData

NUMERICAL = {"auto": GradientKind.NODAL, "nodal": GradientKind.NODAL, "incremental": GradientKind.INCREMENTAL}


class NotFusible(ValueError):  # noqa: N818 - a reason to train step by step, not a failure
    """Why a training has to go step by step."""


class FusedTraining:
    """A training whose stretches of iterations run inside the backend, with the bits of single steps.

    Parameters
    ----------
    net : object
        The network to train.
    optimizer : object
        What changes its parameters.
    data : TrainingData
        The rows and targets to train with.
    gradient : {"backprop", "numerical"}
    algorithm : str
        The algorithm of a numerical gradient.
    h : float
        The step of a numerical gradient.

    Raises
    ------
    NotFusible
        If single steps must do: it says why.
    """

    def __init__(
        self, net: Any, optimizer: Any, data: TrainingData, *, gradient: str, algorithm: str, h: float
    ) -> None:
        backend = training_backend()
        if backend is None:
            raise NotFusible(f"the {active().name!r} backend does not train by itself")
        if own := overridden(net, *FUNCTION, *COMPUTES):
            raise NotFusible(f"{type(net).__name__} has its own {' and '.join(own)}")
        computation = net._computation() if isinstance(net, BaseNetwork) else None
        if not isinstance(computation, (Chain, Staged)):
            raise NotFusible("the network has layers that the backend does not know")
        if type(optimizer) is not OPTIMIZERS.get(getattr(optimizer, "name", "")):
            raise NotFusible(f"the optimizer, {type(optimizer).__name__}, is not one of fastnet.optimizers")
        if gradient == "numerical" and algorithm not in NUMERICAL:
            raise NotFusible(f"the algorithm is {algorithm!r}")
        spec = computation.spec_of(data.train.x)
        if spec is None:
            raise NotFusible("the layers do not fit each other")
        if gradient == "numerical" and not spec.has_exact_difference:
            raise NotFusible("the loss has no exact difference")
        in_place = {id(p) for p in net.params.values() if p.flags.writeable}
        if not all(id(p) in in_place for p in spec.parameters):
            raise NotFusible("a parameter is read-only, not contiguous, or in the byte order of another machine")
        self._backend: TrainingBackend = backend
        self._computation = computation
        self._params: Mapping[str, FloatArray] = net.params
        self._optimizer: Optimizer = optimizer
        self._data = data
        self._gradient = GradientKind.BACKPROP if gradient == "backprop" else NUMERICAL[algorithm]
        self._h = h

    def run(self, order: IntArray, batch_size: int, history: History, epochs: int = 1) -> int:
        """Make the iterations for the rows in this order, batch after batch, and return how many were made.

        The order has shape (rows,), or (epochs, rows) for epochs that have orders of their own.

        The optimizer and the history count each iteration that was made, whatever ends the stretch. It ends early
        before an iteration that only a single step can report: one whose loss is not finite, or that the optimizer
        refuses. It also ends after an epoch that leaves parameters that are not finite, and may leave out epochs at the
        end.
        """
        optimizer = self._optimizer
        steps = math.ceil(order.shape[-1] / batch_size)  # of an epoch
        coefficients = self._accepted_coefficients(epochs * steps)
        if len(coefficients) == 0:
            return 0
        epochs = max(1, len(coefficients) // steps)
        coefficients = coefficients[: epochs * steps]
        rows = order[:epochs] if epochs > 1 and order.ndim > 1 else order.reshape(-1)[: len(coefficients) * batch_size]
        optimizer.prepare(self._params)
        slots = tuple(
            tuple(optimizer.state[slot][name] for name in self._computation.names) for slot in optimizer.slots
        )
        update = Update(Rule[optimizer.name.upper()], optimizer.constants, coefficients, slots)
        batches = Batches(self._data.train.prepared(self._backend), self._data.train.t, rows, batch_size, epochs)
        losses = np.full(len(coefficients), np.nan)
        done = np.zeros(1, np.int64)
        made = 0
        with HeldInterrupts(end_kernel=True):  # What was made is counted, whenever Ctrl-C comes.
            try:
                self._computation.train(
                    self._backend, self._data.train.x, batches, self._gradient, self._h, update, losses, done
                )
            finally:
                made = int(done[0])
                optimizer.iteration += made
                history.add_losses(losses[:made].tolist())
        return made

    def _accepted_coefficients(self, steps: int) -> FloatArray:
        """Those of the next steps, shape (steps, coefficients), up to the first step that `update` would refuse."""
        optimizer, dtype = self._optimizer, self._data.dtype
        found: list[float] = []  # one after the other: the garbage collector looks through tuples that are kept
        width = 1
        try:
            width = len(optimizer.scalars(dtype)[1])
            for step in range(steps):
                found += optimizer.coefficients(optimizer.iteration + step)
        except (TypeError, ValueError):
            pass  # A single step raises the same error, after the steps before it were made.
        coefficients = np.array(found, dtype=np.float64).reshape(-1, width)
        with np.errstate(over="ignore"):
            refused = ~np.isfinite(coefficients.astype(dtype)).all(axis=1)
        return coefficients[: int(np.argmax(refused))] if refused.any() else coefficients
