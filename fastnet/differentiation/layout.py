"""The flat numbers of the entries of several arrays."""

from __future__ import annotations

import itertools
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
        found = np.empty(self.size)
        for (key, shape), start, size in zip(self.shapes.items(), self.starts.tolist(), self.sizes, strict=False):
            numbers = checks.as_numbers(arrays[key], f"{name} of {key}")
            if numbers.shape != shape:
                raise ValueError(f"{name} of {key} must have shape {shape}, not {numbers.shape}")
            found[start : start + size].reshape(shape)[...] = numbers
        return found

    def arrays_of(self, entries: IntArray) -> IntArray:
        """Return the number of the array that each flat number belongs to."""
        return np.searchsorted(self.starts, entries, side="right") - 1

    def locate(self, entry: int) -> tuple[str, tuple[int, ...]]:
        """Return the name of an entry's array and its index there."""
        which = int(np.searchsorted(self.starts, entry, side="right")) - 1
        name = self.names[which]
        shape = self.shapes[name]
        return name, tuple(int(i) for i in np.unravel_index(entry - self.starts[which], shape))

    def parts(self, entries: IntArray | None) -> list[slice]:
        """Return for each array where its numbers are in `entries`, which ascend; None is all numbers."""
        bounds = self.starts if entries is None else np.searchsorted(entries, self.starts)
        return [slice(start, stop) for start, stop in itertools.pairwise(bounds.tolist())]
