"""How a function of one's own is called: what it returns is checked and copied, and its argument must stay."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks

# Any: users' functions take and return what they like; the returned values are checked at run time.
Function: TypeAlias = Callable[[Any], Any]
Values: TypeAlias = npt.NDArray[np.float64]

OUTSIDE = (ArithmeticError, ValueError, TypeError)  # what functions raise where they are not defined


class Caller:
    """Calls a function, and answers for what goes in and what comes out.

    A value is copied as it arrives, as float64: the function may return the same buffer again and again, or a small
    integer type whose differences wrap round. A call after which the argument is no longer what it was raises
    ValueError.

    Parameters
    ----------
    f : callable
        Takes an array and returns real numbers.
    scalar : bool
        Whether it must return one number.

    Attributes
    ----------
    dtype : numpy.dtype or None
        The narrowest floating-point dtype that it has returned: its values have no more digits. None before the first
        call, and while it returns Python's numbers or integers.
    """

    def __init__(self, f: Function, *, scalar: bool) -> None:
        checks.check_function(f)
        self._f, self._scalar = f, scalar
        self.dtype: np.dtype[Any] | None = None
        self._shape: tuple[int, ...] | None = None

    def __call__(self, x: Any, guarded: bool = False) -> Values:
        """Return f(x), shape () for a scalar function; it has the same shape at every call.

        Where `guarded`, the value is NaN if f is not defined at `x`: if it raises as functions do there, or its value
        is complex.
        """
        if type(x) is np.ndarray:  # The usual case: two copies of its bytes are all that the comparison costs.
            bytes_before = x.tobytes()
            returned = self._returned(x, guarded)
            if x.tobytes() != bytes_before:
                _check_unchanged({"": x}, {"": bytes_before})
        elif isinstance(x, (dict, list)):
            arrays = arrays_of(x)
            before = {name: array.tobytes() for name, array in arrays.items()}
            returned = self._returned(x, guarded)
            _check_unchanged(arrays, before)
        else:
            returned = self._returned(x, guarded)
        return self._as_before(self.value_of(returned))

    def of_copy(self, x: Any, guarded: bool = False) -> Values:
        """Return f(x) for an argument that nobody else has: whether f changes it does not matter."""
        return self._as_before(self.value_of(self._returned(x, guarded)))

    def _as_before(self, value: Values) -> Values:
        if self._shape is not None and value.shape != self._shape:
            raise ValueError(f"f returned arrays of shapes {self._shape} and {value.shape}")
        self._shape = value.shape
        return value

    def _returned(self, x: Any, guarded: bool) -> Any:
        if not guarded:
            return self._f(x)
        try:
            returned = self._f(x)
        except OUTSIDE:
            return np.full(self._shape or (), np.nan)
        return np.full(self._shape or (), np.nan) if np.iscomplexobj(returned) else returned

    def complex_value(self, x: Any) -> npt.NDArray[np.complex128]:
        """Return the complex value of f at a complex argument, which is a copy."""
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error")  # NumPy only warns where an imaginary part is lost.
                returned = np.asarray(self._f(x))
        except Exception as error:
            raise TypeError(
                f"method='complex' needs a function that takes complex numbers, but f raised "
                f"{checks.type_name(error)} for one: {error}"
            ) from error
        if returned.dtype.kind != "c":
            raise TypeError(
                f"method='complex' needs a function that takes complex numbers, but f returned {returned.dtype} for one"
            )
        if self._scalar and returned.size != 1:
            raise TypeError(
                f"f must return one number, but it returned {checks.type_name(returned)} of shape {returned.shape}"
            )
        return np.array(returned.reshape(()) if self._scalar else returned, np.complex128)

    def expect(self, shape: tuple[int, ...] | None) -> None:
        """Let the next value have this shape, or any."""
        self._shape = shape

    def value_of(self, returned: Any) -> Values:
        """Return what f returned as float64, if it is what f must return."""
        if type(returned) is float or (type(returned) is np.float64 and self.dtype is not None):
            return np.array(returned)  # The usual case: a number with all digits.
        wanted = "one real number" if self._scalar else "a real number or an array of real numbers"
        if returned is None:
            raise TypeError(f"f must return {wanted}, but it returned None: does it end without `return`?")
        if isinstance(returned, tuple):
            raise TypeError(
                f"f must return {wanted}, but it returned a tuple of {len(returned)}: to take its first element, write "
                f"lambda x: f(x)[0]"
            )
        try:
            array = np.asarray(returned)
        except ValueError as error:
            raise TypeError(f"f must return {wanted}, but it returned a ragged list: {error}") from error
        if array.dtype.kind not in "fiub":
            raise TypeError(
                f"f must return {wanted}, but it returned {checks.type_name(returned)} of dtype {array.dtype}"
            )
        if self._scalar and array.size != 1:
            raise TypeError(
                f"f must return {wanted}, but it returned {checks.type_name(returned)} of shape {array.shape}"
            )
        if array.dtype is not self.dtype and isinstance(returned, (np.ndarray, np.generic)) and array.dtype.kind == "f":
            self.dtype = array.dtype if self.dtype is None else min(self.dtype, array.dtype, key=_digits)
        return np.array(array.reshape(()) if self._scalar else array, dtype=np.float64)


def check_repeatable(f: Callable[[], Any]) -> Values:
    """Return f(); ValueError if two calls differ by more than rounding may, which is about the root of eps."""
    first, second = np.asarray(f()), np.asarray(f())
    if first.shape != second.shape or first.tobytes() == second.tobytes():  # other shapes are reported by the caller
        return second
    with np.errstate(invalid="ignore"):
        differ, size = np.abs(first - second), np.maximum(np.abs(first), np.abs(second))
    eps = 2e-16 if first.dtype.itemsize >= 8 else float(np.finfo(first.dtype).eps)
    wrong = differ > eps**0.5 * size
    if wrong.any():
        at = int(np.argmax(np.where(wrong, differ, -1.0)))
        values = first.ravel()[at], second.ravel()[at], differ.ravel()[at]
        raise ValueError(
            "f is not deterministic: two calls at the same x returned {:.6g} and {:.6g}, which differ by {:.2g}. "
            "Does it draw a dropout mask or a batch? Draw it once, outside of f".format(*values)
        )
    return second


def check_function_of(call: Caller, x: Any, steps: Mapping[str, npt.NDArray[Any]], must_use: str = "") -> None:
    """Raise if `call` gives two values at one point; warn if it reads `x` both as its argument and elsewhere.

    All elements of `x`, an array or a list or dict of arrays, are moved by their steps, in place, and then those of a
    copy. A function that only uses its argument gives the same value, and one that only uses the arrays elsewhere does
    not see the copy. `steps` has the names of `arrays_of`.

    With `must_use`, a function that does not see the copy is refused with ValueError, and this text says why.
    """
    arrays = arrays_of(x)
    before = {name: array.copy() for name, array in arrays.items()}
    with np.errstate(over="ignore", invalid="ignore"):
        shifted = {name: (array + steps[name]).astype(array.dtype) for name, array in arrays.items()}
    try:
        try:
            for name, array in arrays.items():
                array[...] = shifted[name]
            in_place = check_repeatable(lambda: call(x))
        finally:
            for name, array in arrays.items():
                array[...] = before[name]
        if isinstance(x, np.ndarray):
            of_copy = call(shifted[""])
        else:
            of_copy = call(dict(shifted) if isinstance(x, dict) else list(shifted.values()))
    except Exception as error:
        add_note(error, "f was evaluated with each element of x moved by its step")
        raise
    if _close(in_place, of_copy, call.dtype):
        return
    if must_use:
        raise ValueError(must_use)
    if _close(of_copy, check_repeatable(lambda: call(x)), call.dtype):
        return
    warnings.warn(
        "f reads x both as its argument and elsewhere: the differences move both, and the gradient is that of both "
        "together. If x is also data in f, pass a copy: numerical_gradient(f, x.copy())",
        RuntimeWarning,
        stacklevel=2,
    )


def add_note(error: BaseException, note: str) -> None:
    """Add a note to an exception, once."""
    if note in getattr(error, "__notes__", ()):
        return
    if hasattr(error, "add_note"):
        error.add_note(note)
    else:  # Python 3.10
        error.__notes__ = [*getattr(error, "__notes__", ()), note]


def arrays_of(x: Any) -> dict[Any, npt.NDArray[Any]]:
    """Return the arrays in an argument of f by their keys; the key of a lone array is empty."""
    if isinstance(x, np.ndarray):
        return {"": x}
    items = x.items() if isinstance(x, dict) else enumerate(x)
    return {key: array for key, array in items if isinstance(array, np.ndarray)}


def _check_unchanged(arrays: dict[Any, npt.NDArray[Any]], before: dict[Any, bytes]) -> None:
    """Raise ValueError, and restore, if arrays no longer have these bytes; NaN and zeros may have other bits."""
    changed = []
    for name, array in arrays.items():
        if array.tobytes() != before[name]:
            was = np.frombuffer(before[name], array.dtype).reshape(array.shape)
            if not _same(array, was):
                array[...] = was
                changed.append(name)
    if changed:
        which = f", {', '.join(map(repr, changed))}" if changed != [""] else ""
        raise ValueError(
            f"f changes its argument{which}, as x -= 1 or x[x < 0] = 0 do: let it compute with a copy, as in "
            f"x = x.copy()"
        )


def _close(one: Values, other: Values, dtype: np.dtype[Any] | None) -> bool:
    """Return whether two values are equal but for rounding, or not finite."""
    if one.tobytes() == other.tobytes():
        return True
    eps = float(np.finfo(narrowest(dtype)).eps)
    with np.errstate(invalid="ignore"):
        far = np.abs(one - other) > 1e3 * eps * np.maximum(np.abs(one), np.abs(other))
    return not far.any()


@functools.cache
def _digits(dtype: np.dtype[Any]) -> int:
    return int(np.finfo(dtype).nmant)


@functools.cache
def narrowest(*dtypes: np.dtype[Any] | None) -> np.dtype[Any]:
    """Return the floating-point dtype with the fewest digits; float64 if there is none."""
    return min((dtype for dtype in dtypes if dtype is not None), key=_digits, default=np.dtype(np.float64))


def _same(x: npt.NDArray[Any], before: npt.NDArray[Any]) -> bool:
    """Return whether two arrays are equal, NaN in the same places included."""
    return np.array_equal(x, before) or np.array_equal(x, before, equal_nan=True)
