"""An affine layer and its activation: the forward pass of one layer, and every matrix product of backprop."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastnet._tools.types import FloatArray
from fastnet.backends._numba import activations, products, threads
from fastnet.backends._numba.jit import borrowed, jit, plain
from fastnet.backends.spec import Activation


class Layer(NamedTuple):
    """One layer's work: ``activation(a @ weight + bias)``."""

    a: FloatArray  # (rows, inputs), flat
    row_step: int  # from one row of `a` to the next: 1 where `a` is transposed
    input_step: int  # from one input to the next
    weight: FloatArray  # (inputs, outputs)
    bias: FloatArray  # (outputs,) or (0,)
    kind: int  # the activation
    constant: Any  # of the activation, in the dtype of the arrays
    out: FloatArray  # (rows, outputs)
    derivative: FloatArray  # of the activation, (rows, outputs), or (0, 0) where it is not wanted


@jit()
def fill_rows(begin: int, end: int, layer: Layer) -> None:
    # Rows begin to end of layer.out and layer.derivative.
    layer = borrowed(layer)
    out, derivative = layer.out[begin:end], layer.derivative[begin:end].ravel()
    a = layer.a[begin * layer.row_step :]
    if not products.worth_skipping_zeros(layer.a, layer.weight):
        products.product(a, layer.row_step, layer.input_step, layer.weight, out)
    elif layer.row_step == 1:
        products.product_of_transposed_nonzeros(a, layer.input_step, layer.weight, out)
    else:
        rows = a[: len(out) * layer.row_step].reshape((len(out), layer.row_step))
        products.product_of_nonzeros(rows, layer.weight, out)
    if layer.bias.size > 0:
        for i in range(out.shape[0]):
            for j in range(out.shape[1]):
                out[i, j] += layer.bias[j]
    if derivative.size > 0:
        activations.derive(layer.kind, layer.constant, out.ravel(), derivative)
    activations.activate(layer.kind, layer.constant, out.ravel(), out.ravel())


def affine(
    a: FloatArray,
    weight: FloatArray,
    bias: FloatArray | None = None,
    kind: Activation = Activation.IDENTITY,
    constant: float = 0.0,
    derivative: FloatArray | None = None,
) -> FloatArray:
    """Return the activation of ``a @ weight + bias`` and fill `derivative`. `a` may be a transposed array."""
    (rows, inputs), outputs, dtype = a.shape, weight.shape[1], a.dtype
    flat, row_step, input_step = (a.ravel(), inputs, 1) if a.flags.c_contiguous else (a.T.ravel(), 1, rows)
    bias = np.empty(0, dtype) if bias is None else plain(bias)
    derivative = np.empty((0, 0), dtype) if derivative is None else derivative
    out, of_kind = np.empty((rows, outputs), dtype), dtype.type(constant)
    layer = Layer(flat, row_step, input_step, plain(weight), bias, int(kind), of_kind, out, derivative)
    # Cuts at multiples of the 4 rows of a tile in `products.product`: no row's bits depend on the threads.
    threads.share(fill_rows, (layer,), rows, weight.size + threads.UNIT_PRODUCTS * outputs, multiple=4)
    return out
