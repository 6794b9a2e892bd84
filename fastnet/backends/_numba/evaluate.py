"""Functions of compiled code, called by their addresses at many points near x."""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic

from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends._numba.jit import jit
from fastnet.backends._numba.threads import SHORT_PRODUCTS, share


def _call(context: Any, address: Any, n: Any, x: Any, data: Any) -> Any:
    """Return ``((double (*)(intptr_t, const double *, void *)) address)(n, x, data)``; all are integers."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        word = ir.IntType(64)
        pointer = builder.inttoptr(arguments[0], ir.FunctionType(ir.DoubleType(), [word, word, word]).as_pointer())
        return builder.call(pointer, list(arguments[1:]))

    return types.float64(types.int64, types.int64, types.int64, types.int64), generate


call_address: Any = intrinsic(_call)


@jit()
def _evaluate(
    begin: Any, end: Any, function: Any, data: Any, x: Any, entries: Any, values: Any, out: Any, changed: Any
) -> None:
    at = x.copy()
    for k in range(begin, end):
        for i in range(entries.shape[1]):
            at[entries[k, i]] = values[k, i]
        out[k] = call_address(function, at.size, at.ctypes.data, data)
        for i in range(entries.shape[1]):
            at[entries[k, i]] = x[entries[k, i]]
    for i in range(at.size):
        if at[i] != x[i] and (at[i] == at[i] or x[i] == x[i]):
            changed[0] = 1


def evaluate(function: int, data: int, x: FloatArray, entries: IntArray, values: FloatArray) -> FloatArray:
    out, changed = np.empty(len(entries)), np.zeros(1, np.int64)
    arguments = (np.int64(function), np.int64(data), x, entries, values, out, changed)
    share(_evaluate, arguments, len(entries), SHORT_PRODUCTS)
    if changed[0]:
        raise ValueError("f changes its argument, which is const: let it compute with a copy")
    return out
