"""Ways to evaluate a function at many points near x: in x itself one after the other, or in one stack of points."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fastnet.differentiation.calling import (
    Caller,
    Function,
    Values,
    add_note,
    arrays_of,
    check_function_of,
    check_repeatable,
)
from fastnet.differentiation.points import Moves, Point

STACK_ELEMENTS = 15_000  # numbers in a stack of points: below 128 KB, from where on temporaries of f get new pages

Tick = Callable[[int], None]


class Evaluator(Protocol):
    """How a function's values are found.

    Attributes
    ----------
    point : Point
    dtype : numpy.dtype or None
        The digits of the values that came so far; None while they are numbers of Python.
    evaluations : int
        How many points f was evaluated at.
    """

    point: Point

    @property
    def evaluations(self) -> int: ...

    @property
    def dtype(self) -> np.dtype[Any] | None: ...

    def check(self, steps: Any) -> None:
        """Raise if f cannot be differentiated by its values, before the work; `steps` by flat number."""

    def base(self) -> Values:
        """Return f(x)."""

    def evaluate(self, moves: Moves, guarded: bool = False) -> npt.NDArray[Any]:
        """Return the values of f at all points, shape (points, *shape).

        Where `guarded`, a point at which f raises as functions do outside their domain has the value NaN.
        """


def noted(error: BaseException, point: Point, moves: Moves, k: int) -> None:
    """Add to an exception at which of the points it was raised."""
    entries = moves.entries[k].tolist()
    if len(entries) <= 2:
        moved = dict(zip(entries, moves.values[k].tolist(), strict=True))
        at = ", ".join(f"{point.where(entry)} = {value}" for entry, value in moved.items())
        note = f"f was evaluated with {at}"
    else:
        note = f"f was evaluated with {len(entries)} elements of x moved"
    add_note(error, note)


class InPlace:
    """Changes the elements of x itself, calls f, and restores them, also when f raises.

    Parameters
    ----------
    f : callable
    point : Point
    scalar : bool
        Whether f must return one number.
    tick : callable
        Is called with the number of points that are done.
    """

    def __init__(self, f: Function, point: Point, scalar: bool, tick: Tick) -> None:
        point.check_writeable()
        self.point, self.call, self._tick = point, Caller(f, scalar=scalar), tick
        self.evaluations = 0
        self._base: Values | None = None
        self._flat = [array.flat for array in point.arrays]

    @property
    def dtype(self) -> np.dtype[Any] | None:
        return self.call.dtype

    def check(self, steps: Any) -> None:
        check_function_of(self.call, self.point.x, named_steps(self.point, steps))
        self.evaluations += 3

    def base(self) -> Values:
        if self._base is None:
            self._base = self.call(self.point.x)
            self.evaluations += 1
        return self._base

    def evaluate(self, moves: Moves, guarded: bool = False) -> npt.NDArray[Any]:
        found: npt.NDArray[Any] | None = None
        is_complex = moves.values.dtype.kind == "c"
        one = self._flat[0] if self.point.is_one and moves.entries.shape[1] == 1 else None
        for k, entries in enumerate(moves.entries.tolist()):
            try:
                if is_complex:
                    value: npt.NDArray[Any] = self.call.complex_value(self.point.at(moves, k))
                elif one is not None:
                    value = self._at_one(one, entries[0], moves.values[k, 0], guarded)
                else:
                    value = self._at(entries, moves.values[k], guarded)
            except Exception as error:
                noted(error, self.point, moves, k)
                raise
            if found is None:
                found = np.empty((len(moves.entries), *value.shape), value.dtype)
            found[k] = value
            self._tick(1)
        self.evaluations += len(moves.entries)
        return np.empty((0, *self.base().shape)) if found is None else found

    def _at_one(self, flat: Any, entry: int, value: Any, guarded: bool) -> Values:
        before = flat[entry]
        try:
            flat[entry] = value
            return self.call(self.point.x, guarded)
        finally:
            flat[entry] = before

    def _at(self, entries: list[int], values: npt.NDArray[Any], guarded: bool) -> Values:
        places = [self._place(entry) for entry in entries]
        before = [flat[at] for flat, at in places]
        try:
            for (flat, at), value in zip(places, values, strict=True):
                flat[at] = value
            return self.call(self.point.x, guarded)
        finally:
            for (flat, at), value in zip(places, before, strict=True):
                flat[at] = value

    def _place(self, entry: int) -> tuple[Any, int]:
        if self.point.is_one:
            return self._flat[0], entry
        which = bisect.bisect_right(self.point.starts, entry) - 1
        return self._flat[which], entry - self.point.starts[which]


class Stacked:
    """Calls f with stacks of points: it takes arrays of shape (points, …) and returns a value for each point.

    All stacks have the same memory, which stays in the cache and is filled again for each. The arguments are those of
    `InPlace`.
    """

    def __init__(self, f: Function, point: Point, scalar: bool, tick: Tick) -> None:
        self.point, self._scalar, self._tick = point, scalar, tick
        self.call = Caller(f, scalar=False)
        self.evaluations = 0
        self._shape: tuple[int, ...] | None = () if scalar else None
        self._memory = np.empty((0, point.size))
        self._base: Values | None = None

    @property
    def dtype(self) -> np.dtype[Any] | None:
        return self.call.dtype

    def check(self, steps: Any) -> None:
        """Raise unless the value at a point is the same in every stack."""
        entries = np.arange(self.point.size)
        moved = self.point.rounded(entries, self.point.numbers() + steps)
        count = 3  # points, and another number where an axis of x is as long
        while any(count in array.shape for array in self.point.arrays):
            count += 1
        values = np.tile(self.point.numbers(), (count, 1))
        values[0] = moved
        values[2] = self.point.rounded(entries, self.point.numbers() + 3 * steps)
        together = self.evaluate(Moves(np.tile(entries, (count, 1)), values))
        alone = check_repeatable(lambda: self.evaluate(Moves(entries[None], moved[None])))
        self._base = together[1]
        with np.errstate(invalid="ignore"):
            far = np.abs(together[0] - alone[0]) > 1e-6 * np.maximum(np.abs(together[0]), np.abs(alone[0]))
        if far.any():
            raise ValueError(
                "f is not vectorized: its value at a point depends on the other points of the stack. It must treat "
                "the first axis of its argument as that of the points"
            )

    def base(self) -> Values:
        if self._base is None:
            entries = np.arange(self.point.size)
            self._base = self.evaluate(Moves(entries[None], self.point.numbers()[None]))[0]
        return self._base

    def evaluate(self, moves: Moves, guarded: bool = False) -> npt.NDArray[Any]:
        parts, count = [], len(moves.entries)
        size = max(1, STACK_ELEMENTS // max(self.point.size, 1))
        for begin in range(0, count, size):
            part = moves.part(begin, begin + size)
            parts.append(self._evaluate(part, guarded))
            self._tick(len(part.entries))
        self.evaluations += count
        return np.concatenate(parts) if parts else np.empty((0, *self.base().shape))

    def _evaluate(self, moves: Moves, guarded: bool) -> npt.NDArray[Any]:
        self.call.expect(None)
        count, dtype = len(moves.entries), self.point.stacked_dtype(moves)
        if len(self._memory) < count or self._memory.dtype != dtype:
            self._memory = np.empty((count, self.point.size), dtype)
        stack = self.point.stack(moves, self._memory[:count])
        if moves.values.dtype.kind == "c":
            values: npt.NDArray[Any] = self.call.complex_value(stack)
        else:
            values = self.call.of_copy(stack, guarded)
        if guarded and values.shape == () and count > 1:  # f raised: at which of the points?
            return np.concatenate([self._evaluate(moves.part(k, k + 1), guarded) for k in range(count)])
        if guarded and values.shape == () and np.isnan(values):
            return np.full((1, *(self._shape or ())), np.nan)
        if values.ndim < 1 or len(values) != count or (self._scalar and values.shape != (count,)):
            wanted = f"({count},)" if self._scalar else f"({count}, …)"
            raise ValueError(
                f"with vectorized=True, f must return an array of shape {wanted} for a stack of {count} points, but it "
                f"returned shape {values.shape}"
            )
        if self._shape is not None and values.shape[1:] != self._shape:
            raise ValueError(f"f returned arrays of shapes {self._shape} and {values.shape[1:]} for a point")
        self._shape = values.shape[1:]
        return values


def named_steps(point: Point, steps: Any) -> dict[Any, npt.NDArray[Any]]:
    """Return steps by flat number as arrays of the shapes of x's, by their keys."""
    return arrays_of(point.split(steps, dtypes=False))
