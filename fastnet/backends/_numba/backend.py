"""The backend's functions of networks: which files compute one. Chains have kernels of their own, which are faster."""

from __future__ import annotations

from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends._numba import chain, differences, stages
from fastnet.backends._numba.loop import loop as chain_loop
from fastnet.backends.spec import Diagnostics, NetworkSpec

name = "numba"
algorithms = ("nodal", "incremental", "loop")
checked_matmul = None

units, backward = stages.units, stages.backward


def forward(spec: NetworkSpec, x: FloatArray) -> FloatArray:
    return chain.forward(spec, x) if spec.layers else stages.forward(spec, x)


def loss(
    spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, training: bool = False, counts: bool = False
) -> float:
    return chain.loss(spec, x, t) if spec.layers else stages.loss(spec, x, t, training, counts)


def loss_and_gradient(
    spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, inputs: bool = False
) -> tuple[float, list[FloatArray], FloatArray | None]:
    if spec.layers and not inputs:
        return *chain.loss_and_gradient(spec, x, t), None
    return stages.loss_and_gradient(spec, x, t, inputs)


def gradient(spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray) -> list[FloatArray]:
    return loss_and_gradient(spec, x, t)[1]


def loop(spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float, entries: IntArray) -> FloatArray:
    return (chain_loop if spec.layers else stages.loop)(spec, x, t, h, entries)


def incremental(
    spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float
) -> tuple[list[FloatArray], Diagnostics]:
    return differences.incremental(spec, x, t, h) if spec.layers else stages.incremental(spec, x, t, h)


def nodal(spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float) -> tuple[list[FloatArray], Diagnostics]:
    return differences.nodal(spec, x, t, h) if spec.layers else stages.nodal(spec, x, t, h)
