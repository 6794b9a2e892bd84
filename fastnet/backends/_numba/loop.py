"""The algorithm `loop`: two full forward passes for each perturbed parameter."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends._numba import affine, losses, network, products, threads
from fastnet.backends._numba.jit import borrowed, jit, plain
from fastnet.backends.spec import NetworkSpec, Output


class Loop(NamedTuple):
    """A network of any depth, its data, and the entries to perturb: one type, so that the kernel is compiled once."""

    theta: FloatArray  # every parameter, in the order of NetworkSpec.parameters
    layers: Any  # (depth,) records: network.LAYER
    widest: int  # the most units of a layer
    weight_decay: float
    output: int
    loss: int
    x: FloatArray  # (batch, inputs)
    labels: IntArray  # (batch,) or (0,)
    rows: FloatArray  # (0, 0) or (batch, classes)
    h: float
    entries: IntArray  # indices into theta
    differences: FloatArray  # (entries,): the result


@jit(python=False)
def _penalty(work: Loop, theta: FloatArray) -> float:
    # theta as in `work` -> scalar. One sum per lane: these vectorise, and they round less than a single sum.
    lanes = np.zeros(32)
    for number in range(len(work.layers)):
        layer = work.layers[number]
        weight = theta[layer.weights : layer.biases]
        for i in range(0, weight.size, lanes.size):
            for lane in range(min(lanes.size, weight.size - i)):
                lanes[lane] += np.float64(weight[i + lane]) ** 2
    return 0.5 * work.weight_decay * float(lanes.sum())


@jit(python=False)
def _loss(work: Loop, theta: FloatArray, units_of_layers: FloatArray) -> float:
    # theta as in `work`, units_of_layers (2, threads.BLOCK_ROWS * work.widest) as scratch -> scalar.
    total = 0.0
    first, input_step = products.ONE - products.ONE, products.ONE
    for begin in range(0, len(work.x), threads.BLOCK_ROWS):
        units = work.x[begin : begin + threads.BLOCK_ROWS]
        rows = len(units)
        for number in range(len(work.layers)):
            layer = work.layers[number]
            weight = theta[layer.weights : layer.biases].reshape((layer.inputs, layer.outputs))
            bias = theta[layer.biases : layer.end]
            constant = theta.dtype.type(layer.constant)
            out = units_of_layers[number % 2, : rows * layer.outputs].reshape((rows, layer.outputs))
            affine.fill_rows(
                first,
                rows,
                affine.Layer(units.ravel(), layer.inputs, input_step, weight, bias, layer.kind, constant, out, out[:0]),
            )
            units = out
        if work.output == Output.SOFTMAX:
            losses.softmax(units, units)
        end = begin + rows
        total += losses.sum_losses(work.loss, units, work.labels[begin:end], work.rows[begin:end])
    total /= len(work.x)
    return total + _penalty(work, theta) if work.weight_decay != 0 else total


@jit()
def _perturb(begin: int, end: int, work: Loop) -> None:
    # Elements begin to end of work.differences.
    work = borrowed(work)
    theta, step = work.theta.copy(), work.theta.dtype.type(work.h)
    units_of_layers = np.empty((2, threads.BLOCK_ROWS * work.widest), theta.dtype)
    for n in range(begin, end):
        value = theta[work.entries[n]]
        theta[work.entries[n]] = value + step
        above = _loss(work, theta, units_of_layers)
        theta[work.entries[n]] = value - step
        below = _loss(work, theta, units_of_layers)
        theta[work.entries[n]] = value
        work.differences[n] = (above - below) / (2 * work.h)


def loop(spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float, entries: IntArray) -> FloatArray:
    """Return the central differences for `entries`, which are flat indices into ``spec.parameters``."""
    labels, rows = losses.labels_and_rows(t, spec.dtype)
    layout = network.layout(spec)
    work = Loop(
        theta=spec.flatten(spec.parameters),
        layers=layout.layers,
        widest=max(w.shape[1] for w in spec.weights),
        weight_decay=float(spec.weight_decay),
        output=int(spec.output),
        loss=int(spec.loss),
        x=plain(x),
        labels=labels,
        rows=rows,
        h=float(h),
        entries=plain(entries),
        differences=np.empty(len(entries), spec.dtype),
    )
    passes = 2 * len(x) * layout.products
    threads.share(_perturb, (work,), len(entries), passes)
    return work.differences
