"""Matrix products: every sum is one chain of multiply-adds, in the order of the inner index.

Products that skip zeros leave out terms that add nothing. As long as the other factor is finite, the sum has the same
bits with and without them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from fastnet._tools.types import FloatArray
from fastnet.backends._numba.jit import jit

ONE: Any = np.int64(1)  # Numba gives the literal 1 a type of its own and would compile for it again.
COLUMNS = 56  # Columns of a transposed matrix that are handled together, so that what they add to stays in the cache.


@jit()
def product(a: FloatArray, row_step: int, inner_step: int, b: FloatArray, out: FloatArray) -> None:
    # a (rows, inner), flat with these steps between its elements; b (inner, outputs) -> out = a @ b (rows, outputs).
    # In tiles of 4 x 4, so that each row of b and out that is loaded serves four times.
    rows, inner = out.shape[0], b.shape[0]
    row_fours, inner_fours = rows - rows % 4, inner - inner % 4
    out[:] = 0
    for i in range(0, row_fours, 4):
        out0, out1, out2, out3 = out[i], out[i + 1], out[i + 2], out[i + 3]
        for k in range(0, inner_fours, 4):
            b0, b1, b2, b3 = b[k], b[k + 1], b[k + 2], b[k + 3]
            p = i * row_step + k * inner_step
            q, r, s = p + row_step, p + 2 * row_step, p + 3 * row_step
            p0, p1, p2, p3 = a[p], a[p + inner_step], a[p + 2 * inner_step], a[p + 3 * inner_step]
            q0, q1, q2, q3 = a[q], a[q + inner_step], a[q + 2 * inner_step], a[q + 3 * inner_step]
            r0, r1, r2, r3 = a[r], a[r + inner_step], a[r + 2 * inner_step], a[r + 3 * inner_step]
            s0, s1, s2, s3 = a[s], a[s + inner_step], a[s + 2 * inner_step], a[s + 3 * inner_step]
            for j in range(out.shape[1]):
                c0, c1, c2, c3 = b0[j], b1[j], b2[j], b3[j]
                out0[j] = out0[j] + p0 * c0 + p1 * c1 + p2 * c2 + p3 * c3
                out1[j] = out1[j] + q0 * c0 + q1 * c1 + q2 * c2 + q3 * c3
                out2[j] = out2[j] + r0 * c0 + r1 * c1 + r2 * c2 + r3 * c3
                out3[j] = out3[j] + s0 * c0 + s1 * c1 + s2 * c2 + s3 * c3
    for i in range(row_fours, rows):
        out0 = out[i]
        for k in range(0, inner_fours, 4):
            b0, b1, b2, b3 = b[k], b[k + 1], b[k + 2], b[k + 3]
            p = i * row_step + k * inner_step
            p0, p1, p2, p3 = a[p], a[p + inner_step], a[p + 2 * inner_step], a[p + 3 * inner_step]
            for j in range(out.shape[1]):
                out0[j] = out0[j] + p0 * b0[j] + p1 * b1[j] + p2 * b2[j] + p3 * b3[j]
    for i in range(rows):
        out0 = out[i]
        for k in range(inner_fours, inner):
            b0, p0 = b[k], a[i * row_step + k * inner_step]
            for j in range(out.shape[1]):
                out0[j] += p0 * b0[j]


@jit()
def product_of_nonzeros(x: FloatArray, weight: FloatArray, out: FloatArray) -> None:
    # x (rows, inputs), weight (inputs, outputs) -> out = x @ weight (rows, outputs), skipping zeros of x.
    which = np.empty(x.shape[1] + 3, np.int64)
    for row in range(len(x)):
        count, from_, to = 0, x[row], out[row]
        for i in range(from_.size):
            which[count] = i
            count += 1 if from_[i] != 0 else 0
        to[:] = 0
        fours = count - count % 4
        for n in range(0, fours, 4):
            i0, i1, i2, i3 = which[n], which[n + 1], which[n + 2], which[n + 3]
            x0, x1, x2, x3 = from_[i0], from_[i1], from_[i2], from_[i3]
            w0, w1, w2, w3 = weight[i0], weight[i1], weight[i2], weight[i3]
            for j in range(to.size):
                to[j] = to[j] + x0 * w0[j] + x1 * w1[j] + x2 * w2[j] + x3 * w3[j]
        for n in range(fours, count):
            x0, w0 = from_[which[n]], weight[which[n]]
            for j in range(to.size):
                to[j] += x0 * w0[j]


@jit()
def product_of_transposed_nonzeros(a: FloatArray, inner_step: int, b: FloatArray, out: FloatArray) -> None:
    # a (inner, rows), flat with this step between its rows; b (inner, outputs) -> out = a.T @ b (rows, outputs),
    # skipping zeros of a.
    outputs = out.shape[1]
    which, values = np.empty(COLUMNS + 3, np.int64), np.empty(COLUMNS + 3, a.dtype)
    out[:] = 0
    for first in range(0, len(out), COLUMNS):
        columns = min(COLUMNS, len(out) - first)
        for k in range(len(b)):
            count, from_, b0 = 0, a[k * inner_step + first : k * inner_step + first + columns], b[k]
            for i in range(columns):
                which[count], values[count] = first + i, from_[i]
                count += 1 if from_[i] != 0 else 0
            fours = count - count % 4
            for n in range(0, fours, 4):  # Each element of b that is loaded serves four times.
                x0, x1, x2, x3 = values[n], values[n + 1], values[n + 2], values[n + 3]
                out0, out1, out2, out3 = out[which[n]], out[which[n + 1]], out[which[n + 2]], out[which[n + 3]]
                for j in range(outputs):
                    out0[j] += x0 * b0[j]
                    out1[j] += x1 * b0[j]
                    out2[j] += x2 * b0[j]
                    out3[j] += x3 * b0[j]
            for n in range(fours, count):
                out0, x0 = out[which[n]], values[n]
                for j in range(outputs):
                    out0[j] += x0 * b0[j]


@jit()
def worth_skipping_zeros(a: FloatArray, b: FloatArray) -> bool:
    # a (size,), b (inner, outputs): whether a sample of a is mostly 0, and b is finite. 0 x inf is NaN, so that zeros
    # may not be skipped otherwise.
    zeros, step, flat, lost = 0, 61, b.ravel(), 0
    for i in range(0, a.size, step):
        zeros += 1 if a[i] == 0 else 0
    if zeros * 2 * step < a.size:
        return False
    for i in range(flat.size):
        lost |= 0 if abs(flat[i]) < np.inf else 1
    return lost == 0
