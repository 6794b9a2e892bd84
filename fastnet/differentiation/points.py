"""The point at which a function is differentiated: one array, a list or a dict of arrays, and moves of its elements."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray, IntArray
from fastnet.differentiation.layout import Layout

Array = npt.NDArray[Any]
Bounds = tuple[FloatArray, FloatArray]  # the least and the largest values, by flat number


class Moves(NamedTuple):
    """Points near x: each gives some elements of x new values.

    Attributes
    ----------
    entries : ndarray of int
        Flat numbers of the elements, shape (points, moved). Where one is named twice, its last value counts.
    values : ndarray
        Their values, shape (points, moved), each a number of its element's dtype.
    """

    entries: IntArray
    values: Array

    def part(self, begin: int, end: int) -> Moves:
        """Return the points from `begin` to before `end`."""
        return Moves(self.entries[begin:end], self.values[begin:end])


class Point:
    """x as the user gave it, and the flat numbers of its elements: array after array, each row by row.

    Parameters
    ----------
    x : ndarray, or list or dict of ndarray
        Floating-point numbers.
    name : str
        The argument's name, for messages.

    Raises
    ------
    TypeError
        If `x` is anything else.
    ValueError
        If it has no elements.
    """

    def __init__(self, x: Any, name: str = "x") -> None:
        self.x = x
        self.is_one = not isinstance(x, (dict, list))
        self.keys: list[Any] = [None] if self.is_one else list(x) if isinstance(x, dict) else list(range(len(x)))
        self.names = [name if self.is_one else f"{name}[{key!r}]" for key in self.keys]
        self.arrays: list[Array] = [x] if self.is_one else [x[key] for key in self.keys]
        if not self.arrays or not all(isinstance(array, np.ndarray) for array in self.arrays):
            self._refuse(name)
        for array, what in zip(self.arrays, self.names, strict=True):
            checks.check_differentiable(array, what)
        self.starts = list(itertools.accumulate((array.size for array in self.arrays), initial=0))
        self.size = self.starts[-1]
        if self.size == 0:
            raise ValueError(f"{name} has no elements to differentiate with respect to: {self._shapes()}")
        dtypes = [_native(array) for array in self.arrays]
        self.dtype: np.dtype[Any] = dtypes[0] if self.is_one else np.result_type(*dtypes)
        self._same_dtype = self.is_one or all(dtype == self.dtype for dtype in dtypes)

    @functools.cached_property
    def layout(self) -> Layout:
        return Layout(dict(zip(self.names, self.arrays, strict=True)))

    def _shapes(self) -> str:
        if self.is_one:
            return f"its shape is {self.arrays[0].shape}"
        return f"its arrays have the shapes {', '.join(str(array.shape) for array in self.arrays)}"

    def _refuse(self, name: str) -> None:
        wrong = [(n, a) for n, a in zip(self.names, self.arrays, strict=True) if not isinstance(a, np.ndarray)]
        if self.is_one or not wrong or not any(isinstance(array, np.ndarray) for array in self.arrays):
            raise TypeError(
                f"{name} must be a NumPy array, since it is changed in place, not {checks.type_name(self.x)}: "
                f"an array, or a list or a dict of arrays"
            )
        what, array = wrong[0]
        raise TypeError(
            f"{what} must be a NumPy array, since it is changed in place, not {checks.type_name(array)}: to "
            f"differentiate some arrays of {name}, pass these, as in numerical_gradient(f, params['W1'])"
        )

    def check_writeable(self) -> None:
        """Raise ValueError unless the elements can be changed in place."""
        for array, what in zip(self.arrays, self.names, strict=True):
            checks.check_writeable(array, what)

    def numbers(self) -> Array:
        """Return a copy of all elements by flat number, of the widest dtype."""
        return np.concatenate([array.ravel() for array in self.arrays], dtype=self.dtype)

    def rounded(self, entries: IntArray, values: Array) -> Array:
        """Return the values as their elements' dtypes round them, as numbers of the widest dtype.

        `entries` are the elements' flat numbers and broadcast to the shape of `values`.
        """
        if self._same_dtype and values.dtype == self.dtype:
            return values
        with np.errstate(over="ignore", invalid="ignore"):
            found = values.astype(self.dtype)
            if not self._same_dtype:
                owners = np.broadcast_to(self.layout.arrays_of(entries), values.shape)
                for k, array in enumerate(self.arrays):
                    mine = owners == k
                    found[mine] = values[mine].astype(array.dtype).astype(self.dtype)
        return found

    def where(self, entry: int) -> str:
        """Return how one writes an element: ``x[0, 1]``, ``x['W1'][0, 1]``, or ``x`` if it is its only one."""
        name, at = self.layout.locate(entry)
        return f"{name}[{', '.join(map(str, at))}]" if at else name

    def by_name(self) -> dict[str, Array]:
        """Return the arrays by the names that messages have for them."""
        return dict(zip(self.names, self.arrays, strict=True))

    def like(self, make: Callable[[int], Any]) -> Any:
        """Return what `make` gives for the number of each array, in a container like x."""
        if self.is_one:
            return make(0)
        made = [make(k) for k in range(len(self.arrays))]
        return dict(zip(self.keys, made, strict=True)) if isinstance(self.x, dict) else made

    def copy(self) -> Any:
        """Return a copy of x, with arrays that are contiguous and native."""
        return self.like(lambda k: np.array(self.arrays[k], _native(self.arrays[k]), order="C"))

    def stack(self, moves: Moves, flat: Array | None = None) -> Any:
        """Return the points of `moves` as a container like x, of arrays of shape (points, …); complex if they are.

        They may be views of `flat`, shape (points, size), which is overwritten if it is given.
        """
        is_complex = moves.values.dtype.kind == "c"
        count = len(moves.entries)
        if flat is None:
            flat = np.empty((count, self.size), self.stacked_dtype(moves))
        flat[...] = self.numbers()
        flat[np.arange(count)[:, None], moves.entries] = moves.values

        def part(k: int) -> Array:
            array, columns = self.arrays[k], flat[:, self.starts[k] : self.starts[k + 1]]
            kind = flat.dtype if is_complex else _native(array)
            return np.ascontiguousarray(columns, kind).reshape(count, *array.shape)

        return self.like(part)

    def stacked_dtype(self, moves: Moves) -> np.dtype[Any]:
        return np.result_type(self.dtype, moves.values.dtype)

    def at(self, moves: Moves, k: int) -> Any:
        """Return one of the points of `moves` as a container like x."""
        stack = self.stack(moves.part(k, k + 1))
        if self.is_one:
            return stack[0]
        return {key: array[0] for key, array in stack.items()} if isinstance(stack, dict) else [a[0] for a in stack]

    def split(self, values: Array, dtypes: bool = True) -> Any:
        """Return values by flat number, shape (size, *shape), in a container like x.

        Each of its arrays has the shape ``(*shape, *array.shape)`` and, with `dtypes`, the dtype of its array of x.
        """

        def part(k: int) -> Array:
            array, own = self.arrays[k], values[self.starts[k] : self.starts[k + 1]]
            kind = _native(array) if dtypes else values.dtype
            last = own if own.ndim == 1 else np.moveaxis(own, 0, -1)
            return last.astype(kind, "C").reshape((*values.shape[1:], *array.shape))

        return self.like(part)

    def spread(self, value: Any, name: str, check: Callable[[Any, Array, str], FloatArray]) -> FloatArray:
        """Return an argument that may differ from element to element by flat number.

        `value` is a number or an array that broadcasts to the shape of each array of x, or a container of such that is
        like x. `check` makes one of them an array of the shape of its array.
        """
        if self.is_one and not isinstance(value, dict):
            return check(value, self.arrays[0], name).ravel()
        if isinstance(value, (dict, list, tuple)):
            parts: Sequence[Any] = self._parts(value, name)
            names = [f"{name}[{key!r}]" for key in self.keys]
        else:
            parts, names = [value] * len(self.arrays), [name] * len(self.arrays)
        found = [check(part, array, what) for part, array, what in zip(parts, self.arrays, names, strict=True)]
        return np.concatenate([part.ravel() for part in found])

    def _parts(self, value: Any, name: str) -> Sequence[Any]:
        if isinstance(self.x, dict):
            if not isinstance(value, dict):
                raise TypeError(f"{name} must be a dict like x, or one value for all, not {checks.type_name(value)}")
            missing = [repr(key) for key in self.keys if key not in value]
            if missing:
                raise ValueError(f"{name} has no {', '.join(missing)}: give one for each array of x")
            return [value[key] for key in self.keys]
        if isinstance(value, dict):
            raise TypeError(f"{name} must not be a dict where x is none")
        if len(value) != len(self.arrays):
            raise ValueError(f"{name} has {len(value)} items for {len(self.arrays)} arrays of x")
        return list(value)


def _native(array: Array) -> np.dtype[Any]:
    """Return the array's dtype in this machine's byte order."""
    return array.dtype if array.dtype.isnative else array.dtype.newbyteorder("=")
