"""Pickled weights, as the book saves them, read without running what a pickle may contain.

Python's `pickle.load` calls whatever functions a file names. Here a file may hold NumPy arrays of real numbers, dicts,
lists, tuples, strings and numbers alone. What else it names is refused before anything is done with it, and no function
of NumPy gets data of the file either: arrays are put together here, from bytes whose number is checked.

A program that has ``import pickle`` needs ``from fastnet.book import pickle`` instead.
"""

from __future__ import annotations

import io
import math
import os
import pickle
import re
from collections.abc import Mapping
from pickle import dump, dumps
from typing import Any, BinaryIO

import numpy as np

from fastnet.saving import write_file

__all__ = ["UnpicklingError", "dump", "dumps", "load", "load_params", "loads", "save_params"]

_DTYPE = re.compile(r"[biuf][1248]")  # such as f8, in NumPy's short form
_PLAIN = (str, int, float, bool, type(None), np.generic, np.ndarray)


class UnpicklingError(pickle.UnpicklingError, ValueError):
    """A pickle is damaged, or holds something other than arrays, dicts, lists, tuples, strings and numbers."""


def load(file: BinaryIO) -> Any:
    """Read a pickle of arrays, dicts, lists, tuples, strings and numbers from a file that is open for reading bytes.

    Parameters
    ----------
    file : file object
        It has `read` and `readline`.

    Returns
    -------
    object
        What was pickled.

    Raises
    ------
    UnpicklingError
        If it is damaged, or holds anything else: a ValueError. Nothing of it has been executed.
    TypeError
        If `file` is not a file that is open for reading bytes.
    MemoryError
        If it has more bytes than there is memory for, or says so: Python makes room for them before it reads them.
    """
    try:
        found = _Unpickler(file).load()
        return _finished(found, {})
    except (UnpicklingError, MemoryError):
        raise
    except TypeError as error:
        if not hasattr(file, "read") or not hasattr(file, "readline"):
            raise TypeError(f"file must be open for reading bytes, as in open(name, 'rb'), not {file!r}") from error
        raise UnpicklingError(f"the pickle is damaged: {error}") from error
    except Exception as error:  # Whatever Python's unpickler raises for invalid data.
        raise UnpicklingError(f"the pickle is damaged: {error}") from error


def loads(data: bytes) -> Any:
    """Read a pickle from bytes, as `load` does from a file.

    Parameters
    ----------
    data : bytes

    Returns
    -------
    object

    Raises
    ------
    UnpicklingError
        As `load`.

    Examples
    --------
    >>> import numpy as np
    >>> from fastnet.book import pickle
    >>> pickle.loads(pickle.dumps({"W1": np.zeros(2)}))
    {'W1': array([0., 0.])}
    """
    return load(io.BytesIO(data))


def save_params(params: Mapping[str, Any], path: str | os.PathLike[str]) -> None:
    """Write arrays as the book does: a pickled dict, which the book's programs read too.

    Parameters
    ----------
    params : dict of str to ndarray
    path : path-like
        The file is written beside it and takes its place when it is complete.

    Raises
    ------
    OSError
        If the file can't be written.
    """
    write_file(path, dumps({name: np.array(array) for name, array in params.items()}))


def load_params(path: str | os.PathLike[str]) -> dict[str, np.ndarray[Any, Any]]:
    """Read a pickled dict of arrays.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    dict of str to ndarray

    Raises
    ------
    OSError
        If the file can't be read: FileNotFoundError if there is none.
    UnpicklingError
        If it is damaged, or holds anything but a dict of arrays; a ValueError that names `path`.
    """
    with open(path, "rb") as file:
        try:
            found = load(file)
        except UnpicklingError as error:
            raise UnpicklingError(f"{os.fspath(path)}: {error}") from error
    if not isinstance(found, dict):
        raise UnpicklingError(f"{os.fspath(path)} holds a {type(found).__name__}, not a dict of arrays")
    for name, array in found.items():
        if not isinstance(name, str) or not isinstance(array, np.ndarray):
            raise UnpicklingError(f"{os.fspath(path)} has {name!r}, a {type(array).__name__}: it must be an array")
    return found


# What stands in for the names in a pickle of arrays. They have no attributes that a pickle could set. --------------


class _Unpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str, /) -> Any:
        kind = _STAND_INS.get((module.replace("numpy._core.", "numpy.core."), name))
        if kind is None:
            raise UnpicklingError(
                f"the pickle names {module}.{name}: only arrays, dicts, lists, tuples, strings and numbers are read"
            )
        return kind()


class _Class:
    """numpy.ndarray, which is named beside _reconstruct."""

    __slots__ = ()


class _Encode:
    """_codecs.encode, by which the protocols before 3 write bytes."""

    __slots__ = ()

    def __call__(self, text: str, encoding: str) -> bytes:
        if encoding != "latin1":
            raise UnpicklingError(f"the pickle has bytes in the encoding {encoding!r}")
        return text.encode("latin1")


class _NoBytes:
    """The class bytes, which the protocols before 3 call for empty ones."""

    __slots__ = ()

    def __call__(self) -> bytes:
        return b""


class _PickledDtype:
    """A dtype: first its short name, then the state that follows with its byte order."""

    __slots__ = ("_order", "_short")

    def __init__(self) -> None:
        self._short, self._order = "", "="

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        order, *rest = state[1:5]
        if order not in ("<", ">", "=", "|") or any(part is not None for part in rest):
            raise UnpicklingError(f"the pickle has a dtype with the state {state!r}")
        self._order = order

    def numpy(self) -> np.dtype[Any]:
        return np.dtype(self._order + self._short)

    def __call__(self, short: str, *flags: object) -> _PickledDtype:
        if not isinstance(short, str) or not _DTYPE.fullmatch(short):
            raise UnpicklingError(f"the pickle has an array of dtype {short!r}: only real numbers are read")
        made = _PickledDtype()
        made._short = short
        return made


class _PickledArray:
    """An array: first nothing, then the state that follows with its shape, dtype and bytes."""

    __slots__ = ("array",)

    def __init__(self) -> None:
        self.array: np.ndarray[Any, Any] | None = None

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        _, shape, dtype, is_fortran, data = state
        self.array = _as_array(data, dtype, shape, "F" if is_fortran else "C")


class _Reconstruct:
    """numpy.core.multiarray._reconstruct."""

    __slots__ = ()

    def __call__(self, *_: object) -> _PickledArray:
        return _PickledArray()


class _FromBuffer:
    """numpy.core.numeric._frombuffer, by which protocol 5 writes arrays."""

    __slots__ = ()

    def __call__(self, data: object, dtype: object, shape: object, order: object) -> _PickledArray:
        made = _PickledArray()
        made.array = _as_array(data, dtype, shape, order)
        return made


class _Scalar:
    """numpy.core.multiarray.scalar."""

    __slots__ = ()

    def __call__(self, dtype: object, data: object) -> Any:
        return _as_array(data, dtype, (), "C")[()]


_STAND_INS: dict[tuple[str, str], type[Any]] = {
    ("numpy", "ndarray"): _Class,
    ("numpy", "dtype"): _PickledDtype,
    ("numpy.core.multiarray", "_reconstruct"): _Reconstruct,
    ("numpy.core.multiarray", "scalar"): _Scalar,
    ("numpy.core.numeric", "_frombuffer"): _FromBuffer,
    ("_codecs", "encode"): _Encode,
    ("__builtin__", "bytes"): _NoBytes,
}


def _as_array(data: object, dtype: object, shape: object, order: object) -> np.ndarray[Any, Any]:
    """An array with its own memory, from as many bytes as its shape and dtype say."""
    if not isinstance(dtype, _PickledDtype) or not isinstance(shape, tuple) or order not in ("C", "F"):
        raise UnpicklingError("the pickle has an array without a dtype, a shape or an order")
    if not isinstance(data, (bytes, bytearray)):
        raise UnpicklingError(f"the pickle has an array of {type(data).__name__}: only real numbers are read")
    kind = dtype.numpy()
    if any(type(n) is not int or n < 0 for n in shape) or math.prod(shape) * kind.itemsize != len(data):
        raise UnpicklingError(f"the pickle has {len(data)} bytes for an array of {kind} of shape {shape}")
    array: np.ndarray[Any, Any] = np.ndarray(shape, kind, bytes(data), order="F" if order == "F" else "C")
    return array.astype(kind.newbyteorder("="), order="K", copy=True)


def _finished(found: Any, done: dict[int, tuple[Any, Any]]) -> Any:
    """`found` with its arrays in place of what stands for them; raise UnpicklingError for any other object.

    `done` has each container that was met, by its id, and what it became.
    """
    if id(found) in done:
        return done[id(found)][1]
    if isinstance(found, _PickledArray):
        if found.array is None:
            raise UnpicklingError("the pickle has an array without its elements")
        return found.array
    if type(found) is dict:
        done[id(found)] = found, found
        for key, value in found.items():
            if not isinstance(key, _PLAIN):
                raise UnpicklingError(f"the pickle has a dict with the key {key!r}")
            found[key] = _finished(value, done)
    elif type(found) is list:
        done[id(found)] = found, found
        found[:] = [_finished(value, done) for value in found]
    elif type(found) is tuple:
        finished = tuple(_finished(value, done) for value in found)
        done[id(found)] = found, finished
        return finished
    elif not isinstance(found, _PLAIN):
        raise UnpicklingError(
            f"the pickle has an object of type {type(found).__name__}: only arrays, dicts, lists, tuples, strings and "
            f"numbers are read"
        )
    return found
