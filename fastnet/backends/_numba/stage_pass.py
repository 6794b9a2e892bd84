"""A batch through the stages of a network, and back to the gradient."""

from __future__ import annotations

import math

import numpy as np

from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends._numba import activations, columns, losses, products, threads, windows
from fastnet.backends._numba.affine import affine
from fastnet.backends._numba.jit import borrowed, jit
from fastnet.backends._numba.stage_network import NORM_EPSILON, PARTS, Pass
from fastnet.backends._numpy import functions
from fastnet.backends.spec import NetworkSpec, Output, StageKind


@jit()
def forward_stage(begin: int, end: int, number: int, work: Pass) -> None:
    # Tasks begin to end of a stage: units of an affine stage or a pooling, columns of a batch normalisation, positions
    # of a convolution.
    work = borrowed(work)
    stage, rows, zero = work.stages[number], work.rows, work.theta.dtype.type(0)
    inputs = work.units[stage.source * rows : (stage.source + stage.inputs) * rows]
    out = work.units[stage.units * rows : (stage.units + stage.outputs) * rows]
    weight, bias = work.theta[stage.weights : stage.biases], work.theta[stage.biases : stage.end]
    if stage.kind == StageKind.AFFINE:
        to = out[begin * rows : end * rows].reshape((end - begin, rows))
        from_ = inputs.reshape((stage.inputs, rows))
        products.product(weight[begin:], products.ONE, stage.outputs, from_, to)
        for j in range(begin, end if bias.size > 0 else begin):
            for i in range(rows):
                out[j * rows + i] += bias[j]
    elif stage.kind == StageKind.ACTIVATION:
        z, constant = out[begin * rows : end * rows], work.theta.dtype.type(stage.constant)
        if work.slopes:
            kept = work.kept[(stage.kept + begin) * rows : (stage.kept + end) * rows]
            activations.derive(stage.activation, constant, z, kept)
        activations.activate(stage.activation, constant, z, z)
    elif stage.kind == StageKind.DROPOUT:
        mask, scale = work.kept[stage.kept * rows :], work.theta.dtype.type(stage.constant)
        for i in range(begin * rows, end * rows):
            out[i] *= mask[i] if work.training else scale
    elif stage.kind == StageKind.BATCH_NORM:
        size = stage.positions * rows
        for column in range(begin, end):
            z, at = out[column * size : (column + 1) * size], stage.columns + column
            gamma, beta = weight[column], bias[column]
            if work.training:
                work.mean[at], work.variance[at] = columns.moments(z)
                work.inverse[at] = 1 / math.sqrt(work.variance[at] + NORM_EPSILON)
            mean, inverse = work.mean[at], work.inverse[at]
            normal = work.kept[stage.kept * rows + column * size :] if work.training else z
            for i in range(size):
                x = work.theta.dtype.type((z[i] - mean) * inverse)
                normal[i] = x
                z[i] = gamma * x + beta
    elif stage.kind == StageKind.CONVOLUTION:
        filters = stage.outputs // stage.positions
        elements = weight.size // filters
        patch = np.empty((elements, rows), weight.dtype)
        to = np.empty((filters, rows), weight.dtype)
        for position in range(begin, end):
            windows.gather_patch(stage, position, rows, inputs, patch)
            products.product(weight, elements, products.ONE, patch, to)
            for f in range(filters):
                units, shift = out[(f * stage.positions + position) * rows :], bias[f] if bias.size > 0 else zero
                for i in range(rows):
                    units[i] = to[f, i] + shift
    else:
        for unit in range(begin, end):
            if stage.kind == StageKind.MAX_POOLING:
                windows.max_pool(stage, unit, rows, inputs, out[unit * rows : (unit + 1) * rows])
            else:
                windows.average_pool(stage, unit, rows, inputs, out[unit * rows : (unit + 1) * rows])


@jit()
def backward_stage(begin: int, end: int, number: int, work: Pass, d: FloatArray, sums: FloatArray) -> None:
    # Tasks begin to end of a stage: inputs of an affine stage, columns of a batch normalisation, channels of windows.
    # d, laid out as work.units, has the derivative with respect to the output, and gets that with respect to the input.
    # sums (2, columns) gets the gradients of a batch normalisation's gamma and beta.
    work = borrowed(work)
    stage, rows = work.stages[number], work.rows
    d_out = d[stage.units * rows : (stage.units + stage.outputs) * rows]
    d_in = d[stage.source * rows : (stage.source + stage.inputs) * rows]
    weight = work.theta[stage.weights : stage.biases]
    if stage.kind == StageKind.AFFINE:
        to = d_in[begin * rows : end * rows].reshape((end - begin, rows))
        from_ = d_out.reshape((stage.outputs, rows))
        products.product(weight[begin * stage.outputs :], stage.outputs, products.ONE, from_, to)
    elif stage.kind == StageKind.ACTIVATION or stage.kind == StageKind.DROPOUT:
        kept = work.kept[stage.kept * rows :]
        for i in range(begin * rows, end * rows):
            d_out[i] *= kept[i]
    elif stage.kind == StageKind.BATCH_NORM:
        size = stage.positions * rows
        for column in range(begin, end):
            normal = work.kept[stage.kept * rows + column * size : stage.kept * rows + (column + 1) * size]
            inverse, gamma = work.inverse[stage.columns + column], float(weight[column])
            dgamma, dbeta = columns.normalise_backward(
                d_out[column * size : (column + 1) * size], normal, inverse, gamma
            )
            sums[0, column], sums[1, column] = dgamma, dbeta
    else:
        image, inside = stage.height * stage.width * rows, stage.window_height * stage.window_width
        images = work.units[stage.source * rows : (stage.source + stage.inputs) * rows]
        d_in[begin * image : end * image] = 0
        if stage.kind == StageKind.CONVOLUTION:
            filters = stage.outputs // stage.positions
            elements = weight.size // filters
            patch, of_filters = np.empty((inside, rows), weight.dtype), np.empty((filters, rows), weight.dtype)
            for position in range(stage.positions):
                for f in range(filters):
                    at = (f * stage.positions + position) * rows
                    for i in range(rows):
                        of_filters[f, i] = d_out[at + i]
                for channel in range(begin, end):
                    products.product(weight[channel * inside :], products.ONE, elements, of_filters, patch)
                    windows.scatter_patch(stage, position, rows, patch, d_in[channel * image : (channel + 1) * image])
        else:
            for unit in range(begin * stage.positions, end * stage.positions):
                of_unit = d_out[unit * rows : (unit + 1) * rows]
                if stage.kind == StageKind.MAX_POOLING:
                    windows.max_pool_backward(stage, unit, rows, images, of_unit, d_in)
                else:
                    windows.average_pool_backward(stage, unit, rows, of_unit, d_in)


@jit()
def filter_gradient(begin: int, end: int, number: int, work: Pass, d: FloatArray, shares: FloatArray) -> None:
    # Parts begin to end of a convolution's positions: their shares (parts, filters, elements) in the weight's gradient.
    work = borrowed(work)
    stage, rows = work.stages[number], work.rows
    d_out = d[stage.units * rows : (stage.units + stage.outputs) * rows]
    images = work.units[stage.source * rows : (stage.source + stage.inputs) * rows]
    filters, elements = shares.shape[1], shares.shape[2]
    patch, by_rows = np.empty((elements, rows), d.dtype), np.empty((rows, elements), d.dtype)
    product = np.empty((filters, elements), d.dtype)
    for part in range(begin, end):
        to = shares[part]
        to[:] = 0
        for position in range(part * stage.positions // PARTS, (part + 1) * stage.positions // PARTS):
            windows.gather_patch(stage, position, rows, images, patch)
            for k in range(elements):
                for i in range(rows):
                    by_rows[i, k] = patch[k, i]
            products.product(d_out[position * rows :], stage.positions * rows, products.ONE, by_rows, product)
            for f in range(filters):
                for k in range(elements):
                    to[f, k] += product[f, k]


def forward(work: Pass) -> None:
    """Make the pass."""
    for number in range(len(work.stages)):
        forward_one(number, work)


def forward_one(number: int, work: Pass) -> None:
    """Make the pass through one stage."""
    stage = work.stages[number]
    threads.share(forward_stage, (number, work), int(stage.tasks), work.rows * float(stage.products), multiple=4)


def last_units(work: Pass, spec: NetworkSpec) -> FloatArray:
    """The last stage's units, shape (batch, classes)."""
    return np.ascontiguousarray(work.units[-spec.classes * work.rows :].reshape(spec.classes, work.rows).T)


def answer(work: Pass, spec: NetworkSpec) -> FloatArray:
    """The network's answer, shape (batch, classes), after the pass."""
    y = last_units(work, spec)
    if spec.output == Output.SOFTMAX:
        losses.softmax(y, y)
    return y


def derivative(spec: NetworkSpec, t: FloatArray | IntArray, y: FloatArray) -> FloatArray:
    """Return the derivative of the loss with respect to the last stage's units, shape (batch, classes)."""
    dy = functions.loss_derivative(spec.loss, y, functions.target_rows(t, y), spec.loss_constant)
    dy = losses.softmax_backward(y, dy) if spec.output == Output.SOFTMAX else dy
    of_units: FloatArray = dy / y.dtype.type(len(y))
    return of_units


def backward(
    work: Pass, spec: NetworkSpec, d_last: FloatArray, inputs: bool
) -> tuple[list[FloatArray], FloatArray | None]:
    """Return the gradient without that of the penalty, and that with respect to x if `inputs`, after the pass.

    `d_last`, shape (batch, classes), is the derivative with respect to the last stage's units.
    """
    rows, dtype = work.rows, d_last.dtype
    d = np.empty_like(work.units)
    d[-d_last.size :].reshape(spec.classes, rows)[:] = d_last.T
    found: list[list[FloatArray]] = []
    with_parameters = [stage.weight is not None for stage in spec.stages]
    for number in reversed(range(len(spec.stages))):
        stage, record = spec.stages[number], work.stages[number]
        d_out = d[record.units * rows : (record.units + record.outputs) * rows].reshape(-1, rows)
        gradient: list[FloatArray] = []
        sums = np.empty((2, int(record.outputs // record.positions)), dtype)
        if stage.kind == StageKind.AFFINE:
            units = work.units[record.source * rows : (record.source + record.inputs) * rows].reshape(-1, rows)
            gradient = [affine(units, np.ascontiguousarray(d_out.T)), d_out.sum(axis=1)]
        elif stage.kind == StageKind.CONVOLUTION and stage.weight is not None:
            filters = len(stage.weight)
            shares = np.empty((PARTS, filters, stage.weight[0].size), dtype)
            products_of_part = rows * stage.weight.size * float(record.positions) / PARTS
            threads.share(filter_gradient, (number, work, d, shares), PARTS, products_of_part)
            gradient = [shares.sum(axis=0).reshape(stage.weight.shape), d_out.reshape(filters, -1).sum(axis=1)]
        in_place = record.units == record.source
        if inputs or in_place or any(with_parameters[:number]):
            tasks = int(record.channels) if stage.windows is not None else int(record.inputs)
            tasks = sums.shape[1] if stage.kind == StageKind.BATCH_NORM else tasks
            cost = rows * float(record.products) * float(record.tasks) / tasks
            threads.share(backward_stage, (number, work, d, sums), tasks, cost, multiple=1 if stage.windows else 4)
        if stage.kind == StageKind.BATCH_NORM:
            gradient = [sums[0].copy(), sums[1].copy()]
        found.append(gradient[: int(stage.weight is not None) + int(stage.bias is not None)])
    d_x = np.ascontiguousarray(d[: spec.inputs * rows].reshape(-1, rows).T) if inputs else None
    return [array for gradient in reversed(found) for array in gradient], d_x
