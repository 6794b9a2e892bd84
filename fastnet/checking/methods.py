"""The methods that are compared: ways to compute one gradient."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnet import backends
from fastnet._tools.checks import as_step
from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends import Backend
from fastnet.backends.spec import Diagnostics, NetworkSpec
from fastnet.checking.verdict import kinked_entries
from fastnet.networks.base import BaseNetwork
from fastnet.networks.chain import Chain, as_chain
from fastnet.networks.layer_stages import flat
from fastnet.networks.overriding import COMPUTES, FUNCTION, overridden
from fastnet.networks.staged import Staged, describe_stages


class Evaluation(NamedTuple):
    """The answer of a method.

    `values` are the derivatives with respect to the entries asked for. If the method always computes the whole
    gradient, they are the gradient as a list of arrays. `diagnostics` is what the method reports, if anything.
    """

    values: FloatArray | list[FloatArray]
    diagnostics: Diagnostics | None = None


@dataclass(frozen=True)
class Method:
    """One way to compute a gradient.

    Attributes
    ----------
    name : str
    backend : str or None
        The backend that it needs; None for the backend in use.
    evaluate : callable
        Takes a `Problem`, a backend and flat parameter numbers; gives an `Evaluation`.
    by_entry : bool
        Whether its time is proportional to the number of entries, so that a sample can be timed.
    algorithm : str or None
        The algorithm that the backend must have, if not every backend has it.
    """

    name: str
    backend: str | None
    evaluate: Callable[[Problem, Backend, IntArray], Evaluation]
    by_entry: bool = True
    algorithm: str | None = None

    def is_available(self) -> bool:
        """Return whether its backend is installed, and the backend in use has its algorithm."""
        if self.backend is not None:
            return self.backend in backends.available()
        return self.algorithm is None or self.algorithm in backends.active().algorithms


class Problem:
    """A network, a batch and a step: what each method computes, on any backend.

    A network with state is taken in the pass that its numerical gradient would repeat.

    Attributes
    ----------
    x : ndarray
        Shape (batch, …).
    t : ndarray
    h : float
    """

    def __init__(self, net: Chain | Staged, x: npt.ArrayLike, t: npt.ArrayLike, h: float) -> None:
        self._net, self.h = net, h
        self.x, self.t = net.batch(x, t)
        self._rows = flat(self.x)
        self._spec()  # raises where the shapes do not fit

    def _spec(self) -> NetworkSpec:
        spec = self._net.repeated(self.x)
        if spec is None:
            self._net.loss(self.x, self.t)  # its layers say what does not fit
            raise ValueError("the layers of the network do not fit each other")
        return spec

    def parameters(self) -> dict[str, FloatArray]:
        """The parameters in the order of flat numbers."""
        return dict(zip(self._net.names, self._spec().parameters, strict=True))

    def describe(self) -> str:
        """The network's sizes, as in ``784-50-10``."""
        return describe_stages(self._spec())

    def loss(self, backend: Backend) -> float:
        return backend.loss(self._spec(), self._rows, self.t, training=True)

    def loop(self, backend: Backend, entries: IntArray) -> Evaluation:
        return Evaluation(backend.loop(self._spec(), self._rows, self.t, self.h, entries))

    def differences(self, backend: Backend, algorithm: str) -> Evaluation:
        compute = backend.nodal if algorithm == "nodal" else backend.incremental
        return Evaluation(*compute(self._spec(), self._rows, self.t, self.h))

    def gradient(self, backend: Backend) -> Evaluation:
        return Evaluation(backend.gradient(self._spec(), self._rows, self.t))

    def kinked(self, diagnostics: Diagnostics | None) -> npt.NDArray[np.bool_] | None:
        """By flat number, whether the differences met a kink; None where a chain's do not tell."""
        spec = self._spec()
        if diagnostics is None and not spec.layers:
            backend = backends.active()
            diagnostics = self.differences(backend, backend.algorithms[0]).diagnostics
        return None if diagnostics is None else kinked_entries(spec, diagnostics)

    @property
    def dtype(self) -> np.dtype[np.floating[Any]]:
        return next(iter(self.parameters().values())).dtype

    def flat(self, evaluation: Evaluation, entries: IntArray) -> FloatArray:
        """The derivatives at these entries, of which the method may have computed more."""
        if isinstance(evaluation.values, list):
            return np.concatenate([array.ravel() for array in evaluation.values])[entries]
        return evaluation.values

    def with_step(self, h: float) -> Problem:
        """The same problem with another step."""
        other = copy.copy(self)
        other.h = h
        return other


def problem_of(net: BaseNetwork, x: npt.ArrayLike, t: npt.ArrayLike, h: float | None) -> Problem:
    """The problem of a network that the backend in use computes as a whole; raise TypeError if it does not."""
    if isinstance(net, BaseNetwork) and not overridden(net, *FUNCTION, *COMPUTES):
        computation = net._computation()
        if isinstance(computation, Staged):
            return Problem(computation, x, t, as_step(h, computation.dtype))
    chain = as_chain(net)
    return Problem(chain, x, t, as_step(h, chain.dtype))


def _loop(problem: Problem, backend: Backend, entries: IntArray) -> Evaluation:
    return problem.loop(backend, entries)


BASELINE = Method("numpy loop", "numpy", _loop)


REFERENCE = Method("backprop", None, lambda problem, backend, _: problem.gradient(backend), by_entry=False)


def _by(algorithm: str) -> Method:
    def evaluate(problem: Problem, backend: Backend, entries: IntArray) -> Evaluation:
        return problem.differences(backend, algorithm)

    return Method(algorithm, None, evaluate, by_entry=False, algorithm=algorithm)


METHODS = (
    BASELINE,
    Method("numba loop", "numba", _loop),
    Method("c++ loop", "cpp", _loop),
    _by("incremental"),
    _by("nodal"),
    REFERENCE,
)


def backprop(problem: Problem) -> FloatArray:
    """Return the whole gradient by flat number, computed by the backend in use."""
    size = sum(array.size for array in problem.parameters().values())
    return problem.flat(problem.gradient(backends.active()), np.arange(size)).astype(np.float64)
