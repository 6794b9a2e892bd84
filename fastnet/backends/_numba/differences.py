"""The finite-difference gradients of the Numba backend: `incremental` and `nodal`.

A weight moves its unit's pre-activation by h times its input, a bias by h. Inputs of 0 move nothing; equal inputs of a
row move it equally, and are evaluated once. The effects of a row's distinct moves go into a table, from which they are
added to the gradient. Threads share out the tables, and then the gradient's rows, so that its sums have one order.

`nodal` evaluates a few moves of each unit, and the others where these do not tell the whole.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends import _numpy
from fastnet.backends._numba import elements as kernels
from fastnet.backends._numba import threads
from fastnet.backends._numba.elements import LANES
from fastnet.backends._numba.incremental import add, distinct, note
from fastnet.backends._numba.job import GROUP, OUTPUTS, PADDED, UNITS, Job, base
from fastnet.backends._numba.moves import BATCH, KINK, evaluate, has_kink
from fastnet.backends._numba.nodal import NODES, add_polynomials, fit, fit_rows, refit, set_nodes
from fastnet.backends.spec import Activation, Diagnostics, NetworkSpec

SHORT_MOVE = 1e-5, 5e-3  # in float64 and float32: for softmax's argument, where series of third order do
CHUNK_BYTES = 8 << 20  # of what is kept of the rows that are done together
TABLE_BYTES = 8 << 20  # of what their moves do
ROW_PRODUCTS = 1e7  # multiply-adds that go through all kernels of `nodal` in one call; more are shared out by kernels


# The gradient -------------------------------------------------------------------------------------------

_ALL = np.empty((0, 0), np.uint8)


def _targets(t: FloatArray | IntArray, classes: int) -> tuple[IntArray, FloatArray]:
    """Labels, -1 where a row of the targets counts, and these rows in float64; one-hot rows are told by their label."""
    if t.ndim == 1:
        return np.array(t, np.int64), np.empty((len(t), 0))
    one_hot = ((t == 1).sum(axis=1) == 1) & ((t != 0).sum(axis=1) == 1)
    return np.where(one_hot, (t == 1).argmax(axis=1), -1), np.array(t, np.float64)


class _Layout(NamedTuple):
    """Where a network's units and parameters are kept, and what its work costs in multiply-adds."""

    layers: IntArray  # (depth, columns): as in Job
    parameters: int
    units: int
    width: int  # the most units of the last two layers, padded
    places: int
    products: int  # of a row's forward pass
    tails: IntArray  # (depth,): of a move
    nodes: float  # of all nodes of a row
    kinked: bool


@lru_cache(maxsize=16)
def _layout(
    shapes: tuple[tuple[int, int], ...], biased: tuple[bool, ...], activations: tuple[Activation, ...]
) -> _Layout:
    layers: list[tuple[int, ...]] = []
    begin = units = places = 0
    for (inputs, outputs), bias, kind in zip(shapes, biased, activations, strict=True):
        biases = begin + inputs * outputs
        end, padded = biases + (outputs if bias else 0), -(-outputs // LANES) * LANES
        layers.append((inputs, outputs, int(kind), begin, biases, end, units, padded, places))
        begin, units, places = end, units + padded, places + max(inputs + 1, NODES)
    width = max(layer[PADDED] for layer in layers[-2:])
    products = [outputs * (inputs + threads.UNIT_PRODUCTS) for inputs, outputs in shapes]
    tails = np.cumsum([threads.UNIT_PRODUCTS, *products[:0:-1]])[::-1]
    nodes = float(2 * NODES * sum(outputs * tail for (_, outputs), tail in zip(shapes, tails.tolist(), strict=True)))
    kinked = any(has_kink(int(kind)) for kind in activations)
    return _Layout(np.array(layers, np.int64), begin, units, width, places, sum(products), tails, nodes, kinked)


@lru_cache(maxsize=16)
def _node_tables(padded: tuple[int, ...], rows: int) -> tuple[IntArray, IntArray]:
    """Where the nodes' tables begin, and the elements that fill them: (pairs + 1,)."""
    blocks = np.zeros(rows * len(padded) + 1, np.int64)
    np.cumsum(np.tile(padded, rows) // LANES, out=blocks[1:])
    return blocks * (NODES * LANES), blocks


class _Differences:
    """A network's finite-difference gradient in the making."""

    def __init__(self, spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float, nodes: bool) -> None:
        self.spec, self.x, self.nodes = spec, x, nodes
        self.depth, dtype = len(spec.weights), spec.dtype
        self.labels, self.targets = _targets(t, spec.classes)
        shapes = tuple(weight.shape for weight in spec.weights)
        layout = _layout(shapes, tuple(bias is not None for bias in spec.biases), spec.activations)
        self.layout, self.layers, units, places = layout, layout.layers, layout.units, layout.places

        last = spec.weights[-1]
        effects = np.zeros((2, spec.classes, layout.width))
        effects[0].ravel()[:: layout.width + 1] = 1
        if self.depth > 1:
            effects[1, :, : len(last)] = last.T
        # Places, moves and a number for each input; per unit five values of the base, three terms, and tables.
        chunk = CHUNK_BYTES // (16 * places + (64 + 8 * NODES * nodes) * units)
        rows = min(max(chunk, 1), threads.BLOCK_ROWS, len(x))
        # Moves that an element of the last two layers holds: one or two milliseconds' work.
        most = max(min(128, 12800 // spec.classes), BATCH)
        self.evaluations = self.fallbacks = self.kinks = 0
        single = dtype == np.float32
        empty, step = np.empty(0, np.int64), dtype.type(h)
        places_of_units, answers = np.zeros((3, rows, units)), np.empty((2, rows, spec.classes))
        self.job = Job(
            theta=np.concatenate([p.ravel() for p in spec.parameters]),
            gradient=np.zeros(layout.parameters, dtype),
            layers=self.layers,
            widest=max(shape[1] for shape in shapes),
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
            x=x[:rows],
            labels=self.labels[:rows],
            targets=self.targets[:rows],
            z=np.zeros((rows, units), dtype),
            a=places_of_units[0],
            s=places_of_units[1],
            c=places_of_units[2],
            last=answers[0],
            y=answers[1],
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
            element_moves=np.array([BATCH] * (self.depth - 2) + [most] * min(self.depth, 2), np.int64),
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
        kinked, losses = np.zeros(job.met.shape[1], bool), 0.0
        for first in range(0, len(self.x), len(job.x)):
            self._chunk(first)
            chunk_losses = job.losses[: len(self.job.x)]
            losses += float(chunk_losses.sum(dtype=np.float64))
            if not np.isfinite(chunk_losses).all():  # nor is the difference of two such losses
                job.gradient[:] = np.nan
                break
            if self.layout.kinked:
                kinked |= (job.met & KINK).any(axis=0)
        gradients, at = [], 0
        for parameter in spec.parameters:
            gradients.append(job.gradient[at : at + parameter.size].reshape(parameter.shape))
            at += parameter.size
            if parameter.ndim == 2:
                gradients[-1] = _numpy.with_decay(spec, gradients[-1], parameter)
        units = [slice(u, u + n) for u, n in self.layers[:, [UNITS, OUTPUTS]].tolist()]
        return gradients, Diagnostics(
            losses / len(self.x) + _numpy.penalty(spec),
            self.evaluations,
            self.fallbacks,
            self.kinks,
            tuple(kinked[u].copy() for u in units),
        )

    def _chunk(self, first: int) -> None:
        """Add what the chunk of rows that begins here contributes, if every loss is finite."""
        at = slice(first, first + len(self.job.met))
        chunk: dict[str, Any] = {"x": self.x[at], "labels": self.labels[at], "targets": self.targets[at]}
        rows, job = len(chunk["x"]), self.job
        job.met[:] = 0
        if not self.nodes:
            self.job = job._replace(**chunk)
            self._run(base, rows, self.layout.products)
            if np.isfinite(job.losses[:rows]).all():
                self._add_moves(None)
            return

        job.missed[:] = 0
        pairs, products, evaluations = rows * self.depth, self.layout.products, self.layout.nodes
        tables, elements = _node_tables(tuple(self.layers[:, PADDED].tolist()), rows)
        chunk |= {"odd": np.empty(tables[-1]), "tables": tables, "elements": elements, "first": 0, "wanted": _ALL}
        self.job = job._replace(**chunk, skip=0, element_met=np.empty(elements[-1] * LANES, np.int64))
        if evaluations < ROW_PRODUCTS:
            self._run(fit_rows, rows, products + evaluations)
        else:
            self._run(base, rows, products)
            self._run(set_nodes, pairs, products)
            self._run(evaluate, int(elements[-1]), evaluations * rows / int(elements[-1]))
            self._run(fit, pairs, products)
        if not np.isfinite(job.losses[:rows]).all():
            return
        self.evaluations += 2 * int((job.counts[:pairs].reshape(rows, -1) @ self.layers[:, OUTPUTS]).sum())
        refits = int(job.refit[:pairs].sum())
        if refits:
            counts = np.minimum(job.refit, 1)
            self.job = self.job._replace(wanted=job.missed, skip=NODES - 1)
            self._evaluate(0, pairs, counts)
            self.evaluations += 2 * refits
            self._run(refit, pairs, self.layout.products)
        self._run(add_polynomials, -(-self.layout.places // GROUP), GROUP * rows * job.widest)
        if self.layout.kinked:
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
        self._run(distinct, pairs, self.layout.products)

        counts = self.job.counts[:pairs]
        self.evaluations += 2 * int((counts.reshape(units.shape) * units).sum())
        ends = np.cumsum(counts * np.tile(self.layers[:, PADDED], rows))
        begin, done = 0, 0
        while begin < pairs:  # as many pairs as the table has room for
            end = max(int(np.searchsorted(ends, done + TABLE_BYTES // 8, side="right")), begin + 1)
            tables = np.concatenate([[0], ends[:-1]]) - done
            self.job = self.job._replace(odd=np.empty(ends[end - 1] - done), tables=tables, begin=begin, end=end)
            self._evaluate(begin, end, self.job.counts)
            if self.layout.kinked:
                self._run(note, end - begin, self.layout.products)
            self._run(add, -(-self.layout.places // GROUP), GROUP * rows * self.job.widest)
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
        products = counts[:pairs] * (2.0 * self.layers[:, OUTPUTS] * self.layout.tails)[layers]
        self._run(evaluate, size, float(products[begin:end].sum()) / max(size, 1))

    def _run(self, stage: Any, size: int, products: float) -> None:
        threads.share(stage, self.job, size, products)


def incremental(
    spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float
) -> tuple[list[FloatArray], Diagnostics]:
    spec.check_differences()
    return _Differences(spec, x, t, h, nodes=False).gradient()


def nodal(spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float) -> tuple[list[FloatArray], Diagnostics]:
    spec.check_differences()
    return _Differences(spec, x, t, h, nodes=True).gradient()
