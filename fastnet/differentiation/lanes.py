"""Lines through x along which a function is differentiated: one for each element, or one in another direction.

A lane is a function of one real number, its position. The engine asks for values at positions of many lanes at once,
and what the lanes are decides how few calls of f these are.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from fastnet._tools.types import FloatArray, IntArray
from fastnet.differentiation.calling import Caller, Values, check_repeatable
from fastnet.differentiation.evaluators import Evaluator
from fastnet.differentiation.noise import BOUND, deviation_of, samples_near
from fastnet.differentiation.points import Bounds, Moves, Point

Array = npt.NDArray[Any]


class Lanes(Protocol):
    """Many functions of one number, each near its centre.

    Attributes
    ----------
    centers : ndarray
        The positions that stand for x, shape (lanes,).
    """

    centers: Array

    @property
    def dtype(self) -> np.dtype[Any] | None:
        """The digits of the values that came so far; None while they are numbers of Python."""

    def at(self, lane: int, position: Any) -> str:
        """Return how one writes the point of a lane at a position, for messages."""

    def rounded(self, which: IntArray, positions: Array) -> Array:
        """Return the positions, shape (len(which), nodes), that can really be taken."""

    def base(self, which: IntArray) -> Values:
        """Return the values at the centres of some lanes, shape (len(which), *shape)."""

    def values(self, which: IntArray, positions: Array, guarded: bool) -> Array:
        """Return the values at rounded positions, shape (len(which), nodes, *shape)."""

    def noise(self, bounds: Bounds | None) -> Array:
        """Return what rounding errors of the values hardly exceed, shape (lanes, *shape) or (1, *shape).

        `bounds` are the least and the largest value of each element of x.
        """


def noise_of(evaluator: Evaluator, bounds: Bounds | None) -> Array:
    """Return what rounding errors of the values hardly exceed, the shape of a value: all elements of x are moved."""
    points = samples_near(evaluator.point.numbers().astype(np.float64), bounds)
    entries = np.broadcast_to(np.arange(evaluator.point.size), points.shape)
    return BOUND * deviation_of(evaluator.evaluate(Moves(entries, evaluator.point.rounded(entries, points))))


class Entries:
    """A lane for each element of x: its position is the element's value."""

    def __init__(self, evaluator: Evaluator) -> None:
        self._evaluator, self._point = evaluator, evaluator.point
        self.centers = self._point.numbers()

    @property
    def dtype(self) -> np.dtype[Any] | None:
        return self._evaluator.dtype

    def at(self, lane: int, position: Any) -> str:
        return f"{self._point.where(lane)} = {position}"

    def rounded(self, which: IntArray, positions: Array) -> Array:
        return self._point.rounded(which[:, None], positions)

    def base(self, which: IntArray) -> Values:
        value = self._evaluator.base()
        return np.broadcast_to(value, (len(which), *value.shape))

    def values(self, which: IntArray, positions: Array, guarded: bool) -> Array:
        lanes, nodes = positions.shape
        found = self._evaluator.evaluate(Moves(np.repeat(which, nodes)[:, None], positions.reshape(-1, 1)), guarded)
        return found.reshape(lanes, nodes, *found.shape[1:])

    def noise(self, bounds: Bounds | None) -> Array:
        return noise_of(self._evaluator, bounds)[None]


class Direction:
    """One lane, x + position·v for a direction v, shape (size,) by flat number."""

    def __init__(self, evaluator: Evaluator, direction: FloatArray) -> None:
        self._evaluator, self._point, self._direction = evaluator, evaluator.point, direction
        self.centers: Array = np.zeros(1, np.promote_types(self._point.dtype, np.float64))

    @property
    def dtype(self) -> np.dtype[Any] | None:
        return self._evaluator.dtype

    def at(self, lane: int, position: Any) -> str:
        return f"x + {position}·v"

    def rounded(self, which: IntArray, positions: Array) -> Array:
        return positions

    def base(self, which: IntArray) -> Values:
        return np.broadcast_to(self._evaluator.base(), (len(which), *self._evaluator.base().shape))

    def values(self, which: IntArray, positions: Array, guarded: bool) -> Array:
        entries = np.broadcast_to(np.arange(self._point.size), (positions.size, self._point.size))
        moved = self._point.numbers() + positions.reshape(-1, 1) * self._direction
        if moved.dtype.kind != "c":
            moved = self._point.rounded(entries, moved)
        found = self._evaluator.evaluate(Moves(entries, moved), guarded)
        return found.reshape(*positions.shape, *found.shape[1:])

    def noise(self, bounds: Bounds | None) -> Array:
        return noise_of(self._evaluator, bounds)[None]


class Elements:
    """A lane for each element of an array on which f works element by element: one call serves all lanes.

    For one number, f may return an array, and there is one lane.

    Parameters
    ----------
    call : Caller
    point : Point
        A lone array, any shape.
    """

    def __init__(self, call: Caller, point: Point) -> None:
        self._call, self._point, self._x = call, point, point.arrays[0]
        self.centers = point.numbers()
        self.evaluations = 0

    @property
    def dtype(self) -> np.dtype[Any] | None:
        return self._call.dtype

    def at(self, lane: int, position: Any) -> str:
        return f"{self._point.where(lane)} = {position}"

    def rounded(self, which: IntArray, positions: Array) -> Array:
        return self._point.rounded(which[:, None], positions)

    def check(self, steps: FloatArray) -> None:
        """Raise ValueError if two calls at one point differ."""
        moved = self._rounded_all(self.centers + steps)
        check_repeatable(lambda: self._at(moved, False))

    def _rounded_all(self, positions: Array) -> Array:
        return self._point.rounded(np.arange(self._point.size), positions)

    def base(self, which: IntArray) -> Values:
        return np.asarray(self._at(self.centers, False))[which]

    def values(self, which: IntArray, positions: Array, guarded: bool) -> Array:
        if len(which) == len(self.centers):  # all lanes, in order
            return np.array([self._at(column, guarded) for column in positions.T]).swapaxes(0, 1)
        found = []
        for column in positions.T:
            at = self.centers.astype(positions.dtype)
            at[which] = column
            found.append(self._at(at, guarded)[which])
        return np.array(found).swapaxes(0, 1)

    def noise(self, bounds: Bounds | None) -> Array:
        points = self._rounded_all(samples_near(self.centers, bounds))
        return BOUND * deviation_of(np.stack([self._at(point, False) for point in points]))

    def _at(self, positions: Array, guarded: bool) -> Array:
        """Return the values at the positions of all lanes, shape (lanes, *shape)."""
        self.evaluations += 1
        is_number = self._x.ndim == 0
        is_complex = positions.dtype.kind == "c"
        argument: Any = positions[0].item() if is_number else positions.reshape(self._x.shape)
        value: Array = self._call.complex_value(argument) if is_complex else self._call(argument, guarded)
        if is_number:
            return value[None]
        if value.shape != self._x.shape:
            raise ValueError(
                f"f must work element by element, but it returned shape {value.shape} for x of shape {self._x.shape}: "
                f"of a function of all elements there is a gradient, numerical_gradient(f, x)"
            )
        return value.ravel()
