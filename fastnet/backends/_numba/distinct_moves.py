"""`incremental`: the distinct moves of each row's inputs, and the sum of their effects.

Inputs of 0 move nothing. Equal inputs of a row move a unit equally, and are evaluated once.
"""

from __future__ import annotations

import numpy as np

from fastnet.backends._numba import elementary
from fastnet.backends._numba.base_point import Chunk, inputs_of
from fastnet.backends._numba.elementary import LANES
from fastnet.backends._numba.jit import borrowed, jit
from fastnet.backends._numba.moves import Table
from fastnet.backends._numba.network import GROUP, Net


@jit()
def find(begin: int, end: int, net: Net, chunk: Chunk) -> None:
    # Pairs begin to end, except those whose chunk.counts is 0: their distinct moves, and which of them each input
    # makes. A bias makes the first one.
    net, chunk = borrowed(net), borrowed(chunk)
    slots = np.empty(0, np.int32)  # a hash table: numbers of moves, or -1
    values = np.empty(0, np.int64)  # the bits of each move's input
    for pair in range(begin, end):
        row, number = pair // len(net.layers), pair % len(net.layers)
        if chunk.counts[row, number] == 0:
            continue
        layer, x = net.layers[number], inputs_of(net, chunk, row, number)
        size = 4
        while size < 2 * (x.size + 1):
            size *= 2
        if slots.size != size:
            slots, values = np.empty(size, np.int32), np.empty(size, np.int64)
        slots[:] = -1
        count, biased = 0, layer.end > layer.biases
        for i in range(-1 if biased else 0, x.size):
            place = layer.places + (i if i >= 0 else x.size)
            value = np.float64(x[i]) if i >= 0 else 1.0
            if value == 0:
                chunk.which[row, place] = -1
                continue
            bits = elementary.bits_of(value)
            slot = ((bits * -7046029254386353131) >> 32) & (size - 1)
            while slots[slot] >= 0 and values[slots[slot]] != bits:
                slot = (slot + 1) & (size - 1)
            if slots[slot] < 0:
                slots[slot], values[count] = count, bits
                chunk.moves[row, layer.places + count] = net.h * x.dtype.type(value)
                count += 1
            chunk.which[row, place] = slots[slot]
        chunk.counts[row, number] = count


@jit(inline=True)
def collect_met(net: Net, chunk: Chunk, table: Table, pair: int) -> None:
    # Adds what the pair's elements met to chunk.met.
    row, number = pair // len(net.layers), pair % len(net.layers)
    layer, first_element = net.layers[number], table.elements[table.begin]
    parts = (table.counts[pair] + layer.most - 1) // layer.most
    for element in range(table.elements[pair], table.elements[pair + 1]):
        block = (element - table.elements[pair]) // parts
        for i in range(min(LANES, layer.outputs - block * LANES)):
            met = table.element_met[(element - first_element) * LANES + i]
            chunk.met[row, layer.units + block * LANES + i] |= met


@jit()
def collect(begin: int, end: int, net: Net, chunk: Chunk, table: Table) -> None:
    # Pairs begin to end of the table: adds what their elements met to chunk.met.
    net, chunk, table = borrowed(net), borrowed(chunk), borrowed(table)
    for pair in range(table.begin + begin, table.begin + end):
        collect_met(net, chunk, table, pair)


@jit()
def add(begin: int, end: int, net: Net, chunk: Chunk, table: Table) -> None:
    # Groups begin to end of the rows of all layers' weights, of which a bias is the last: adds the effects in the table
    # to net.gradient, rows of the batch ascending.
    net, chunk, table = borrowed(net), borrowed(chunk), borrowed(table)
    depth, begin, end = len(net.layers), begin * GROUP, end * GROUP
    at = np.empty(len(chunk.x), np.int64)  # where the effects begin in table.odd, for each row that adds any
    for number in range(depth):
        layer = net.layers[number]
        outputs, padded, places = layer.outputs, layer.padded, layer.places
        height = layer.inputs + (1 if layer.end > layer.biases else 0)
        first, last = max(begin - places, 0), min(end - places, height)
        if first >= last:
            continue
        gradient = net.gradient[layer.weights : layer.end]
        begin_row, end_row = (table.begin - number + depth - 1) // depth, (table.end - number + depth - 1) // depth
        for i in range(first, last):
            count, to = 0, gradient[i * outputs : (i + 1) * outputs]
            for row in range(begin_row, end_row):
                if chunk.counts[row, number] > 0 and chunk.which[row, places + i] >= 0:
                    at[count] = table.begins[row * depth + number] + chunk.which[row, places + i] * padded
                    count += 1
            fours = count - count % 4
            for n in range(0, fours, 4):  # Each row of the gradient that is loaded serves four times.
                odd0, odd1 = table.odd[at[n] : at[n] + outputs], table.odd[at[n + 1] : at[n + 1] + outputs]
                odd2, odd3 = table.odd[at[n + 2] : at[n + 2] + outputs], table.odd[at[n + 3] : at[n + 3] + outputs]
                for j in range(outputs):
                    to[j] += net.scale * (odd0[j] + odd1[j] + (odd2[j] + odd3[j]))
            for n in range(fours, count):
                odd0 = table.odd[at[n] : at[n] + outputs]
                for j in range(outputs):
                    to[j] += net.scale * odd0[j]
