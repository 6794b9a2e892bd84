"""A function near a point: its one-sided slopes with respect to one entry, its rounding noise, its Taylor remainder."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnet._tools.types import FloatArray
from fastnet.checking.lines import direction_of
from fastnet.differentiation.layout import Layout
from fastnet.differentiation.noise import SAMPLES, deviation_of, spacing_of
from fastnet.differentiation.steps import moved


class Slopes(NamedTuple):
    """The slopes of a function with respect to one entry, for a step to either side."""

    forward: float
    backward: float
    central: float

    @property
    def bend(self) -> float:
        """The difference of the two sides: proportional to the step if the function is smooth."""
        return self.forward - self.backward


class Probe:
    """A function of arrays that can be moved.

    Parameters
    ----------
    arrays : dict of str to ndarray
        What the function reads; moved in place, and restored.
    f : callable
        Takes nothing and returns the function's value.
    eps : float
        The rounding unit of the values.
    """

    def __init__(self, arrays: Mapping[str, npt.NDArray[Any]], f: Callable[[], float], eps: float) -> None:
        self._arrays, self._f, self._eps = arrays, f, eps
        self.layout = Layout(arrays)
        self._value: float | None = None
        self._noise: float | None = None

    def value(self) -> float:
        """Return the function's value at the point."""
        if self._value is None:
            self._value = self._f()
        return self._value

    def differences(self, steps: FloatArray) -> FloatArray:
        """Return the central difference at every entry, with its step; ValueError if one is lost in rounding there."""
        found = np.empty(self.layout.size)
        for entry, step in enumerate(steps.tolist()):
            upper, lower, _, _, distance = self._sides(entry, step)
            with np.errstate(all="ignore"):
                found[entry] = np.subtract(upper, lower) / distance
        return found

    def slopes(self, entry: int, step: float) -> Slopes:
        """Return the slopes at one entry, by flat number; ValueError if the step is lost in rounding there."""
        middle = self.value()
        upper, lower, above, below, distance = self._sides(entry, step)
        with np.errstate(all="ignore"):
            return Slopes(
                float(np.subtract(upper, middle) / above),
                float(np.subtract(middle, lower) / below),
                float(np.subtract(upper, lower) / distance),
            )

    def _sides(self, entry: int, step: float) -> tuple[float, float, float, float, float]:
        """Return the values for a step up and down, how far each really went, and the distance between the two."""
        name, at = self.layout.locate(entry)
        array = self._arrays[name]
        before = array[at]
        above, below, distance = moved(before, step, f"{name}[{', '.join(map(str, at))}]" if at else name)
        try:
            array[at] = above
            upper = self._f()
            array[at] = below
            lower = self._f()
        finally:
            array[at] = before
        return upper, lower, float(above) - float(before), float(before) - float(below), distance

    def noise(self) -> float:
        """Return the standard deviation of the function's rounding errors.

        It is measured at points a few units in the last place apart (`fastnet.differentiation.noise`), and is at least
        a quarter of the unit in the last place of the value.
        """
        if self._noise is None:
            rng = np.random.default_rng(0)
            moves = {name: spacing_of(array) * rng.choice((-1, 1), array.shape) for name, array in self._arrays.items()}
            values = []
            for k in range(-(SAMPLES // 2), SAMPLES // 2 + 1):
                with self._shifted(moves, k):
                    values.append(self._f())
            self._noise = max(float(deviation_of(np.array(values))), 0.25 * self._eps * abs(self.value()))
        return self._noise

    def remainders(self, name: str, gradient: FloatArray, distances: list[float]) -> list[float]:
        """Return abs(f(x + s·p) − f(x) − s·g·p) for each distance s, and a random direction p in one array.

        `gradient` is that of the array `name`, flat.
        """
        array, middle = self._arrays[name], self.value()
        direction = direction_of(np.random.default_rng(1), array.size).reshape(array.shape)
        found = []
        for distance in distances:
            before = array.copy()
            with self._shifted({name: direction}, distance):
                really = (array.astype(np.float64) - before).ravel()  # what is left of the move after rounding
                change = self._f() - middle
            found.append(abs(change - float(gradient @ really)))
        return found

    @contextmanager
    def _shifted(self, moves: Mapping[str, npt.NDArray[Any]], factor: float) -> Iterator[None]:
        before = {name: self._arrays[name].copy() for name in moves}
        try:
            for name, move in moves.items():
                self._arrays[name][...] = before[name] + factor * move
            yield
        finally:
            for name, array in before.items():
                self._arrays[name][...] = array
