"""`nodal`: an odd polynomial for each row and unit, from a few of the unit's moves, and the sum of their values.

For one row, the central difference with respect to a weight with input x is (ψ(hx) - ψ(-hx)) / 2h: an odd, smooth
function of x, which the odd polynomial through some nodes matches to rounding. Each row and unit must earn that: the
polynomial through the first two nodes is checked at a third, the one through three nodes at a fourth. The moves of a
unit are evaluated one by one instead if it misses the check, if its furthest node meets a kink, or if that node is too
far for a few nodes to tell everything.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends._numba import base_point, distinct_moves, moves
from fastnet.backends._numba.base_point import Chunk, inputs_of
from fastnet.backends._numba.elementary import bits_of, from_bits
from fastnet.backends._numba.jit import borrowed, jit
from fastnet.backends._numba.moves import Table
from fastnet.backends._numba.network import GROUP, NODES, Layout, Net

EXTREME = 1e30  # Its fifth power is finite.


class Fits(NamedTuple):
    """The odd polynomial c1 x + c3 x^3 + c5 x^5 of each row and unit, in the unit's input x."""

    terms: FloatArray  # (rows, 3, units): c1, c3, c5; all 0 for a unit without polynomial
    missed: npt.NDArray[np.uint8]  # (rows, units): whether the unit has no polynomial
    refits: IntArray  # (rows, depth): how many units of each layer need a third node, and have c5
    extreme: npt.NDArray[np.uint8]  # (rows, depth): whether powers of a layer's inputs may not be finite


def allocate(rows: int, layout: Layout) -> dict[str, Any]:
    """Return memory for the polynomials of so many rows, by the names of the fields."""
    return {
        "terms": np.empty((rows, 3, layout.units)),
        "missed": np.empty((rows, layout.units), np.uint8),
        "refits": np.empty((rows, len(layout.layers)), np.int64),
        "extreme": np.empty((rows, len(layout.layers)), np.uint8),
    }


@jit(inline=True)
def _widest(net: Net, chunk: Chunk, row: int, number: int) -> float:
    # The greatest absolute input of a layer. Absolute values are ordered as their bits, whose maximum vectorises.
    x, widest = inputs_of(net, chunk, row, number), bits_of(0.0)
    if net.layers[number].end > net.layers[number].biases:
        widest = bits_of(1.0)
    for i in range(x.size):
        widest = max(widest, bits_of(abs(x[i])))
    return from_bits(widest)


@jit()
def set_nodes(begin: int, end: int, net: Net, chunk: Chunk) -> None:
    # Pairs begin to end: the moves to their nodes, the furthest one first, which tells whether there is a kink.
    net, chunk = borrowed(net), borrowed(chunk)
    for pair in range(begin, end):
        row, number = pair // len(net.layers), pair % len(net.layers)
        widest, places = _widest(net, chunk, row, number), net.layers[number].places
        furthest = np.float64(net.h * net.theta.dtype.type(widest))
        earns = widest < EXTREME and 1 / widest < EXTREME and furthest > 0
        chunk.counts[row, number] = NODES - 1 if earns else 0
        if earns:
            nodes = chunk.moves[row, places : places + NODES]
            nodes[0], nodes[1], nodes[2], nodes[3] = furthest, furthest / 2, furthest * 0.75, furthest / 4


@jit(inline=True)
def _tolerance(net: Net, odd: FloatArray) -> float:
    # odd (units,), the effects of the furthest node -> the error at a node that is allowed. NaN, of a move that loses
    # digits, does not count.
    greatest = 0.0
    for value in odd:
        greatest = abs(value) if abs(value) > greatest else greatest
    return greatest * 100 * float(np.finfo(net.theta.dtype).eps) if greatest < np.inf else 0.0


@jit()
def fit(begin: int, end: int, net: Net, chunk: Chunk, table: Table, fits: Fits) -> None:
    # Pairs begin to end: c1 x + c3 x^3 through the first two nodes, where x = 1 at the furthest, checked at the third.
    # A unit that misses although it met nothing gets another node.
    net, chunk, table, fits = borrowed(net), borrowed(chunk), borrowed(table), borrowed(fits)
    for pair in range(begin, end):
        row, number = pair // len(net.layers), pair % len(net.layers)
        outputs, padded, units = net.layers[number].outputs, net.layers[number].padded, net.layers[number].units
        fits.refits[row, number] = 0
        fits.extreme[row, number] = chunk.counts[row, number] == 0
        if chunk.counts[row, number] == 0:
            fits.terms[row, :, units : units + padded] = 0
            fits.missed[row, units : units + outputs] = 1 if _widest(net, chunk, row, number) > 0 else 0
            continue
        distinct_moves.collect_met(net, chunk, table, pair)
        odd = table.odd[table.begins[pair] : table.begins[pair] + NODES * padded]
        c1, c3 = fits.terms[row, 0, units : units + padded], fits.terms[row, 1, units : units + padded]
        missed, met = fits.missed[row, units:], chunk.met[row, units:]
        tolerance = _tolerance(net, odd[:padded])
        for j in range(outputs):
            g1, g2, g3 = odd[j], odd[padded + j] / 0.5, odd[2 * padded + j] / 0.75
            c3[j] = (g1 - g2) / 0.75
            c1[j] = g1 - c3[j]
            miss = not abs(c1[j] + c3[j] * 0.5625 - g3) <= tolerance  # NaN counts as a miss.
            missed[j] = 1 if miss and met[j] == 0 else 0
            fits.refits[row, number] += missed[j]
        if fits.refits[row, number] == 0:
            _settle(net, chunk, fits, row, number)


@jit()
def fit_rows(begin: int, end: int, net: Net, chunk: Chunk, table: Table, fits: Fits) -> None:
    # Rows begin to end: everything from the forward pass to their polynomials.
    depth = len(net.layers)
    begin_pair, end_pair = begin * depth, end * depth
    base_point.forward(begin, end, net, chunk)
    set_nodes(begin_pair, end_pair, net, chunk)
    moves.evaluate(table.elements[begin_pair], table.elements[end_pair], net, chunk, table)
    fit(begin_pair, end_pair, net, chunk, table, fits)


@jit()
def refit(begin: int, end: int, net: Net, chunk: Chunk, table: Table, fits: Fits) -> None:
    # Pairs begin to end: c1 x + c3 x^3 + c5 x^5 through three nodes for units that missed, checked at the fourth.
    net, chunk, table, fits = borrowed(net), borrowed(chunk), borrowed(table), borrowed(fits)
    for pair in range(begin, end):
        row, number = pair // len(net.layers), pair % len(net.layers)
        if fits.refits[row, number] == 0:
            continue
        distinct_moves.collect_met(net, chunk, table, pair)
        padded, units = net.layers[number].padded, net.layers[number].units
        odd, terms, missed = table.odd[table.begins[pair] :], fits.terms[row, :, units:], fits.missed[row, units:]
        t1, t2, t3, t4 = 1.0, 0.25, 0.5625, 0.0625  # squares of the nodes
        tolerance = _tolerance(net, odd[:padded])
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
        _settle(net, chunk, fits, row, number)


@jit(inline=True)
def _settle(net: Net, chunk: Chunk, fits: Fits, row: int, number: int) -> None:
    # A unit that missed or met anything has no polynomial. Those of the others change from powers of x / widest to
    # powers of x, and from differences to central differences.
    layer, fifth = net.layers[number], fits.refits[row, number]
    widest = chunk.moves[row, layer.places] / net.h
    terms = fits.terms[row, :, layer.units : layer.units + layer.padded]
    missed, met = fits.missed[row, layer.units :], chunk.met[row, layer.units :]
    scale = net.scale / widest
    for n in range(3 if fifth else 2):
        for j in range(layer.outputs):
            missed[j] = 1 if met[j] else missed[j]
            terms[n, j] = 0.0 if missed[j] else terms[n, j] * scale
        scale /= widest * widest


@jit()
def add(begin: int, end: int, net: Net, chunk: Chunk, fits: Fits) -> None:
    # Groups begin to end of the rows of all layers' weights, of which a bias is the last: adds the value of every
    # polynomial to net.gradient.
    net, chunk, fits = borrowed(net), borrowed(chunk), borrowed(fits)
    depth, begin, end = len(net.layers), begin * GROUP, end * GROUP
    which, values = np.empty(end - begin + 1, np.int64), np.empty(end - begin + 1)  # the inputs except those of 0
    for number in range(depth):
        layer = net.layers[number]
        inputs, outputs, units = layer.inputs, layer.outputs, layer.units
        first = max(begin - layer.places, 0)
        last = min(end - layer.places, inputs + (1 if layer.end > layer.biases else 0))
        gradient = net.gradient[layer.weights : layer.end]
        for row in range(len(chunk.x) if first < last else 0):
            if fits.extreme[row, number]:
                continue  # all its polynomials are 0
            x, count = inputs_of(net, chunk, row, number), 0
            for i in range(first, min(last, inputs)):
                which[count], values[count] = i, x[i]
                count += 1 if x[i] != 0 else 0
            if last > inputs:
                which[count], values[count] = inputs, 1.0
                count += 1
            c1, c3, c5 = fits.terms[row, 0, units:], fits.terms[row, 1, units:], fits.terms[row, 2, units:]
            fours = count - count % 4
            for n in range(0, fours, 4):  # Each coefficient that is loaded serves four times.
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
            fifth = fits.refits[row, number] > 0
            for n in range(0 if fifth else fours, count):
                to0 = gradient[which[n] * outputs : (which[n] + 1) * outputs]
                x0, y0 = values[n], values[n] * values[n] * values[n]
                if n >= fours:
                    for j in range(outputs):
                        to0[j] = to0[j] + x0 * c1[j] + y0 * c3[j]
                if fifth:
                    for j in range(outputs):
                        to0[j] += y0 * (x0 * x0) * c5[j]
