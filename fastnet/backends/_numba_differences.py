"""The finite-difference gradients of the Numba backend: `incremental` and `nodal`.

A weight moves its unit's pre-activation by h times its input, a bias by h. Inputs of 0 move nothing; equal inputs of a
row move it equally, and are evaluated once. The effects of a row's distinct moves go into a table, from which they are
added to the gradient. Threads share out the tables, and then the gradient's rows, so that its sums have one order.

`nodal` evaluates a few moves of each unit. A row's share in the central difference by a weight with input x is
ψ(hx) − ψ(−hx) over 2h: an odd, smooth function of x, which the odd polynomial through some nodes matches to rounding.
Each row and unit must earn that: the polynomial through the first two nodes is checked at a third, the one through
three at a fourth. Units that miss, and those whose way to the furthest node meets a kink or leaves the range in which
a few nodes tell the whole, are done move by move.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np

from fastnet.backends import _numba_kernels as kernels
from fastnet.backends import _numpy
from fastnet.backends import _numba_moves as moves_of
from fastnet.backends import _numba_threads as threads
from fastnet.backends._numba_kernels import LANES, jit
from fastnet.backends._numba_moves import (
    BIASES,
    END,
    FAR,
    INPUTS,
    KIND,
    KINK,
    OUTPUTS,
    PADDED,
    PLACES,
    UNITS,
    WEIGHTS,
    Job,
)
from fastnet.backends._spec import Activation, Diagnostics, FloatArray, IntArray, Loss, NetworkSpec, Output

SHORT_MOVE = 1e-5, 5e-3  # in float64 and float32: for softmax's argument, where series of third order do
CHUNK_BYTES = 8 << 20  # of what is kept of the rows that are done together
TABLE_BYTES = 8 << 20  # of what their moves do
EXTREME = 1e30  # its fifth power is finite


@jit()
def _base(begin: int, end: int, job: Job) -> None:
    # The forward pass of rows begin to end, with what differences need to know of every unit.
    rows = end - begin
    for number in range(len(job.layers)):
        layer = job.layers[number]
        inputs, outputs, units = layer[INPUTS], layer[OUTPUTS], layer[UNITS]
        weight = job.theta[layer[WEIGHTS] : layer[BIASES]].reshape((inputs, outputs))
        bias = job.theta[layer[BIASES] : layer[END]]
        out = np.empty((rows, outputs), job.theta.dtype)
        if number == 0:
            _product_of_nonzeros(job.x[begin:end], weight, out)
        else:
            before = job.z[begin:].ravel()[job.layers[number - 1, UNITS] :]
            kernels.product(before, job.z.shape[1], np.int64(1), weight, out)
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
        if job.nodes:
            for number in range(len(job.layers)):
                _set_nodes(job, row, number)


@jit()
def _product_of_nonzeros(x: FloatArray, weight: FloatArray, out: FloatArray) -> None:
    # x (rows, inputs), weight (inputs, outputs) -> out = x @ weight (rows, outputs), without what adds nothing
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


@jit(inline=True)
def _inputs(job: Job, row: int, number: int) -> FloatArray:
    # (inputs,) of a layer
    units = job.layers[number - 1, UNITS]
    return job.x[row] if number == 0 else job.z[row, units : units + job.layers[number, INPUTS]]


@jit()
def _widest(job: Job, row: int, number: int) -> float:
    # The greatest size of a layer's inputs.
    widest = 1.0 if job.layers[number, END] > job.layers[number, BIASES] else 0.0
    x, lanes = _inputs(job, row, number), np.zeros(LANES)  # one maximum would wait for itself at each step
    whole = x.size - x.size % LANES
    for first in range(0, whole, LANES):
        part = x[first : first + LANES]
        for i in range(LANES):
            lanes[i] = abs(part[i]) if abs(part[i]) > lanes[i] else lanes[i]
    for i in range(whole, x.size):
        widest = max(widest, np.float64(abs(x[i])))
    return max(widest, lanes.max())


# Incremental ----------------------------------------------------------------------------------------------


@jit()
def _distinct(begin: int, end: int, job: Job) -> None:
    # Pairs begin to end: their distinct moves, and which of them each input makes. The bias makes the first one.
    slots = np.empty(0, np.int32)  # a hash table: numbers of moves, or -1
    values = np.empty(0, np.int64)  # the bits of the inputs that make them
    for pair in range(begin, end):
        if job.wanted.size > 0 and job.counts[pair] == 0:
            continue
        row, number = pair // len(job.layers), pair % len(job.layers)
        layer, x = job.layers[number], _inputs(job, row, number)
        size = 4
        while size < 2 * (x.size + 1):
            size *= 2
        if slots.size != size:
            slots, values = np.empty(size, np.int32), np.empty(size, np.int64)
        slots[:] = -1
        count, biased = 0, layer[END] > layer[BIASES]
        for i in range(-1 if biased else 0, x.size):
            place = layer[PLACES] + (i if i >= 0 else x.size)
            value = np.float64(x[i]) if i >= 0 else 1.0
            if value == 0:
                job.which[row, place] = -1
                continue
            bits = kernels.bits_of(value)
            slot = ((bits * -7046029254386353131) >> 32) & (size - 1)
            while slots[slot] >= 0 and values[slots[slot]] != bits:
                slot = (slot + 1) & (size - 1)
            if slots[slot] < 0:
                slots[slot], values[count] = count, bits
                job.moves[row, layer[PLACES] + count] = job.h * x.dtype.type(value)
                count += 1
            job.which[row, place] = slots[slot]
        job.counts[pair] = count


@jit()
def _note_pair(job: Job, pair: int) -> None:
    # Adds what a pair's elements met to what its units met.
    row, number = pair // len(job.layers), pair % len(job.layers)
    most, units = job.element_moves[number], job.layers[number, UNITS]
    parts = (job.counts[pair] + most - 1) // most
    for element in range(job.elements[pair], job.elements[pair + 1]):
        block = (element - job.elements[pair]) // parts
        for i in range(min(LANES, job.layers[number, OUTPUTS] - block * LANES)):
            job.met[row, units + block * LANES + i] |= job.element_met[(element - job.first) * LANES + i]


@jit()
def _note(begin: int, end: int, job: Job) -> None:
    # Pairs begin to end, from job.begin on.
    for pair in range(job.begin + begin, job.begin + end):
        _note_pair(job, pair)


@jit()
def _add(begin: int, end: int, job: Job) -> None:
    # Rows begin to end of the layers' weights, a bias being the last row: adds the tables of the pairs
    # job.begin to job.end, rows of the batch ascending.
    depth = len(job.layers)
    at = np.empty(len(job.x), np.int64)  # where the rows that add anything have it
    for number in range(depth):
        layer = job.layers[number]
        outputs, padded, places = layer[OUTPUTS], layer[PADDED], layer[PLACES]
        height = layer[INPUTS] + (1 if layer[END] > layer[BIASES] else 0)
        first, last = max(begin - places, 0), min(end - places, height)
        if first >= last:
            continue
        gradient = job.gradient[layer[WEIGHTS] : layer[END]]
        begin_row, end_row = (job.begin - number + depth - 1) // depth, (job.end - number + depth - 1) // depth
        for i in range(first, last):
            count, to = 0, gradient[i * outputs : (i + 1) * outputs]
            for row in range(begin_row, end_row):
                if job.counts[row * depth + number] > 0 and job.which[row, places + i] >= 0:
                    at[count] = job.tables[row * depth + number] + job.which[row, places + i] * padded
                    count += 1
            fours = count - count % 4
            for n in range(0, fours, 4):  # each row of the gradient that is loaded serves four times
                odd0, odd1 = job.odd[at[n] : at[n] + outputs], job.odd[at[n + 1] : at[n + 1] + outputs]
                odd2, odd3 = job.odd[at[n + 2] : at[n + 2] + outputs], job.odd[at[n + 3] : at[n + 3] + outputs]
                for j in range(outputs):
                    to[j] += job.scale * (odd0[j] + odd1[j] + (odd2[j] + odd3[j]))
            for n in range(fours, count):
                odd0 = job.odd[at[n] : at[n] + outputs]
                for j in range(outputs):
                    to[j] += job.scale * odd0[j]


# Nodal ----------------------------------------------------------------------------------------------------

NODES = 4


@jit()
def _set_nodes(job: Job, row: int, number: int) -> None:
    # The nodes' moves: the furthest one first, which tells whether there is a kink.
    widest, places = _widest(job, row, number), job.layers[number, PLACES]
    earns = widest < EXTREME and 1 / widest < EXTREME
    job.counts[row * len(job.layers) + number] = NODES - 1 if earns else 0
    if earns:
        furthest = np.float64(job.h * job.theta.dtype.type(widest))
        moves = job.moves[row, places : places + NODES]
        moves[0], moves[1], moves[2], moves[3] = furthest, furthest / 2, furthest * 0.75, furthest / 4


@jit(inline=True)
def _tolerance(job: Job, odd: FloatArray) -> float:
    # odd (units,): of the furthest move
    greatest = 0.0
    for value in odd:
        greatest = max(greatest, abs(value))
    return greatest * 100 * np.finfo(job.theta.dtype).eps


@jit()
def _fit(begin: int, end: int, job: Job) -> None:
    # Pairs begin to end: c1 x + c3 x^3 through the first two nodes, x being the share of the furthest move; checked at
    # the third one. A unit that misses, but met nothing, gets another node.
    for pair in range(begin, end):
        row, number = pair // len(job.layers), pair % len(job.layers)
        outputs, padded, units = job.layers[number, OUTPUTS], job.layers[number, PADDED], job.layers[number, UNITS]
        job.refit[pair] = 0
        if job.counts[pair] == 0:
            job.terms[:, row, units : units + padded] = 0
            job.missed[row, units : units + outputs] = 1 if _widest(job, row, number) > 0 else 0
            continue
        _note_pair(job, pair)
        odd = job.odd[job.tables[pair] : job.tables[pair] + NODES * padded]
        c1, c3 = job.terms[0, row, units : units + padded], job.terms[1, row, units : units + padded]
        missed, met, tolerance = job.missed[row, units:], job.met[row, units:], _tolerance(job, odd[:padded])
        for j in range(outputs):
            g1, g2, g3 = odd[j], odd[padded + j] / 0.5, odd[2 * padded + j] / 0.75
            c3[j] = (g1 - g2) / 0.75
            c1[j] = g1 - c3[j]
            miss = not abs(c1[j] + c3[j] * 0.5625 - g3) <= tolerance  # so does NaN
            missed[j] = 1 if miss and met[j] == 0 else 0
            job.refit[pair] += missed[j]
        if job.refit[pair] == 0:
            _settle(job, row, number)


@jit()
def _refit(begin: int, end: int, job: Job) -> None:
    # Pairs begin to end: c1 x + c3 x^3 + c5 x^5 through three nodes for units that missed, checked at the fourth.
    for pair in range(begin, end):
        if job.refit[pair] == 0:
            continue
        _note_pair(job, pair)
        row, number = pair // len(job.layers), pair % len(job.layers)
        padded, units = job.layers[number, PADDED], job.layers[number, UNITS]
        odd, terms, missed = job.odd[job.tables[pair] :], job.terms[:, row, units:], job.missed[row, units:]
        t1, t2, t3, t4 = 1.0, 0.25, 0.5625, 0.0625  # squares of the nodes
        tolerance = _tolerance(job, odd[:padded])
        terms[2, :padded] = 0
        for j in range(padded):
            if missed[j]:
                g1, g2, g3 = odd[j], odd[padded + j] / 0.5, odd[2 * padded + j] / 0.75
                d23, d31 = (g3 - g2) / (t3 - t2), (g1 - g3) / (t1 - t3)
                c5 = (d31 - d23) / (t1 - t2)
                c3 = d23 - c5 * (t2 + t3)
                c1 = g2 - t2 * d23 + c5 * t2 * t3
                off = c1 + t4 * (c3 + t4 * c5) - odd[3 * padded + j] / 0.25
                terms[0, j], terms[1, j], terms[2, j] = c1, c3, c5
                missed[j] = 0 if abs(off) <= tolerance else 1
        _settle(job, row, number)


@jit()
def _settle(job: Job, row: int, number: int) -> None:
    # What missed or met anything has no polynomial. The others: from powers of x / widest to powers of x, and from
    # differences to central differences.
    layer, fifth = job.layers[number], job.refit[row * len(job.layers) + number]
    widest = job.moves[row, layer[PLACES]] / job.h
    terms = job.terms[:, row, layer[UNITS] : layer[UNITS] + layer[PADDED]]
    missed, met = job.missed[row, layer[UNITS] :], job.met[row, layer[UNITS] :]
    scale = job.scale / widest
    for n in range(3 if fifth else 2):
        for j in range(layer[OUTPUTS]):
            missed[j] = 1 if met[j] else missed[j]
            terms[n, j] = 0.0 if missed[j] else terms[n, j] * scale
        scale /= widest * widest


@jit()
def _add_polynomials(begin: int, end: int, job: Job) -> None:
    # Rows begin to end of the layers' weights, a bias being the last row: adds every row's polynomials.
    depth = len(job.layers)
    which, values = np.empty(len(job.x) + 1, np.int64), np.empty(len(job.x) + 1)  # rows whose input is not 0
    for number in range(depth):
        layer = job.layers[number]
        inputs, outputs, units = layer[INPUTS], layer[OUTPUTS], layer[UNITS]
        first = max(begin - layer[PLACES], 0)
        last = min(end - layer[PLACES], inputs + (1 if layer[END] > layer[BIASES] else 0))
        gradient = job.gradient[layer[WEIGHTS] : layer[END]]
        before = 0 if number == 0 else job.layers[number - 1, UNITS]
        x = job.x if number == 0 else job.z
        for i in range(first, last):
            count, to = 0, gradient[i * outputs : (i + 1) * outputs]
            for row in range(len(job.x)):
                value = np.float64(x[row, before + i]) if i < inputs else 1.0
                which[count], values[count] = row, value
                count += 1 if value != 0 else 0
            pairs = count - count % 2
            for n in range(0, pairs, 2):
                x0, x1, row0, row1 = values[n], values[n + 1], which[n], which[n + 1]
                y0, c1, c3 = x0 * x0 * x0, job.terms[0, row0, units:], job.terms[1, row0, units:]
                y1, d1, d3 = x1 * x1 * x1, job.terms[0, row1, units:], job.terms[1, row1, units:]
                for j in range(outputs):
                    to[j] = to[j] + x0 * c1[j] + y0 * c3[j] + x1 * d1[j] + y1 * d3[j]
            for n in range(pairs, count):
                x0, c1, c3 = values[n], job.terms[0, which[n], units:], job.terms[1, which[n], units:]
                y0 = x0 * x0 * x0
                for j in range(outputs):
                    to[j] = to[j] + x0 * c1[j] + y0 * c3[j]
            for n in range(count):
                if job.refit[which[n] * depth + number] > 0:
                    x0, c5 = values[n], job.terms[2, which[n], units:]
                    y0 = x0 * x0 * x0 * (x0 * x0)
                    for j in range(outputs):
                        to[j] += y0 * c5[j]


# The gradient -------------------------------------------------------------------------------------------

_ALL = np.empty((0, 0), np.uint8)


def _targets(t: FloatArray | IntArray, classes: int) -> tuple[IntArray, FloatArray]:
    """Labels, -1 where a row of the targets counts, and these rows in float64; one-hot rows are told by their label."""
    if t.ndim == 1:
        return np.array(t, np.int64), np.empty((len(t), 0))
    one_hot = ((t == 1).sum(axis=1) == 1) & ((t != 0).sum(axis=1) == 1)
    return np.where(one_hot, (t == 1).argmax(axis=1), -1), np.array(t, np.float64)


class _Differences:
    """A network's finite-difference gradient in the making."""

    def __init__(self, spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float, nodes: bool) -> None:
        self.spec, self.x = spec, x
        self.depth, dtype = len(spec.weights), spec.dtype
        self.labels, self.targets = _targets(t, spec.classes)
        layers: list[tuple[int, ...]] = []
        begin = units = places = 0
        for weight, bias, kind in zip(spec.weights, spec.biases, spec.activations, strict=True):
            (inputs, outputs), biases = weight.shape, begin + weight.size
            end, padded = biases + (0 if bias is None else outputs), -(-outputs // LANES) * LANES
            layers.append((inputs, outputs, int(kind), begin, biases, end, units, padded, places))
            begin, units, places = end, units + padded, places + max(inputs + 1, NODES)
        self.layers = np.array(layers, np.int64)
        self.places = places

        last = spec.weights[-1]
        effects = np.zeros((2, spec.classes, int(self.layers[-2:, PADDED].max())))
        effects[0, :, : spec.classes] = np.eye(spec.classes)
        if self.depth > 1:
            effects[1, :, : len(last)] = last.T
        # Places, moves and a number for each input; per unit five values of the base, three terms, and tables.
        chunk = CHUNK_BYTES // (16 * places + (64 + 8 * NODES * nodes) * units)
        rows = min(max(chunk, 1), threads.BLOCK_ROWS, len(x))
        # Moves that an element of the last two layers holds: one or two milliseconds' work.
        most = max(min(128, 12800 // spec.classes), moves_of.BATCH)
        products = [w.size + threads.UNIT_PRODUCTS * w.shape[1] for w in spec.weights]
        self._tails = np.cumsum([threads.UNIT_PRODUCTS, *products[:0:-1]])[::-1]  # of a move, for each layer
        self._products = sum(products)  # of a row
        self._kinked = any(moves_of.has_kink(int(kind)) for kind in spec.activations)
        self.evaluations = self.fallbacks = self.kinks = 0
        single = dtype == np.float32
        empty, step = np.empty(0, np.int64), dtype.type(h)
        self.job = Job(
            theta=np.concatenate([p.ravel() for p in spec.parameters]),
            gradient=np.zeros(begin, dtype),
            layers=self.layers,
            widest=int(self.layers[:, OUTPUTS].max()),
            slope=float(dtype.type(spec.leaky_slope)),
            output=int(spec.output),
            loss=int(spec.loss),
            smooth=not {Activation.SIGMOID, Activation.TANH}.isdisjoint(spec.activations),
            steepest=float(np.abs(last).max(initial=0)) if self.depth > 1 else 0.0,
            effects=effects,
            small=kernels.SMALL_MOVE[single],
            short=SHORT_MOVE[single],
            h=step,
            scale=1 / (2 * float(step) * len(x)),
            nodes=nodes,
            x=x[:rows],
            labels=self.labels[:rows],
            targets=self.targets[:rows],
            z=np.zeros((rows, units), dtype),
            a=np.zeros((rows, units)),
            s=np.zeros((rows, units)),
            c=np.zeros((rows, units)),
            last=np.empty((rows, spec.classes)),
            y=np.empty((rows, spec.classes)),
            likeliest=np.empty(rows, np.int64),
            losses=np.empty(rows, dtype),
            met=np.zeros((rows, units), np.uint8),
            which=np.empty((rows, places), np.int32),
            moves=np.empty((rows, places)),
            counts=np.empty(rows * self.depth, np.int64),
            wanted=_ALL,
            skip=0,
            begin=0,
            end=0,
            first=0,
            elements=empty,
            element_moves=np.array([moves_of.BATCH] * (self.depth - 2) + [most] * min(self.depth, 2), np.int64),
            element_met=empty,
            tables=empty,
            odd=np.empty(0),
            terms=np.empty((3, rows, units) if nodes else (0, 0, 0)),
            missed=np.zeros((rows, units) if nodes else (0, 0), np.uint8),
            refit=np.empty(rows * self.depth if nodes else 0, np.int64),
        )

    def gradient(self) -> tuple[list[FloatArray], Diagnostics]:
        """Add up the chunks, then the penalty."""
        spec, job = self.spec, self.job
        kinked = np.zeros(job.met.shape[1], bool)
        for first in range(0, len(self.x), len(job.x)):
            self._chunk(first)
            if not np.isfinite(self.job.losses[: len(self.job.x)]).all():  # nor is the difference of two such losses
                job.gradient[:] = np.nan
                break
            kinked |= (self.job.met & KINK).any(axis=0)
        gradients, at = [], 0
        for parameter in spec.parameters:
            gradients.append(job.gradient[at : at + parameter.size].reshape(parameter.shape))
            at += parameter.size
            if parameter.ndim == 2:
                gradients[-1] = _numpy.with_decay(spec, gradients[-1], parameter)
        units = [slice(u, u + n) for u, n in self.layers[:, [UNITS, OUTPUTS]]]
        return gradients, Diagnostics(
            self.evaluations, self.fallbacks, self.kinks, tuple(kinked[u].copy() for u in units)
        )

    def _chunk(self, first: int) -> None:
        """Add what the chunk of rows that begins here contributes."""
        capacity = len(self.job.met)
        at = slice(first, first + capacity)
        self.job = self.job._replace(x=self.x[at], labels=self.labels[at], targets=self.targets[at])
        job, rows = self.job, len(self.job.x)
        job.met[:] = 0
        self._run(_base, rows, self._products)
        if not np.isfinite(job.losses[:rows]).all():
            return
        if not job.nodes:
            self._add_moves(None)
            return

        job.missed[:] = 0
        pairs = rows * self.depth
        tables = np.zeros(pairs + 1, np.int64)
        np.cumsum(np.tile(NODES * self.layers[:, PADDED], rows), out=tables[1:])
        self.job = self.job._replace(odd=np.empty(tables[-1]), tables=tables, wanted=_ALL, skip=0)
        self._evaluate(0, pairs, self.job.counts)
        self.evaluations += 2 * int((job.counts[:pairs].reshape(rows, -1) * self.layers[:, OUTPUTS]).sum())
        self._run(_fit, pairs, self._products)
        refits = int(job.refit[:pairs].sum())
        if refits:
            counts = np.minimum(job.refit, 1)
            self.job = self.job._replace(wanted=job.missed, skip=NODES - 1)
            self._evaluate(0, pairs, counts)
            self.evaluations += 2 * refits
            self._run(_refit, pairs, self._products)
        self._run(_add_polynomials, self.places, rows * job.widest)
        self.kinks += int((job.met[:rows] & KINK).sum())
        fallbacks = int(job.missed[:rows].sum())
        if fallbacks:
            self.fallbacks += fallbacks
            self._add_moves(job.missed[:rows])

    def _add_moves(self, wanted: Any) -> None:
        """Add the effects of every move of the chunk, or of those of the units that are wanted."""
        rows = len(self.job.x)
        pairs = rows * self.depth
        units = np.broadcast_to(self.layers[:, OUTPUTS], (rows, self.depth))
        if wanted is not None:
            units = np.add.reduceat(wanted, self.layers[:, UNITS], axis=1, dtype=np.int64)
            self.job.counts[:pairs] = (units > 0).ravel()
        self.job = self.job._replace(wanted=_ALL if wanted is None else wanted, skip=0)
        self._run(_distinct, pairs, self._products)

        counts = self.job.counts[:pairs]
        self.evaluations += 2 * int((counts.reshape(units.shape) * units).sum())
        ends = np.cumsum(counts * np.tile(self.layers[:, PADDED], rows))
        begin, done = 0, 0
        while begin < pairs:  # as many pairs as the table has room for
            end = max(int(np.searchsorted(ends, done + TABLE_BYTES // 8, side="right")), begin + 1)
            tables = np.concatenate([[0], ends[:-1]]) - done
            self.job = self.job._replace(odd=np.empty(ends[end - 1] - done), tables=tables, begin=begin, end=end)
            self._evaluate(begin, end, self.job.counts)
            if self._kinked:
                self._run(_note, end - begin, self._products)
            self._run(_add, self.places, len(self.job.x) * self.job.widest)
            begin, done = end, int(ends[end - 1])

    def _evaluate(self, begin: int, end: int, counts: IntArray) -> None:
        """Fill the tables of the pairs from `begin` to `end`, of `counts` moves each."""
        job, pairs = self.job, len(self.job.x) * self.depth
        layers = np.arange(pairs) % self.depth
        parts = -(-counts[:pairs] // job.element_moves[layers])
        elements = np.concatenate([[0], np.cumsum(parts * (self.layers[layers, PADDED] // LANES))])
        first, size = int(elements[begin]), int(elements[end] - elements[begin])
        self.job = job._replace(
            elements=elements, first=first, counts=counts, element_met=np.empty(size * LANES, np.int64)
        )
        products = 2 * float((counts[:pairs] * self.layers[layers, OUTPUTS] * self._tails[layers])[begin:end].sum())
        self._run(moves_of.evaluate, size, products / max(size, 1))

    def _run(self, stage: Any, size: int, products: float) -> None:
        threads.share(stage, None, self.job, size, products, 1)


def incremental(
    spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float
) -> tuple[list[FloatArray], Diagnostics]:
    return _Differences(spec, x, t, h, nodes=False).gradient()


def nodal(spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float) -> tuple[list[FloatArray], Diagnostics]:
    return _Differences(spec, x, t, h, nodes=True).gradient()
