"""Stretches of training inside the compiled backend: whether they can be, and how they are handed over."""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends import active
from fastnet.backends.spec import Loss, Method, Output, Rule
from fastnet.networks.base import BaseNetwork
from fastnet.networks.chain import as_chain
from fastnet.optimizers import OPTIMIZERS, Optimizer

METHODS = {"auto": Method.NODAL, "nodal": Method.NODAL, "incremental": Method.INCREMENTAL}
COMPUTES = ("loss_and_gradient", "numerical_gradient")  # what a network of one's own may do in another way


class FusedTraining:
    """The minibatches and gradients of one training, and an optimizer's updates, a stretch of iterations at a time.

    Parameters
    ----------
    net
    x : ndarray
        Shape (rows, inputs).
    t : ndarray
        Labels (rows,) or targets (rows, outputs).
    method : Method or None
        What the gradients come from; None for what only single steps do.
    h : float
        The step of a numerical gradient.
    """

    def __init__(self, net: Any, x: FloatArray, t: FloatArray | IntArray, method: Method | None, h: float) -> None:
        self._net, self._x, self._t, self._method, self._h = net, x, t, method, h
        self._data: Any = None  # the rows as the backend reads them, from the first stretch on

    def why_not(self, optimizer: Any) -> str | None:
        """Say why single steps must do, or None where these stretches give the same bits."""
        net, backend = self._net, active()
        if backend.name != "cpp":
            return f"the {backend.name!r} backend does not train by itself"
        if not isinstance(net, BaseNetwork) or not net._is_chain:
            return "the network is no chain of affine layers and activations"
        if any(getattr(type(net), name) is not getattr(BaseNetwork, name) for name in COMPUTES):
            return f"{type(net).__name__} computes gradients of its own"
        if type(optimizer) is not OPTIMIZERS.get(getattr(optimizer, "name", "")):
            return f"the optimizer, {type(optimizer).__name__}, is none of those of fastnet.optimizers"
        if self._method is None:
            return "the algorithm is 'loop'"
        spec = as_chain(net).spec
        if self._method != Method.BACKPROP and (spec.output, spec.loss) == (Output.IDENTITY, Loss.CROSS_ENTROPY):
            return "the loss has no exact difference"
        present = {id(p) for p in net.params.values() if p.flags.writeable}
        if not all(id(p) in present for p in spec.parameters):
            return "a parameter is read-only, not contiguous, or in the byte order of another machine"
        return None

    def run(self, optimizer: Optimizer, order: IntArray, batch_size: int, losses: FloatArray, done: IntArray) -> bool:
        """Make the iterations for the rows in this order, the batches one after the other.

        `losses` (iterations,) and `done` (1,), the number of iterations made, tell at any time how far it came. A loss
        that is not finite ends it, before its update. False if nothing was done, because the optimizer has a step in
        this stretch that it can't make: single steps come to it, and tell.
        """
        from fastnet import _core

        assert self._method is not None
        net = as_chain(self._net)
        coefficients = self._coefficients(optimizer, len(losses))
        if coefficients is None:
            return False
        optimizer.prepare(self._net.params)
        slots = tuple(
            tuple(optimizer.state[slot][name] for name in net.named(net.spec.parameters)) for slot in optimizer.slots
        )
        if self._data is None:
            self._data = _core.Dataset(self._x)
        _core.train(
            net.spec,
            self._data,
            self._t,
            order,
            batch_size,
            self._method,
            self._h,
            Rule[optimizer.name.upper()],
            optimizer.constants,
            coefficients,
            slots,
            losses,
            done,
        )
        return True

    def _coefficients(self, optimizer: Optimizer, steps: int) -> FloatArray | None:
        """Those of the next steps, (steps, coefficients); None where `update` would refuse one of them."""
        first = optimizer.iteration
        try:
            optimizer.scalars(self._x.dtype)
            found = np.array([optimizer.coefficients(first + k) for k in range(steps)], dtype=np.float64)
        except (TypeError, ValueError):
            return None
        with np.errstate(over="ignore"):
            return found if np.isfinite(found.astype(self._x.dtype)).all() else None
