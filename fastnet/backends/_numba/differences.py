"""The finite-difference gradients `incremental` and `nodal`: which kernels run, on which rows, in which order.

A weight moves its unit's pre-activation by h times its input, a bias by h. `incremental` evaluates the distinct moves
of each row and adds their effects to the gradient. `nodal` evaluates a few moves of each unit, adds the values of the
polynomials through their effects, and does as `incremental` does for units that have no such polynomial. Threads share
out the moves to evaluate, and then the rows of the gradient, so that its sums have one order.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends import _numpy
from fastnet.backends._numba import base_point, distinct_moves, moves, network, polynomials, threads
from fastnet.backends._numba.base_point import Chunk
from fastnet.backends._numba.elementary import LANES
from fastnet.backends._numba.jit import plain
from fastnet.backends._numba.loop import loop
from fastnet.backends._numba.moves import Table
from fastnet.backends._numba.network import GROUP, NODES
from fastnet.backends._numba.polynomials import Fits
from fastnet.backends.spec import Diagnostics, NetworkSpec

CHUNK_BYTES = 8 << 20  # What is kept of the rows at work.
TABLE_BYTES = 8 << 20  # The effects of their moves.
ROW_PRODUCTS = 1e7  # Rows of fewer multiply-adds go through all kernels of `nodal` in one call.

_ALL = np.empty((0, 0), np.uint8)  # `Table.wanted` where every unit is


@lru_cache(maxsize=16)
def _elements_of_nodes(padded: tuple[int, ...], rows: int) -> tuple[IntArray, IntArray]:
    """Return `Table.elements` for the nodes of all pairs, and (pairs + 1,) where each pair's effects begin."""
    elements = np.zeros(rows * len(padded) + 1, np.int64)
    np.cumsum(np.tile(padded, rows) // LANES, out=elements[1:])
    return elements, elements * (NODES * LANES)


class _Differences:
    """A network's finite-difference gradient in the making."""

    def __init__(self, spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float, nodes: bool) -> None:
        self.spec, self.x, self.depth, self.nodes = spec, plain(x), len(spec.weights), nodes
        self.t, self.h = t, h
        self.labels, self.targets = base_point.labels_and_targets(t)
        self.layout, self.net = network.layout(spec), network.describe(spec, h, len(x))
        # A row keeps a move and two numbers for each place, eight values for each unit, and the effects of its nodes.
        row_bytes = 16 * self.layout.places + (64 + 8 * NODES * nodes) * self.layout.units
        self.rows = min(max(CHUNK_BYTES // row_bytes, 1), threads.BLOCK_ROWS, len(x))
        self.memory = base_point.allocate(self.rows, spec, self.layout)
        self.fits = polynomials.allocate(self.rows, self.layout) if nodes else {}
        self.evaluations = self.fallbacks = self.kinks = 0

    def gradient(self) -> tuple[list[FloatArray], Diagnostics]:
        """Add up the chunks, then the penalty."""
        spec, layers = self.spec, self.layout.layers
        kinked, losses, far = np.zeros(self.layout.units, bool), 0.0, False
        for first in range(0, len(self.x), self.rows):
            chunk = self._chunk(first)
            if self.nodes:
                self._add_nodal(chunk, Fits(**{k: v[: len(chunk.x)] for k, v in self.fits.items()}))
            else:
                self._add_incremental(chunk)
            losses += float(chunk.losses.sum(dtype=np.float64))
            far |= bool(chunk.far.any())
            if not np.isfinite(chunk.losses).all():  # The difference of two such losses is not finite either.
                self.net.gradient[:] = np.nan
                break
            if self.layout.kinked:
                kinked |= (chunk.met & moves.KINK).any(axis=0)
        gradients, at = [], 0
        for parameter in spec.parameters:
            gradients.append(self.net.gradient[at : at + parameter.size].reshape(parameter.shape))
            at += parameter.size
            if parameter.ndim == 2:
                gradients[-1] = _numpy.with_decay(spec, gradients[-1], parameter)
        if far and np.isfinite(losses):
            h = float(spec.dtype.type(self.h))
            gradients = _numpy.replace_lost(gradients, lambda lost: loop(spec, self.x, self.t, h, lost))
        return gradients, Diagnostics(
            losses / len(self.x) + _numpy.penalty(spec),
            self.evaluations,
            self.fallbacks,
            self.kinks,
            tuple(kinked[begin : begin + size].copy() for begin, size in layers[["units", "outputs"]].tolist()),
        )

    def _chunk(self, first: int) -> Chunk:
        """Return the chunk of rows that begins here, of which nothing is computed yet."""
        at = slice(first, first + self.rows)
        x = self.x[at]
        chunk = Chunk(x, self.labels[at], self.targets[at], **{k: v[: len(x)] for k, v in self.memory.items()})
        chunk.met[:] = 0
        return chunk

    def _add_incremental(self, chunk: Chunk) -> None:
        """Add the chunk's share in the gradient by `incremental`, if every loss is finite."""
        threads.share(base_point.forward, (self.net, chunk), len(chunk.x), self.layout.products)
        if np.isfinite(chunk.losses).all():
            chunk.counts[:] = 1  # Any number but 0: every pair is wanted.
            units = np.broadcast_to(self.layout.layers["outputs"], chunk.counts.shape)
            self._add_moves(chunk, _ALL, units)

    def _add_nodal(self, chunk: Chunk, fits: Fits) -> None:
        """Add the chunk's share in the gradient by `nodal`, if every loss is finite."""
        net, layers, products = self.net, self.layout.layers, self.layout.products
        rows, pairs = len(chunk.x), chunk.counts.size
        elements, begins = _elements_of_nodes(tuple(layers["padded"].tolist()), rows)
        table = Table(
            begin=0,
            end=pairs,
            counts=chunk.counts.ravel(),
            skip=0,
            wanted=_ALL,
            elements=elements,
            element_met=np.empty(elements[-1] * LANES, np.int64),
            begins=begins,
            odd=np.empty(begins[-1]),
        )
        fits.missed[:] = 0
        if self.layout.nodes < ROW_PRODUCTS:
            threads.share(polynomials.fit_rows, (net, chunk, table, fits), rows, products + self.layout.nodes)
        else:
            threads.share(base_point.forward, (net, chunk), rows, products)
            threads.share(polynomials.set_nodes, (net, chunk), pairs, products)
            element_products = self.layout.nodes * rows / int(elements[-1])
            threads.share(moves.evaluate, (net, chunk, table), int(elements[-1]), element_products)
            threads.share(polynomials.fit, (net, chunk, table, fits), pairs, products)
        if not np.isfinite(chunk.losses).all():
            return
        self.evaluations += 2 * int((chunk.counts @ layers["outputs"]).sum())
        refits = int(fits.refits.sum())
        if refits:
            counts = np.minimum(fits.refits, 1).ravel()
            fourth = self._evaluate(chunk, 0, pairs, counts, fits.missed, begins, table.odd, skip=NODES - 1)
            self.evaluations += 2 * refits
            threads.share(polynomials.refit, (net, chunk, fourth, fits), pairs, products)
        self._add(polynomials.add, (net, chunk, fits), rows)
        if self.layout.kinked:
            self.kinks += int((chunk.met & moves.KINK).sum())
        fallbacks = int(fits.missed.sum())
        if fallbacks:
            self.fallbacks += fallbacks
            units = np.add.reduceat(fits.missed, layers["units"], axis=1, dtype=np.int64)
            chunk.counts[:] = units > 0
            self._add_moves(chunk, fits.missed, units)

    def _add_moves(self, chunk: Chunk, wanted: npt.NDArray[np.uint8], units: IntArray) -> None:
        """Add the effects of every move of the wanted units, of which each pair has `units` (rows, depth)."""
        rows, pairs, layers = len(chunk.x), chunk.counts.size, self.layout.layers
        threads.share(distinct_moves.find, (self.net, chunk), pairs, self.layout.products)
        counts = chunk.counts.ravel()
        self.evaluations += 2 * int((chunk.counts * units).sum())
        ends = np.cumsum(counts * np.tile(layers["padded"], rows))
        begin, done = 0, 0
        while begin < pairs:  # As many pairs at a time as the table has room for.
            end = max(int(np.searchsorted(ends, done + TABLE_BYTES // 8, side="right")), begin + 1)
            begins = np.concatenate([[0], ends[:-1]]) - done
            table = self._evaluate(chunk, begin, end, counts, wanted, begins, np.empty(ends[end - 1] - done))
            if self.layout.kinked:
                threads.share(distinct_moves.collect, (self.net, chunk, table), end - begin, self.layout.products)
            self._add(distinct_moves.add, (self.net, chunk, table), rows)
            begin, done = end, int(ends[end - 1])

    def _evaluate(
        self,
        chunk: Chunk,
        begin: int,
        end: int,
        counts: IntArray,
        wanted: npt.NDArray[np.uint8],
        begins: IntArray,
        odd: FloatArray,
        skip: int = 0,
    ) -> Table:
        """Return the filled table of the pairs from `begin` to `end`."""
        layers = np.arange(counts.size) % self.depth
        of = self.layout.layers
        parts = -(-counts // of["most"][layers])
        elements = np.concatenate([[0], np.cumsum(parts * (of["padded"][layers] // LANES))])
        size = int(elements[end] - elements[begin])
        element_met = np.empty(size * LANES, np.int64)
        table = Table(begin, end, counts, skip, wanted, elements, element_met, begins, odd)
        products = counts * (2.0 * of["outputs"] * self.layout.tails)[layers]
        element_products = float(products[begin:end].sum()) / max(size, 1)
        threads.share(moves.evaluate, (self.net, chunk, table), size, element_products)
        return table

    def _add(self, kernel: Any, arguments: tuple[Any, ...], rows: int) -> None:
        """Run a kernel that adds to groups of the gradient's rows."""
        threads.share(kernel, arguments, -(-self.layout.places // GROUP), GROUP * rows * self.net.widest)


def incremental(
    spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float
) -> tuple[list[FloatArray], Diagnostics]:
    """Return the central differences with respect to every parameter, each move evaluated by itself."""
    spec.check_differences()
    return _Differences(spec, x, t, h, nodes=False).gradient()


def nodal(spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float) -> tuple[list[FloatArray], Diagnostics]:
    """Return the same central differences, interpolated from a few moves of each unit where that is exact enough."""
    spec.check_differences()
    return _Differences(spec, x, t, h, nodes=True).gradient()
