"""How the Numba backend compiles its kernels."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar, cast

import numba
from numba.core import types
from numba.extending import intrinsic

Kernel = TypeVar("Kernel", bound=Callable[..., Any])
Values = TypeVar("Values")


def jit(inline: bool = False) -> Callable[[Kernel], Kernel]:
    """Return the decorator with every compiler option. Full fastmath would assume that nothing is NaN.

    A loop vectorises only if what it calls is part of it: `inline`.
    """
    options: Any = {"nogil": True, "error_model": "numpy", "fastmath": {"contract"}, "forceinline": inline}

    def decorate(function: Kernel) -> Kernel:
        try:
            return cast(Kernel, numba.njit(cache=True, **options)(function))
        except RuntimeError:  # neither the package's folder nor the user's cache folder can be written
            return cast(Kernel, numba.njit(**options)(function))

    return decorate


def _without_owners(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
    (values,) = arguments
    for i, kind in enumerate(signature.args[0].types):
        if isinstance(kind, types.Array):
            array = context.make_array(kind)(context, builder, builder.extract_value(values, i))
            array.meminfo = array.meminfo.type(None)  # null
            array.parent = array.parent.type(None)
            values = builder.insert_value(values, array._getvalue(), i)
    return values


@intrinsic
def _borrowed(context: Any, values: Any) -> Any:
    return values(values), _without_owners


if TYPE_CHECKING or vars(numba.config)["DISABLE_JIT"]:

    def borrowed(values: Values) -> Values:
        """Return the argument of a kernel, a named tuple, with arrays whose owner is the caller alone.

        Otherwise each use of an array counts its owners: an atomic instruction, for which threads wait on each other.
        """
        return values

else:
    borrowed = _borrowed
