"""Chains: forward pass and backprop."""

from __future__ import annotations

import numpy as np

from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends import _numpy
from fastnet.backends._numba import functions, losses
from fastnet.backends._numba.affine import affine
from fastnet.backends._numba.jit import plain
from fastnet.backends.spec import NetworkSpec, Output


def forward(spec: NetworkSpec, x: FloatArray) -> FloatArray:
    units: FloatArray = plain(x)
    for layer in spec.layers:
        units = affine(units, *layer)
    if spec.output == Output.SOFTMAX:
        losses.softmax(units, units)
    return units


def loss(spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray) -> float:
    return _mean_loss(spec, forward(spec, x), t)


def _mean_loss(spec: NetworkSpec, y: FloatArray, t: FloatArray | IntArray) -> float:
    return functions.mean_loss(spec.loss, y, t, spec.loss_constant) + _numpy.penalty(spec)


@_numpy.quietly
def loss_and_gradient(spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray) -> tuple[float, list[FloatArray]]:
    units = [plain(x)]  # x and each layer's units
    derivatives = []  # of each layer's activation
    for weight, bias, kind, constant in spec.layers:
        derivatives.append(np.empty((len(x), weight.shape[1]), x.dtype))
        units.append(affine(units[-1], weight, bias, kind, constant, derivatives[-1]))
    y = functions.softmax(units[-1]) if spec.output == Output.SOFTMAX else units[-1]

    rows = _numpy.target_rows(t, y)
    dy = _numpy.loss_derivative(spec.loss, y, rows, spec.loss_constant)
    if spec.output == Output.SOFTMAX:
        dy = losses.softmax_backward(y, dy)
    dz = dy / y.dtype.type(len(x))

    reversed_gradients: list[FloatArray] = []
    for layer in reversed(range(len(spec.layers))):
        weight, bias, *_ = spec.layers[layer]
        da = dz * derivatives[layer]
        if bias is not None:
            reversed_gradients.append(da.sum(axis=0))
        reversed_gradients.append(_numpy.with_decay(spec, affine(units[layer].T, da), weight))
        if layer > 0:
            dz = affine(da, np.ascontiguousarray(weight.T))
    return _mean_loss(spec, y, t), reversed_gradients[::-1]
