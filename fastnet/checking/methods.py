"""The methods that are compared: ways to compute one gradient."""

from __future__ import annotations

import abc
import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnet import backends
from fastnet._tools.checks import as_step
from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends import Backend, StageBackend
from fastnet.backends.spec import Diagnostics
from fastnet.backends.stages import StageSpec
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


class Problem(abc.ABC):
    """A network, a batch and a step: what each method computes, on any backend.

    Attributes
    ----------
    x : ndarray
        Shape (batch, …).
    t : ndarray
    h : float
    """

    x: FloatArray
    t: FloatArray | IntArray
    h: float

    @abc.abstractmethod
    def parameters(self) -> dict[str, FloatArray]:
        """The parameters in the order of flat numbers."""

    @abc.abstractmethod
    def describe(self) -> str:
        """The network's sizes, as in ``784-50-10``."""

    @abc.abstractmethod
    def loss(self, backend: Backend) -> float: ...
    @abc.abstractmethod
    def loop(self, backend: Backend, entries: IntArray) -> Evaluation: ...
    @abc.abstractmethod
    def differences(self, backend: Backend, algorithm: str) -> Evaluation: ...
    @abc.abstractmethod
    def gradient(self, backend: Backend) -> Evaluation: ...

    def kinked(self, diagnostics: Diagnostics | None) -> npt.NDArray[np.bool_] | None:
        """By flat number, whether the differences met a kink; None where they do not tell."""
        return None

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


class ChainProblem(Problem):
    """A problem of a chain, which every backend computes as a whole."""

    def __init__(self, chain: Chain, x: npt.ArrayLike, t: npt.ArrayLike, h: float) -> None:
        self._chain, self._spec, self.h = chain, chain.spec, h
        self.x, self.t = chain.batch(x, t)

    def parameters(self) -> dict[str, FloatArray]:
        return self._chain.named(self._spec.parameters)

    def describe(self) -> str:
        return "-".join(map(str, [self._spec.inputs, *(weight.shape[1] for weight in self._spec.weights)]))

    def loss(self, backend: Backend) -> float:
        return backend.loss(self._spec, self.x, self.t)

    def loop(self, backend: Backend, entries: IntArray) -> Evaluation:
        return Evaluation(backend.loop(self._spec, self.x, self.t, self.h, entries))

    def differences(self, backend: Backend, algorithm: str) -> Evaluation:
        compute = backend.nodal if algorithm == "nodal" else backend.incremental
        return Evaluation(*compute(self._spec, self.x, self.t, self.h))

    def gradient(self, backend: Backend) -> Evaluation:
        return Evaluation(backend.gradient(self._spec, self.x, self.t))

    def kinked(self, diagnostics: Diagnostics | None) -> npt.NDArray[np.bool_] | None:
        return None if diagnostics is None else kinked_entries(self._spec, diagnostics)


class StageProblem(Problem):
    """A problem of a network of stages, in the pass that it would repeat."""

    def __init__(self, net: Staged, x: npt.ArrayLike, t: npt.ArrayLike, h: float) -> None:
        self._net, self.h = net, h
        self.x, self.t = net.batch(x, t)
        self._rows = flat(self.x)
        self._spec()  # raises where the shapes do not fit

    def _spec(self) -> StageSpec:
        spec = self._net.repeated(self.x)
        if spec is None:
            self._net.loss(self.x, self.t)  # its layers say what does not fit
            raise ValueError("the layers of the network do not fit each other")
        return spec

    def parameters(self) -> dict[str, FloatArray]:
        return {name: self._net.params[name] for name in self._net.names}

    def describe(self) -> str:
        return describe_stages(self._spec())

    def loss(self, backend: Backend) -> float:
        return _of_stages(backend).stage_loss(self._spec(), self._rows, self.t, training=True, counts=False)

    def loop(self, backend: Backend, entries: IntArray) -> Evaluation:
        return Evaluation(_of_stages(backend).stage_loop(self._spec(), self._rows, self.t, self.h, entries))

    def differences(self, backend: Backend, algorithm: str) -> Evaluation:
        arrays, loss, evaluations, fallbacks, kinked = _of_stages(backend).stage_differences(
            self._spec(), self._rows, self.t, self.h, algorithm == "nodal"
        )
        kinks = sum(int(k.sum()) for k in kinked)
        return Evaluation(arrays, Diagnostics(loss, evaluations, fallbacks, kinks))

    def kinked(self, diagnostics: Diagnostics | None) -> npt.NDArray[np.bool_] | None:
        backend = _of_stages(backends.active())
        *_, kinked = backend.stage_differences(self._spec(), self._rows, self.t, self.h, True)
        return np.concatenate([array.ravel() for array in kinked])

    def gradient(self, backend: Backend) -> Evaluation:
        compute = _of_stages(backend).stage_loss_and_gradient
        return Evaluation(compute(self._spec(), self._rows, self.t, inputs=False)[1])


def _of_stages(backend: Backend) -> StageBackend:
    assert isinstance(backend, StageBackend)  # each of fastnet's is one
    return backend


def problem_of(net: BaseNetwork, x: npt.ArrayLike, t: npt.ArrayLike, h: float | None) -> Problem:
    """The problem of a network that the backend in use computes as a whole; raise TypeError if it does not."""
    if isinstance(net, BaseNetwork) and not overridden(net, *FUNCTION, *COMPUTES):
        computation = net._computation()
        if isinstance(computation, Staged):
            return StageProblem(computation, x, t, as_step(h, computation.dtype))
    chain = as_chain(net)
    return ChainProblem(chain, x, t, as_step(h, chain.dtype))


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
