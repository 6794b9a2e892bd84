"""Kernels of `nodal`: an odd polynomial for each row and unit, from a few moves, and the sum of their values.

A row's share in the central difference by a weight with input x is ψ(hx) − ψ(−hx) over 2h: an odd, smooth function of
x, which the odd polynomial through some nodes matches to rounding. Each row and unit must earn that: the polynomial
through the first two nodes is checked at a third, the one through three at a fourth. Units that miss, and those whose
way to the furthest node meets a kink or leaves the range in which a few nodes tell the whole, are done move by move.
"""

from __future__ import annotations

import numpy as np

from fastnet._tools.types import FloatArray
from fastnet.backends._numba.elements import bits_of, from_bits
from fastnet.backends._numba.incremental import note_pair
from fastnet.backends._numba.jit import borrowed, jit
from fastnet.backends._numba.job import (
    BIASES,
    END,
    GROUP,
    INPUTS,
    OUTPUTS,
    PADDED,
    PLACES,
    UNITS,
    WEIGHTS,
    Job,
    base,
    inputs_of,
)
from fastnet.backends._numba.moves import evaluate

NODES = 4
EXTREME = 1e30  # its fifth power is finite


@jit(inline=True)
def _widest(job: Job, row: int, number: int) -> float:
    # The greatest size of a layer's inputs. Sizes are in the order of their bits, whose maximum vectorises.
    x, widest = inputs_of(job, row, number), bits_of(0.0)
    if job.layers[number, END] > job.layers[number, BIASES]:
        widest = bits_of(1.0)
    for i in range(x.size):
        widest = max(widest, bits_of(abs(x[i])))
    return from_bits(widest)


@jit()
def set_nodes(begin: int, end: int, job: Job) -> None:
    # Pairs begin to end: the nodes' moves, the furthest one first, which tells whether there is a kink.
    job = borrowed(job)
    for pair in range(begin, end):
        row, number = pair // len(job.layers), pair % len(job.layers)
        widest, places = _widest(job, row, number), job.layers[number, PLACES]
        furthest = np.float64(job.h * job.theta.dtype.type(widest))
        earns = widest < EXTREME and 1 / widest < EXTREME and furthest > 0
        job.counts[pair] = NODES - 1 if earns else 0
        if earns:
            moves = job.moves[row, places : places + NODES]
            moves[0], moves[1], moves[2], moves[3] = furthest, furthest / 2, furthest * 0.75, furthest / 4


@jit(inline=True)
def _tolerance(job: Job, odd: FloatArray) -> float:
    # odd (units,): of the furthest move
    greatest = 0.0
    for value in odd:
        greatest = max(greatest, abs(value))
    return greatest * 100 * float(np.finfo(job.theta.dtype).eps)


@jit()
def fit(begin: int, end: int, job: Job) -> None:
    # Pairs begin to end: c1 x + c3 x^3 through the first two nodes, x being the share of the furthest move; checked at
    # the third one. A unit that misses, but met nothing, gets another node.
    job = borrowed(job)
    for pair in range(begin, end):
        row, number = pair // len(job.layers), pair % len(job.layers)
        outputs, padded, units = job.layers[number, OUTPUTS], job.layers[number, PADDED], job.layers[number, UNITS]
        job.refit[pair] = 0
        if job.counts[pair] == 0:
            job.terms[:, row, units : units + padded] = 0
            job.missed[row, units : units + outputs] = 1 if _widest(job, row, number) > 0 else 0
            continue
        note_pair(job, pair)
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
def fit_rows(begin: int, end: int, job: Job) -> None:
    # Rows begin to end, all the way up to their polynomials.
    depth = len(job.layers)
    begin_pair, end_pair = begin * depth, end * depth
    base(begin, end, job)
    set_nodes(begin_pair, end_pair, job)
    evaluate(job.elements[begin_pair], job.elements[end_pair], job)
    fit(begin_pair, end_pair, job)


@jit()
def refit(begin: int, end: int, job: Job) -> None:
    # Pairs begin to end: c1 x + c3 x^3 + c5 x^5 through three nodes for units that missed, checked at the fourth.
    job = borrowed(job)
    for pair in range(begin, end):
        if job.refit[pair] == 0:
            continue
        note_pair(job, pair)
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


@jit(inline=True)
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
def add_polynomials(begin: int, end: int, job: Job) -> None:
    # Groups begin to end of the rows of the layers' weights, a bias being the last row: adds every row's polynomials.
    job = borrowed(job)
    depth, begin, end = len(job.layers), begin * GROUP, end * GROUP
    which, values = np.empty(end - begin + 1, np.int64), np.empty(end - begin + 1)  # the inputs that are not 0
    for number in range(depth):
        layer = job.layers[number]
        inputs, outputs, units = layer[INPUTS], layer[OUTPUTS], layer[UNITS]
        first = max(begin - layer[PLACES], 0)
        last = min(end - layer[PLACES], inputs + (1 if layer[END] > layer[BIASES] else 0))
        gradient = job.gradient[layer[WEIGHTS] : layer[END]]
        for row in range(len(job.x) if first < last else 0):
            x, count = inputs_of(job, row, number), 0
            for i in range(first, min(last, inputs)):
                which[count], values[count] = i, x[i]
                count += 1 if x[i] != 0 else 0
            if last > inputs:
                which[count], values[count] = inputs, 1.0
                count += 1
            c1, c3, c5 = job.terms[0, row, units:], job.terms[1, row, units:], job.terms[2, row, units:]
            fours = count - count % 4
            for n in range(0, fours, 4):  # each element of a polynomial that is loaded serves four times
                x0, x1, x2, x3 = values[n], values[n + 1], values[n + 2], values[n + 3]
                y0, y1, y2, y3 = x0 * x0 * x0, x1 * x1 * x1, x2 * x2 * x2, x3 * x3 * x3
                i0, i1 = which[n] * outputs, which[n + 1] * outputs
                i2, i3 = which[n + 2] * outputs, which[n + 3] * outputs
                to0, to1 = gradient[i0 : i0 + outputs], gradient[i1 : i1 + outputs]
                to2, to3 = gradient[i2 : i2 + outputs], gradient[i3 : i3 + outputs]
                for j in range(outputs):
                    to0[j] = to0[j] + x0 * c1[j] + y0 * c3[j]
                    to1[j] = to1[j] + x1 * c1[j] + y1 * c3[j]
                    to2[j] = to2[j] + x2 * c1[j] + y2 * c3[j]
                    to3[j] = to3[j] + x3 * c1[j] + y3 * c3[j]
            fifth = job.refit[row * depth + number] > 0
            for n in range(0 if fifth else fours, count):
                to0 = gradient[which[n] * outputs : (which[n] + 1) * outputs]
                x0, y0 = values[n], values[n] * values[n] * values[n]
                if n >= fours:
                    for j in range(outputs):
                        to0[j] = to0[j] + x0 * c1[j] + y0 * c3[j]
                if fifth:
                    for j in range(outputs):
                        to0[j] += y0 * (x0 * x0) * c5[j]
