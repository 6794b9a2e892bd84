"""The arrays that training changes: a network's state, copies of arrays, and arrays put back in place."""

from __future__ import annotations

from typing import Any, TypeAlias

import numpy.typing as npt

Arrays: TypeAlias = dict[str, npt.NDArray[Any]]


def state_of(net: Any) -> Arrays:
    """Return what a network keeps but does not train."""
    state: Arrays = getattr(net, "state", {})
    return state


def copies(arrays: Arrays) -> Arrays:
    """Return the arrays by the same names, copied."""
    return {name: array.copy() for name, array in arrays.items()}


def put(values: Arrays, into: Arrays) -> None:
    """Copy the values into the arrays of the same names."""
    for name, value in values.items():
        into[name][...] = value
