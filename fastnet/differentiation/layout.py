"""The flat numbers of the entries of several arrays."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray, IntArray


class Layout:
    """The flat numbers of a set of named arrays: array after array, each row by row."""

    def __init__(self, arrays: Mapping[str, npt.NDArray[Any]]) -> None:
        self.names = list(arrays)
        self.shapes = {name: array.shape for name, array in arrays.items()}
        self.sizes = [array.size for array in arrays.values()]
        self.starts = np.cumsum([0, *self.sizes])
        self.size = int(self.starts[-1])

    def flat(self, arrays: Mapping[str, npt.ArrayLike], name: str) -> FloatArray:
        """Return the elements of `arrays`, the argument `name`, by flat number, as float64."""
        missing = [repr(key) for key in self.shapes if key not in arrays]
        if missing:
            raise ValueError(f"{name} has no {', '.join(missing)}")
        extra = [repr(key) for key in arrays if key not in self.shapes]
        if extra:
            there = ", ".join(map(repr, self.shapes))
            raise ValueError(f"{name} has {', '.join(extra)}, but there is only {there}")
        elements = [np.empty(0)]
        for key, shape in self.shapes.items():
            numbers = checks.as_numbers(arrays[key], f"{name} of {key}")
            if numbers.shape != shape:
                raise ValueError(f"{name} of {key} must have shape {shape}, not {numbers.shape}")
            elements.append(numbers.astype(np.float64).ravel())
        return np.concatenate(elements)

    def arrays_of(self, entries: IntArray) -> IntArray:
        """Return the number of the array that each flat number belongs to."""
        return np.searchsorted(self.starts, entries, side="right") - 1

    def locate(self, entry: int) -> tuple[str, tuple[int, ...]]:
        """Return the name of an entry's array and its index there."""
        which = int(np.searchsorted(self.starts, entry, side="right")) - 1
        name = self.names[which]
        shape = self.shapes[name]
        return name, tuple(int(i) for i in np.unravel_index(entry - self.starts[which], shape))

    def largest(self, entries: IntArray, sizes: FloatArray) -> FloatArray:
        """Return for each entry the largest of `sizes` in its array."""
        which = self.arrays_of(entries)
        found = np.zeros(len(self.sizes))
        np.maximum.at(found, which, sizes)
        return found[which]
