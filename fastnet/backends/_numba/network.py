"""A network as the kernels see it: the same types whatever its depth, so that each kernel is compiled once."""

from __future__ import annotations

from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np

from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends._numba import activations, series, threads
from fastnet.backends._numba.elementary import LANES
from fastnet.backends.spec import Activation, Loss, NetworkSpec

BATCH = 8  # Moves of LANES units, in both directions, that go through a deep network together.
NODES = 4  # Moves of each unit that `nodal` evaluates.
GROUP = 56  # Rows of a weight that one thread sums together. With fewer, all their inputs would often be 0.

# A layer, by names: `layer.outputs`. The type is that of `np.record`, so that plain Python understands it as well.
LAYER = np.dtype(
    (
        np.record,
        [
            ("inputs", np.int64),
            ("outputs", np.int64),
            ("kind", np.int64),  # its activation
            ("constant", np.float64),  # the activation's, rounded to the network's dtype
            ("weights", np.int64),  # where its weights begin in `Net.theta`: (inputs, outputs)
            ("biases", np.int64),  # where its biases begin: (outputs,), or (0,) if it has none
            ("end", np.int64),  # where its biases end
            ("units", np.int64),  # where its units begin in a row of `Chunk.z` and the like
            ("padded", np.int64),  # outputs, padded to whole LANES
            ("places", np.int64),  # where its moves begin in a row of `Chunk.moves`
            ("most", np.int64),  # the most moves of one element: see `Table`
        ],
    )
)


class Net(NamedTuple):
    """A network and the step of its finite differences. All but what is in the network's dtype is float64."""

    theta: FloatArray  # every parameter, in the order of NetworkSpec.parameters and in the network's dtype
    gradient: FloatArray  # the central difference with respect to each, likewise: the result
    layers: Any  # (depth,) records: LAYER
    widest: int  # the most units of a layer
    output: int
    loss: int
    loss_constant: float  # the delta of the Huber loss
    smooth: bool  # whether any activation is curved
    steepest: float  # the greatest absolute weight of the last layer
    effects: FloatArray  # (2, classes, units): how units of the last layer, and of the one before, move each class
    small: float  # the longest move for series
    short: float  # the longest move for series of third order
    h: Any  # the step, in the network's dtype
    scale: float  # 1 / (2 h batch)


class Layout(NamedTuple):
    """Where a network's parameters and units are kept, and what its work costs in multiply-adds."""

    layers: Any  # (depth,) records: LAYER
    parameters: int
    units: int  # of all layers, padded
    width: int  # the most units of the last two layers, padded
    places: int  # moves of a row that there is room for
    products: int  # of a row's forward pass
    tails: IntArray  # (depth,): of a move from each layer to the loss
    nodes: float  # of a row's nodes
    kinked: bool  # whether any activation or the loss has a kink


def layout(spec: NetworkSpec) -> Layout:
    shapes = tuple(layer.weight.shape for layer in spec.layers)
    kinds = tuple((kind, float(spec.dtype.type(constant))) for _, _, kind, constant in spec.layers)
    return _layout(shapes, tuple(layer.bias is not None for layer in spec.layers), kinds, spec.loss)


@lru_cache(maxsize=16)
def _layout(
    shapes: tuple[tuple[int, int], ...],
    biased: tuple[bool, ...],
    kinds: tuple[tuple[Activation, float], ...],
    loss: Loss,
) -> Layout:
    # kinds: each layer's activation, and the activation's constant.
    depth, classes = len(shapes), shapes[-1][1]
    layers = np.zeros(depth, LAYER)
    parameters = units = places = 0
    for number, ((inputs, outputs), bias, (kind, constant)) in enumerate(zip(shapes, biased, kinds, strict=True)):
        biases = parameters + inputs * outputs
        end, padded = biases + (outputs if bias else 0), -(-outputs // LANES) * LANES
        # In the last two layers one or two milliseconds' work, earlier what goes through the network together.
        most = max(min(128, 12800 // classes), BATCH) if number >= depth - 2 else BATCH
        layers[number] = inputs, outputs, int(kind), constant, parameters, biases, end, units, padded, places, most
        parameters, units, places = end, units + padded, places + max(inputs + 1, NODES)
    products = [outputs * (inputs + threads.UNIT_PRODUCTS) for inputs, outputs in shapes]
    tails = np.cumsum([threads.UNIT_PRODUCTS, *products[:0:-1]])[::-1]
    return Layout(
        layers=layers,
        parameters=parameters,
        units=units,
        width=int(layers["padded"][-2:].max()),
        places=places,
        products=sum(products),
        tails=tails,
        nodes=float(2 * NODES * (layers["outputs"] * tails).sum()),
        kinked=loss == Loss.ABSOLUTE_ERROR or any(activations.has_kink(int(k), constant) for k, constant in kinds),
    )


def describe(spec: NetworkSpec, h: float, batch: int) -> Net:
    """Return the network as the kernels of finite differences take it, with a gradient of zeros."""
    place, last, step = layout(spec), spec.weights[-1], spec.dtype.type(h)
    behind_hidden = len(spec.weights) > 1
    effects = np.zeros((2, spec.classes, place.width))
    np.fill_diagonal(effects[0], 1)
    if behind_hidden:
        effects[1, :, : len(last)] = last.T
    return Net(
        theta=spec.flatten(spec.parameters),
        gradient=np.zeros(place.parameters, spec.dtype),
        layers=place.layers,
        widest=max(weight.shape[1] for weight in spec.weights),
        output=int(spec.output),
        loss=int(spec.loss),
        loss_constant=float(spec.dtype.type(spec.loss_constant)),
        smooth=any(activations.is_smooth(int(kind)) for _, _, kind, _ in spec.layers),
        steepest=float(np.abs(last).max(initial=0)) if behind_hidden else 0.0,
        effects=effects,
        small=activations.small_move(spec.dtype),
        short=series.short_move(spec.dtype),
        h=step,
        scale=1 / (2 * float(step) * batch),
    )
