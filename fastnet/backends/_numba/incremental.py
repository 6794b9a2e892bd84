"""Kernels of `incremental`: the distinct moves of each row's inputs, and the sum of their effects.

Inputs of 0 move nothing; equal inputs of a row move a unit equally, and are evaluated once. The effects of a row's
distinct moves go into a table, from which they are added to the gradient.
"""

from __future__ import annotations

import numpy as np

from fastnet.backends._numba import elements as kernels
from fastnet.backends._numba.elements import LANES
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
    inputs_of,
)


@jit()
def distinct(begin: int, end: int, job: Job) -> None:
    # Pairs begin to end: their distinct moves, and which of them each input makes. The bias makes the first one.
    job = borrowed(job)
    slots = np.empty(0, np.int32)  # a hash table: numbers of moves, or -1
    values = np.empty(0, np.int64)  # the bits of the inputs that make them
    for pair in range(begin, end):
        if job.wanted.size > 0 and job.counts[pair] == 0:
            continue
        row, number = pair // len(job.layers), pair % len(job.layers)
        layer, x = job.layers[number], inputs_of(job, row, number)
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


@jit(inline=True)
def note_pair(job: Job, pair: int) -> None:
    # Adds what a pair's elements met to what its units met.
    row, number = pair // len(job.layers), pair % len(job.layers)
    most, units = job.element_moves[number], job.layers[number, UNITS]
    parts = (job.counts[pair] + most - 1) // most
    for element in range(job.elements[pair], job.elements[pair + 1]):
        block = (element - job.elements[pair]) // parts
        for i in range(min(LANES, job.layers[number, OUTPUTS] - block * LANES)):
            job.met[row, units + block * LANES + i] |= job.element_met[(element - job.first) * LANES + i]


@jit()
def note(begin: int, end: int, job: Job) -> None:
    # Pairs begin to end, from job.begin on.
    job = borrowed(job)
    for pair in range(job.begin + begin, job.begin + end):
        note_pair(job, pair)


@jit()
def add(begin: int, end: int, job: Job) -> None:
    # Groups begin to end of the rows of the layers' weights, a bias being the last row: adds the tables of the pairs
    # job.begin to job.end, rows of the batch ascending.
    job = borrowed(job)
    depth, begin, end = len(job.layers), begin * GROUP, end * GROUP
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
