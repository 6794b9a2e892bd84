"""A function evaluated by an executor of `concurrent.futures`: threads, processes, or the workers of a cluster."""

from __future__ import annotations

import concurrent.futures
import contextlib
import math
import os
import pickle
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.importing import import_whole
from fastnet.differentiation.calling import Function, Values, check_function_of
from fastnet.differentiation.evaluators import InPlace, Tick, named_steps
from fastnet.differentiation.points import Moves, Point

CHUNKS_PER_WORKER = 4  # so that a slow worker has less to do than a fast one
PICKLES = {"concurrent.futures.process": "pickle", "mpi4py": "pickle", "distributed": "cloudpickle"}
OWN_COPIES = (
    "f reads x elsewhere than in its argument. With executor=, each worker moves its own copy of x, which f only sees "
    "as its argument: let f use that, or leave out executor"
)


class Shared:
    """Sends chunks of points to an executor, each with f and x, and puts the values together in their order.

    Parameters
    ----------
    f : callable
    point : Point
    scalar : bool
        Whether f must return one number.
    executor : concurrent.futures.Executor
    tick : callable
        Is called with the number of points that are done.

    Raises
    ------
    TypeError
        If `executor` is none, or f cannot be sent to its processes.
    """

    def __init__(self, f: Function, point: Point, scalar: bool, executor: Any, tick: Tick) -> None:
        checks.check_function(f)
        if isinstance(executor, type) or not callable(getattr(executor, "submit", None)):
            raise TypeError(
                f"executor must be a concurrent.futures.Executor, not {checks.type_name(executor)}: for "
                f"dask.distributed pass client.get_executor()"
            )
        check_sendable(f, executor)
        self.point, self._f, self._scalar, self._executor, self._tick = point, f, scalar, executor, tick
        self._here = InPlace(f, point, scalar, lambda new: None)
        self._dtype: np.dtype[Any] | None = None
        self._evaluated = 0

    @property
    def dtype(self) -> np.dtype[Any] | None:
        return self._here.dtype

    @property
    def evaluations(self) -> int:
        return self._here.evaluations + self._evaluated

    def check(self, steps: Any) -> None:
        """Evaluate f here, before anything is sent: it must give the same value twice, and use its argument alone."""
        check_function_of(self._here.call, self.point.x, named_steps(self.point, steps), must_use=OWN_COPIES)
        self._here.evaluations += 3

    def base(self) -> Values:
        return self._here.base()

    def evaluate(self, moves: Moves, guarded: bool = False) -> npt.NDArray[Any]:
        count = len(moves.entries)
        if count == 0:
            return np.empty((0, *self.base().shape))
        shape = () if self._scalar else self.base().shape
        size = math.ceil(count / (CHUNKS_PER_WORKER * _workers_of(self._executor)))
        futures: list[Any] = []
        try:
            for begin in range(0, count, size):
                part = moves.part(begin, begin + size)
                futures.append(self._submit(evaluate_chunk, self._f, self.point.x, self._scalar, shape, part, guarded))
            parts = [self._result(future) for future in futures]
        except BaseException:
            for future in futures:
                future.cancel()
            raise
        self._evaluated += count
        return np.concatenate(parts)

    def _result(self, future: Any) -> npt.NDArray[Any]:
        values: npt.NDArray[Any] = future.result()
        self._tick(len(values))
        return values

    def _submit(self, *task: Any) -> Any:
        try:
            return self._executor.submit(*task)
        except concurrent.futures.BrokenExecutor:
            raise
        except RuntimeError as error:
            raise ValueError(f"executor takes no work, it is shut down: {error}") from error


def evaluate_chunk(
    f: Function, x: Any, scalar: bool, shape: tuple[int, ...], moves: Moves, guarded: bool
) -> npt.NDArray[Any]:
    """Return the values of f, of this shape, at some points, wherever this runs, with a copy of x.

    Where `guarded`, points outside f's domain have NaN, and NumPy does not warn of them.
    """
    evaluator = InPlace(f, Point(Point(x).copy()), scalar, lambda new: None)
    evaluator.call.expect(shape)
    with np.errstate(all="ignore") if guarded else contextlib.nullcontext():
        return evaluator.evaluate(moves, guarded)


def check_sendable(f: Function, executor: Any) -> None:
    """Raise TypeError if the executor's workers are processes that f cannot be sent to."""
    kind = type(executor).__module__
    for start, pickler in PICKLES.items():
        if kind == start or kind.startswith(f"{start}."):
            module = import_whole(pickler)
            try:
                module.dumps(f)
            except (pickle.PicklingError, AttributeError, TypeError) as error:
                raise TypeError(
                    f"f cannot be sent to other processes, {error}: define it with def at the top of a module (no "
                    f"lambda, no function inside a function), and give it what it needs by functools.partial"
                ) from error


def _workers_of(executor: Any) -> int:
    """Return the number of workers, as far as an executor tells."""
    client = getattr(executor, "_client", None)
    if client is not None:  # dask.distributed
        return max(1, sum(int(cores) for cores in client.ncores().values()))
    workers = getattr(executor, "_max_workers", None)
    return workers if isinstance(workers, int) and workers > 0 else os.cpu_count() or 1
