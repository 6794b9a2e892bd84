"""How the Numba backend compiles its kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numba
import numpy as np
from numba.core import types
from numba.extending import intrinsic

from fastnet.backends._numba import compiling

Kernel = TypeVar("Kernel", bound=Callable[..., Any])
Values = TypeVar("Values")

compiling.announce()


def jit(
    inline: bool = False, python: bool | None = None, contract: bool = True, merge: bool = False
) -> Callable[[Kernel], Kernel]:
    """Return the decorator that compiles a kernel: every compiler option is here.

    Of fastmath only the contraction to fused multiply-adds is allowed: the rest would assume that nothing is NaN. A
    loop that calls a function vectorises only if that function is compiled with `inline`. Without `contract`, each
    operation is rounded as NumPy rounds it.

    Functions with `inline` have no wrapper to be called by from Python, which would end the process: with many arrays,
    wrappers take a tenth of the time to compile. `python` says otherwise, or the same of another function.

    A function with `merge` is compiled as a part of each of its callers, and not by itself. It is for what has one
    caller: a function that is compiled by itself is optimised once more in each function above it.

    Kernels copy arrays into slices by loops: an assignment has an error message for other shapes, and the functions on
    strings that write it take as long to compile as several kernels.
    """
    fastmath = {"contract"} if contract else False
    options: Any = {"nogil": True, "error_model": "numpy", "fastmath": fastmath, "forceinline": inline}
    options |= {"inline": "always"} if merge else {}
    options |= {"no_cfunc_wrapper": True, "no_cpython_wrapper": inline if python is None else not python}

    def decorate(function: Kernel) -> Kernel:
        try:
            return cast(Kernel, numba.njit(cache=True, **options)(function))
        except RuntimeError:  # Neither the package's folder nor the user's cache folder can be written.
            return cast(Kernel, numba.njit(**options)(function))

    return decorate


def _without_owners(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    (values,) = arguments
    for i, kind in enumerate(signature.args[0].types):
        if isinstance(kind, types.Array):
            array = context.make_array(kind)(context, builder, builder.extract_value(values, i))
            array.meminfo = array.meminfo.type(None)  # A null pointer.
            array.parent = array.parent.type(None)
            values = builder.insert_value(values, array._getvalue(), i)
    return values


@intrinsic
def _borrowed(context: Any, values: Any) -> Any:
    return values(values), _without_owners


if TYPE_CHECKING or vars(numba.config)["DISABLE_JIT"]:

    def borrowed(values: Values) -> Values:
        """Return a kernel's argument, a named tuple, with arrays that only the caller owns.

        Numba would count references at each use of an array: atomic instructions, for which threads wait on each other.
        """
        return values

else:
    borrowed = _borrowed


def plain(array: Any) -> Any:
    """Return the array itself, or a copy if it is read-only or not contiguous.

    Each of these is another type to Numba, for which every kernel would be compiled again.
    """
    return np.require(array, requirements=["C", "A", "W"])
