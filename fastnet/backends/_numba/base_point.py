"""The point where finite differences start: a forward pass that keeps what they need to know of every unit."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends._numba import activations, losses, products
from fastnet.backends._numba.jit import borrowed, jit
from fastnet.backends._numba.losses import Answer
from fastnet.backends._numba.network import Layout, Net
from fastnet.backends.spec import Activation, NetworkSpec, Output


class Chunk(NamedTuple):
    """The rows at work, their units, and the moves of the units' pre-activations.

    A pair is a row and a layer; its number is row * depth + layer. Units of a row are those of all layers, each padded
    to whole LANES. `x`, `z` and `losses` have the network's dtype, all else is float64.
    """

    x: FloatArray  # (rows, inputs)
    labels: IntArray  # (rows,): the target's class, or -1 where `targets` counts
    targets: FloatArray  # (rows, classes), or (rows, 0) where all targets are labels
    z: FloatArray  # (rows, units): after the activation
    a: FloatArray  # (rows, units): before the activation
    s: FloatArray  # (rows, units): what `activations.place` says of them
    c: FloatArray  # (rows, units)
    last: FloatArray  # (rows, classes): softmax's argument, or the answer itself
    y: FloatArray  # (rows, classes): the answer
    likeliest: IntArray  # (rows,): the class with the greatest answer
    losses: FloatArray  # (rows,)
    far: npt.NDArray[np.uint8]  # (rows,): whether moves from the row's pre-activations or its loss may lose digits
    met: npt.NDArray[np.uint8]  # (rows, units): what moves of each unit met, as bits: `moves.KINK`, `moves.FAR`
    counts: IntArray  # (rows, depth): moves of each pair
    moves: FloatArray  # (rows, places): the moves
    which: npt.NDArray[np.int32]  # (rows, places): the move that each input, and the bias, makes; -1 for none


def labels_and_targets(t: FloatArray | IntArray) -> tuple[IntArray, FloatArray]:
    """Return labels and targets as a chunk takes them. One-hot rows become labels."""
    if t.ndim == 1:
        return np.array(t, np.int64), np.empty((len(t), 0))
    one_hot = ((t == 1).sum(axis=1) == 1) & ((t != 0).sum(axis=1) == 1)
    return np.where(one_hot, (t == 1).argmax(axis=1), -1), np.array(t, np.float64)


def allocate(rows: int, spec: NetworkSpec, layout: Layout) -> dict[str, Any]:
    """Return memory for what a chunk of so many rows keeps, by the names of the fields after `targets`."""
    return {
        "z": np.zeros((rows, layout.units), spec.dtype),
        "a": np.zeros((rows, layout.units)),
        "s": np.zeros((rows, layout.units)),
        "c": np.zeros((rows, layout.units)),
        "last": np.empty((rows, spec.classes)),
        "y": np.empty((rows, spec.classes)),
        "likeliest": np.empty(rows, np.int64),
        "losses": np.empty(rows, spec.dtype),
        "far": np.empty(rows, np.uint8),
        "met": np.empty((rows, layout.units), np.uint8),
        "counts": np.empty((rows, len(layout.layers)), np.int64),
        "moves": np.empty((rows, layout.places)),
        "which": np.empty((rows, layout.places), np.int32),
    }


@jit(inline=True)
def inputs_of(net: Net, chunk: Chunk, row: int, number: int) -> FloatArray:
    # (inputs,) of layer `number`.
    units = net.layers[number - 1].units
    inputs: FloatArray = chunk.x[row] if number == 0 else chunk.z[row, units : units + net.layers[number].inputs]
    return inputs


@jit(inline=True)
def answer_of(chunk: Chunk, row: int) -> Answer:
    return Answer(chunk.last[row], chunk.y[row], chunk.likeliest[row], chunk.labels[row], chunk.targets[row])


@jit()
def forward(begin: int, end: int, net: Net, chunk: Chunk) -> None:
    # Rows begin to end: everything from chunk.z to chunk.losses.
    net, chunk = borrowed(net), borrowed(chunk)
    rows = end - begin
    for number in range(len(net.layers)):
        layer = net.layers[number]
        inputs, outputs, units, kind = layer.inputs, layer.outputs, layer.units, layer.kind
        weight = net.theta[layer.weights : layer.biases].reshape((inputs, outputs))
        bias = net.theta[layer.biases : layer.end]
        out = np.empty((rows, outputs), net.theta.dtype)
        if number == 0:
            products.product_of_nonzeros(chunk.x[begin:end], weight, out)
        else:
            before = chunk.z[begin:].ravel()[net.layers[number - 1].units :]
            products.product(before, chunk.z.shape[1], products.ONE, weight, out)
        for i in range(rows):
            a = chunk.a[begin + i]
            for j in range(outputs):
                out[i, j] += bias[j] if bias.size > 0 else out.dtype.type(0)
                a[units + j] = out[i, j]
            at = slice(units, units + outputs)
            activations.place(kind, a[at], chunk.s[begin + i, at], chunk.c[begin + i, at])
        if kind == Activation.SIGMOID:
            for i in range(rows):
                for j in range(outputs):
                    out[i, j] = chunk.s[begin + i, units + j]
        else:
            activations.activate(kind, net.theta.dtype.type(layer.constant), out.ravel(), out.ravel())
        for i in range(rows):
            for j in range(outputs):
                chunk.z[begin + i, units + j] = out[i, j]
                if number == len(net.layers) - 1:
                    chunk.last[begin + i, j] = chunk.y[begin + i, j] = out[i, j]
    if net.output == Output.SOFTMAX:
        losses.softmax(chunk.y[begin:end], chunk.y[begin:end])
    for row in range(begin, end):
        best, one = 0, slice(row, row + 1)
        for k in range(chunk.y.shape[1]):
            best = k if chunk.y[row, k] > chunk.y[row, best] else best
        chunk.likeliest[row] = best
        if chunk.labels[row] >= 0:
            chunk.losses[row] = losses.sum_losses(
                net.loss, net.loss_constant, chunk.y[one], chunk.labels[one], chunk.targets[:0]
            )
        else:
            chunk.losses[row] = losses.sum_losses(
                net.loss, net.loss_constant, chunk.y[one], chunk.labels[:0], chunk.targets[one]
            )
        far = activations.any_far(chunk.a[row]) or activations.any_far(chunk.losses[one])
        chunk.far[row] = 1 if far else 0
