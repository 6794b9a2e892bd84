"""How a function of one's own is called: what it returns is checked and copied, and its argument must stay."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks

# Any: users' functions take and return what they like; the returned values are checked at run time.
Function: TypeAlias = Callable[[Any], Any]
Values: TypeAlias = npt.NDArray[np.float64]


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

    def __call__(self, x: Any) -> Values:
        """Return f(x), shape () for a scalar function; it has the same shape at every call."""
        before = x.copy() if isinstance(x, np.ndarray) else None
        returned = self._f(x)
        if before is not None and not _same(x, before):
            x[...] = before
            raise ValueError(
                "f changes its argument, as x -= 1 or x[x < 0] = 0 do: let it compute with a copy, as in x = x.copy()"
            )
        value = self._as_value(returned)
        if self._shape is not None and value.shape != self._shape:
            raise ValueError(f"f returned arrays of shapes {self._shape} and {value.shape}")
        self._shape = value.shape
        return value

    def _as_value(self, returned: Any) -> Values:
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
        if isinstance(returned, (np.ndarray, np.generic)) and array.dtype.kind == "f":
            self.dtype = array.dtype if self.dtype is None else min(self.dtype, array.dtype, key=_digits)
        return np.array(array.reshape(()) if self._scalar else array, dtype=np.float64)


def _digits(dtype: np.dtype[Any]) -> int:
    return int(np.finfo(dtype).nmant)


def narrowest(*dtypes: np.dtype[Any] | None) -> np.dtype[Any]:
    """Return the floating-point dtype with the fewest digits; float64 if there is none."""
    return min((dtype for dtype in dtypes if dtype is not None), key=_digits, default=np.dtype(np.float64))


def _same(x: npt.NDArray[Any], before: npt.NDArray[Any]) -> bool:
    """Return whether two arrays are equal, NaN in the same places included."""
    return np.array_equal(x, before) or np.array_equal(x, before, equal_nan=True)
