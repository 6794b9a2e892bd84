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
    """One batch of one network, in the form that backends take, and the step."""

    spec: NetworkSpec
    x: FloatArray
    t: FloatArray | IntArray
    h: float


class Evaluation(NamedTuple):
    """What a method gives.

    `values` are the derivatives by the parameters asked for; or, where the method always computes the whole
    gradient, that, array by array. `diagnostics` tells what it met on the way, if the method knows.
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
        The backend that it needs; None for the one in use.
    evaluate : callable
        Gives the `Evaluation` of a `Problem` by a backend at flat parameter numbers.
    by_entry : bool
        Whether it does no more than these entries need, so that a sample tells its time.
    algorithm : str or None
        Which of the backend's `algorithms` it is, if not every backend has it.
    """

    name: str
    backend: str | None
    evaluate: Callable[[Backend, Problem, IntArray], Evaluation]
    by_entry: bool = True
    algorithm: str | None = None

    def is_available(self) -> bool:
        """Tell whether its backend is installed, or the one in use has its algorithm."""
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
