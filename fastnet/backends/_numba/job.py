"""Where finite differences start: what their kernels share, and a forward pass that keeps what they need."""

from __future__ import annotations

from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt

from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends._numba import elements as kernels
from fastnet.backends._numba import products
from fastnet.backends._numba.jit import borrowed, jit
from fastnet.backends.spec import Activation, Output

ByteArray: TypeAlias = npt.NDArray[np.uint8]

# Columns of `Job.layers`. Units are padded to whole LANES.
INPUTS, OUTPUTS, KIND, WEIGHTS, BIASES, END, UNITS, PADDED, PLACES = range(9)

GROUP = 56  # rows of a weight that a thread sums together: enough that some inputs are not 0


class Job(NamedTuple):
    """A network of any depth and a chunk of rows: one type for every kernel, so that each is compiled once.

    A pair is a row and a layer: number row * depth + layer. An element is what is evaluated together: LANES units of a
    pair, and some of its moves.
    """

    theta: FloatArray  # every parameter, in the order of NetworkSpec.parameters
    gradient: FloatArray  # the same
    layers: IntArray  # (depth, columns)
    widest: int  # the most units of a layer
    slope: float  # of a leaky ReLU
    output: int
    loss: int
    smooth: bool  # whether any activation bends
    steepest: float  # the greatest weight of the last layer
    effects: FloatArray  # (2, classes, units): how a unit of the last layer and the one before moves each class
    small: float  # the longest move for series
    short: float  # and for those of third order
    h: Any  # in the network's dtype, as are theta, the gradient, x, z and losses; all else is float64
    scale: float  # 1 / 2hN
    x: FloatArray  # (rows, inputs)
    labels: IntArray  # (rows,): the target, or -1 where its row counts
    targets: FloatArray  # (rows, classes) or (rows, 0)
    z: FloatArray  # (rows, units): after the activation
    a: FloatArray  # (rows, units): before it
    s: FloatArray  # (rows, units): what else differences start from
    c: FloatArray  # (rows, units)
    last: FloatArray  # (rows, classes): softmax's argument, or the answer itself
    y: FloatArray  # (rows, classes): the answer
    likeliest: IntArray  # (rows,): class
    losses: FloatArray  # (rows,)
    met: ByteArray  # (rows, units), bits
    which: npt.NDArray[np.int32]  # (rows, places): the move that each input, and the bias, makes; -1: none
    moves: FloatArray  # (rows, places)
    counts: IntArray  # (pairs,): moves
    wanted: ByteArray  # (rows, units): whether, or (0, 0) where all are
    skip: int  # moves of a pair, before those to evaluate
    begin: int  # of the pairs to add
    end: int
    first: int  # element
    elements: IntArray  # (pairs + 1,): those before each pair
    element_moves: IntArray  # (depth,): the most moves of an element
    element_met: IntArray  # (elements * LANES,), bits
    tables: IntArray  # (pairs,): begin of each pair's (moves, units) of
    odd: FloatArray  # psi(d) - psi(-d)
    terms: FloatArray  # (3, rows, units) of the polynomials, or (0, 0, 0)
    missed: ByteArray  # (rows, units): whether the polynomial does not do
    refit: IntArray  # (pairs,): units whose polynomial needs another node


@jit(inline=True)
def inputs_of(job: Job, row: int, number: int) -> FloatArray:
    # (inputs,) of a layer
    units = job.layers[number - 1, UNITS]
    return job.x[row] if number == 0 else job.z[row, units : units + job.layers[number, INPUTS]]


@jit()
def base(begin: int, end: int, job: Job) -> None:
    # The forward pass of rows begin to end, with what differences need to know of every unit.
    job = borrowed(job)
    rows = end - begin
    for number in range(len(job.layers)):
        layer = job.layers[number]
        inputs, outputs, units = layer[INPUTS], layer[OUTPUTS], layer[UNITS]
        weight = job.theta[layer[WEIGHTS] : layer[BIASES]].reshape((inputs, outputs))
        bias = job.theta[layer[BIASES] : layer[END]]
        out = np.empty((rows, outputs), job.theta.dtype)
        if number == 0:
            products.product_of_nonzeros(job.x[begin:end], weight, out)
        else:
            before = job.z[begin:].ravel()[job.layers[number - 1, UNITS] :]
            products.product(before, job.z.shape[1], products.ONE, weight, out)
        for i in range(rows):
            a = job.a[begin + i]
            for j in range(outputs):
                out[i, j] += bias[j] if bias.size > 0 else out.dtype.type(0)
                a[units + j] = out[i, j]
            at = slice(units, units + outputs)
            kernels.place(layer[KIND], a[at], job.s[begin + i, at], job.c[begin + i, at])
        if layer[KIND] == Activation.SIGMOID:
            out[:] = job.s[begin:end, units : units + outputs]
        else:
            kernels.activate(layer[KIND], job.slope, out.ravel(), out.ravel())
        job.z[begin:end, units : units + outputs] = out
        if number == len(job.layers) - 1:
            job.last[begin:end] = out
    job.y[begin:end] = job.last[begin:end]
    if job.output == Output.SOFTMAX:
        kernels.softmax(job.y[begin:end], job.y[begin:end])
    for row in range(begin, end):
        best, one = 0, slice(row, row + 1)
        for k in range(job.y.shape[1]):
            best = k if job.y[row, k] > job.y[row, best] else best
        job.likeliest[row] = best
        if job.labels[row] >= 0:
            job.losses[row] = kernels.sum_losses(job.loss, job.y[one], job.labels[one], job.targets[:0])
        else:
            job.losses[row] = kernels.sum_losses(job.loss, job.y[one], job.labels[:0], job.targets[one])
