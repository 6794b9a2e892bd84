"""The methods that are compared: ways to compute one gradient."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from fastnet import backends
from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends import Backend
from fastnet.backends.spec import Diagnostics, NetworkSpec


@dataclass(frozen=True)
class Problem:
    """A network, a batch and a step, in the form that backends take."""

    spec: NetworkSpec
    x: FloatArray
    t: FloatArray | IntArray
    h: float


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
        Takes a backend, a `Problem` and flat parameter numbers; gives an `Evaluation`.
    by_entry : bool
        Whether its time is proportional to the number of entries, so that a sample can be timed.
    algorithm : str or None
        The algorithm that the backend must have, if not every backend has it.
    """

    name: str
    backend: str | None
    evaluate: Callable[[Backend, Problem, IntArray], Evaluation]
    by_entry: bool = True
    algorithm: str | None = None

    def is_available(self) -> bool:
        """Return whether its backend is installed, and the backend in use has its algorithm."""
        if self.backend is not None:
            return self.backend in backends.available()
        return self.algorithm is None or self.algorithm in backends.active().algorithms


def _loop(backend: Backend, problem: Problem, entries: IntArray) -> Evaluation:
    return Evaluation(backend.loop(problem.spec, problem.x, problem.t, problem.h, entries))


def _incremental(backend: Backend, problem: Problem, entries: IntArray) -> Evaluation:
    return Evaluation(*backend.incremental(problem.spec, problem.x, problem.t, problem.h))


def _nodal(backend: Backend, problem: Problem, entries: IntArray) -> Evaluation:
    return Evaluation(*backend.nodal(problem.spec, problem.x, problem.t, problem.h))


def _backprop(backend: Backend, problem: Problem, entries: IntArray) -> Evaluation:
    return Evaluation(backend.gradient(problem.spec, problem.x, problem.t))


BASELINE = Method("numpy loop", "numpy", _loop)


REFERENCE = Method("backprop", None, _backprop, by_entry=False)


METHODS = (
    BASELINE,
    Method("numba loop", "numba", _loop),
    Method("c++ loop", "cpp", _loop),
    Method("incremental", None, _incremental, by_entry=False, algorithm="incremental"),
    Method("nodal", None, _nodal, by_entry=False, algorithm="nodal"),
    REFERENCE,
)


def backprop(problem: Problem) -> FloatArray:
    """Return the whole gradient by flat number, computed by the backend in use."""
    gradient = backends.active().gradient(problem.spec, problem.x, problem.t)
    return problem.spec.flatten(gradient).astype(np.float64)
