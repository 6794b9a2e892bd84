"""Functions of compiled code: recognised, checked, and evaluated by the backend on all threads, without the GIL.

Their signature is ``double f(intptr_t n, const double *x, void *data)``, where x are the n elements of all arrays.
"""

from __future__ import annotations

import ctypes
import functools
import sys
import time
import weakref
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnet import backends
from fastnet.differentiation.calling import Function, Values, check_repeatable
from fastnet.differentiation.evaluators import Tick
from fastnet.differentiation.points import Moves, Point

SIGNATURE = "double f(intptr_t n, const double *x, void *data)"
PIECE_SECONDS = 0.1  # of work between two movements of a progress bar, and two looks for Ctrl-C
LEAST_PIECE = 8  # points of it, so that all threads have some
_INTEGERS = (ctypes.c_ssize_t, ctypes.c_longlong)  # of 64 bits; c_long is one of them where it has as many
_CTYPES_FUNCTION = ctypes.CFUNCTYPE(None).__mro__[1]  # the class of all of them, which has no public name
_POINTERS = (ctypes.POINTER(ctypes.c_double), ctypes.c_void_p)


class NativeFunction(NamedTuple):
    """A function of compiled code.

    Attributes
    ----------
    address, data : int
        Pointers: to its code, and what it gets as `data`.
    python : callable, optional
        The same function for Python, which raises what compiled code cannot.
    owner : object
        What must live as long as the function is called.
    """

    address: int
    data: int
    python: Function | None
    owner: object


def as_native(f: Any, point: Point, scalar: bool, apart: str | None) -> NativeFunction | None:
    """Return `f` as a native function, or None if it is to be called by Python.

    Parameters
    ----------
    f : object
    point : Point
    scalar : bool
        Whether one number is needed. A native function returns nothing else.
    apart : str, optional
        The name of an argument that asks for another way to evaluate f.

    Raises
    ------
    TypeError
        If it is native but has another signature, as far as that can be known, x is not float64, or it can't be
        evaluated as it is asked for.
    """
    found = _pointer(f)
    if found is None:
        return _of_jitted(f, point) if scalar and apart is None else None
    if not scalar:
        raise TypeError("a native function returns one number: use numerical_gradient or numerical_hessian")
    if apart is not None:
        raise TypeError(f"a native function is evaluated by the backend's threads: leave out {apart}")
    for array, name in zip(point.arrays, point.names, strict=True):
        if array.dtype.newbyteorder("=") != np.float64:
            raise TypeError(f"a native function takes float64, but {name} is {array.dtype}: pass {name}.astype(float)")
    return found


def is_native(f: Any) -> bool:
    """Whether `f` is a pointer to compiled code, which Python cannot call as a function of x."""
    return _pointer(f) is not None


def _pointer(f: Any) -> NativeFunction | None:
    return _of_ctypes(f) or _of_scipy(f) or _of_cfunc(f)


def _refused(what: str, signature: object) -> TypeError:
    return TypeError(f"{what} must have the signature {SIGNATURE}, not {signature}")


def _of_ctypes(f: Any) -> NativeFunction | None:
    if not isinstance(f, _CTYPES_FUNCTION):
        return None
    function: Any = f
    kinds = function.argtypes
    fits = (
        function.restype is ctypes.c_double
        and kinds is not None
        and len(kinds) == 3
        and (kinds[0] in _INTEGERS)
        and kinds[1] in _POINTERS
        and kinds[2] is ctypes.c_void_p
    )
    if not fits:
        names = "unknown" if kinds is None else ", ".join(kind.__name__ for kind in kinds)
        result = getattr(function.restype, "__name__", function.restype)
        raise _refused("a ctypes function", f"restype {result} and argtypes {names}: set f.restype and f.argtypes")
    return NativeFunction(ctypes.cast(function, ctypes.c_void_p).value or 0, 0, None, f)


def _of_scipy(f: Any) -> NativeFunction | None:
    if not (isinstance(f, tuple) and type(f).__name__ == "LowLevelCallable"):
        return None
    kind: Any = f
    signature = str(kind.signature)
    if "".join(signature.split()) not in _scipy_signatures():
        raise _refused("a LowLevelCallable", signature)
    capsule = tuple.__getitem__(f, 0)
    api = ctypes.pythonapi
    api.PyCapsule_GetName.restype, api.PyCapsule_GetName.argtypes = ctypes.c_char_p, [ctypes.py_object]
    api.PyCapsule_GetPointer.restype = api.PyCapsule_GetContext.restype = ctypes.c_void_p
    api.PyCapsule_GetPointer.argtypes = [ctypes.py_object, ctypes.c_char_p]
    api.PyCapsule_GetContext.argtypes = [ctypes.py_object]
    address = api.PyCapsule_GetPointer(capsule, api.PyCapsule_GetName(capsule))
    return NativeFunction(address, api.PyCapsule_GetContext(capsule) or 0, None, f)


def _scipy_signatures() -> set[str]:
    """Return how SciPy may write the signature; of 64-bit integers, `long` is one where it has 64 bits."""
    integers = ["intptr_t", "npy_intp", "Py_ssize_t", "ssize_t", "longlong", "int64_t"]
    integers += ["long"] if ctypes.sizeof(ctypes.c_long) == ctypes.sizeof(ctypes.c_void_p) else []
    return {f"double({n},{const}double*,void*)" for n in integers for const in ("", "const")}


def _of_cfunc(f: Any) -> NativeFunction | None:
    callbacks = sys.modules.get("numba.core.ccallback")  # Where it is not imported, f is none of its functions.
    if callbacks is None or not isinstance(f, callbacks.CFunc):
        return None
    wanted = _numba_signature()
    if f._sig != wanted:
        raise _refused("a Numba cfunc", f"{f._sig}: compile it with numba.cfunc('{wanted}')")
    return NativeFunction(f.address, 0, None, f)


@functools.cache
def _numba_signature() -> Any:
    types = sys.modules["numba"].types
    return types.float64(types.intp, types.CPointer(types.float64), types.voidptr)


_compiled: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()


def _of_jitted(f: Any, point: Point) -> NativeFunction | None:
    """Return what Numba has compiled for Python as a native function, if it takes one float64 vector."""
    dispatchers = sys.modules.get("numba.core.dispatcher")
    if dispatchers is None or not isinstance(f, dispatchers.Dispatcher) or not point.is_one:
        return None
    (array,) = point.arrays
    if array.ndim != 1 or array.dtype != np.float64:
        return None
    if f not in _compiled:
        _compiled[f] = _compile(sys.modules["numba"], f)
    native = _compiled[f]
    return None if native is None else NativeFunction(native.address, 0, f, native)


def _compile(numba: Any, f: Any) -> Any:
    """Return `f` as a cfunc whose value is NaN where f raises, or None if Numba cannot compile it as one."""
    carray = numba.carray

    def native(n: Any, x: Any, data: Any) -> Any:
        try:
            return f(carray(x, (n,)))
        except Exception:
            return np.nan

    try:
        return numba.cfunc("float64(intp, CPointer(float64), voidptr)")(native)
    except numba.core.errors.NumbaError:
        return None


class Native:
    """Evaluates a native function on all threads of the backend, each with its own copy of x.

    Parameters
    ----------
    native : NativeFunction
    point : Point
    tick : callable
        Is called with the number of points that are done.
    """

    dtype = np.dtype(np.float64)

    def __init__(self, native: NativeFunction, point: Point, tick: Tick) -> None:
        self.point, self._native, self._tick = point, native, tick
        self.evaluations = 0
        self._piece = LEAST_PIECE
        self._base: Values | None = None

    def check(self, steps: Any) -> None:
        entries = np.arange(self.point.size)[None]
        moved = Moves(entries, self.point.rounded(entries, (self.point.numbers() + steps)[None]))
        value = check_repeatable(lambda: self.evaluate(moved))
        if self._native.python is not None and not np.isnan(value).any():
            check_repeatable(iter([value, np.atleast_1d(self._native.python(self.point.at(moved, 0)))]).__next__)

    def base(self) -> Values:
        if self._base is None:
            entries = np.arange(self.point.size)[None]
            self._base = self.evaluate(Moves(entries, self.point.numbers()[None]))[0]
        return np.asarray(self._base)

    def evaluate(self, moves: Moves, guarded: bool = False) -> npt.NDArray[Any]:
        if moves.values.dtype.kind == "c":
            raise TypeError("method='complex' needs a function that takes complex numbers: a native one takes double")
        backend, x = backends.active(), np.ascontiguousarray(self.point.numbers())
        found, done = np.empty(len(moves.entries)), 0
        while done < len(found):
            entries, values = moves.part(done, done + self._piece)
            part, started = slice(done, done + len(entries)), time.perf_counter()
            found[part] = backend.evaluate(
                self._native.address,
                self._native.data,
                x,
                np.ascontiguousarray(entries, np.int64),
                np.ascontiguousarray(values),
            )
            self._tick(len(entries))
            done += len(entries)
            self._piece = max(LEAST_PIECE, int(len(entries) * PIECE_SECONDS / (time.perf_counter() - started)))
        self.evaluations += len(found)
        if self._native.python is not None and not guarded and np.isnan(found).any():
            self._native.python(self.point.at(moves, int(np.argmax(np.isnan(found)))))  # raises what was lost, if any
        return found
