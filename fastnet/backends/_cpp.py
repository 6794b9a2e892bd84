"""The compiled backend: the functions of the extension module, under the names that every backend has."""

from __future__ import annotations

from fastnet import _core
from fastnet._core import (
    activation,
    activation_derivative,
    add_bias,
    cross_entropy_error,
    forward,
    get_num_threads,
    gradient,
    loop,
    loss,
    matmul,
    mean_squared_error,
    set_num_threads,
    softmax,
)
from fastnet.backends._spec import Diagnostics, FloatArray, IntArray, NetworkSpec

__all__ = [
    "activation",
    "activation_derivative",
    "add_bias",
    "algorithms",
    "cross_entropy_error",
    "forward",
    "get_num_threads",
    "gradient",
    "incremental",
    "loop",
    "loss",
    "matmul",
    "mean_squared_error",
    "name",
    "nodal",
    "set_num_threads",
    "softmax",
]

name = "cpp"
algorithms = ("nodal", "incremental", "loop")


def incremental(
    spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float
) -> tuple[list[FloatArray], Diagnostics]:
    spec.check_differences()
    gradients, (evaluations, fallbacks, kinks, kinked) = _core.incremental(spec, x, t, h)
    return gradients, Diagnostics(evaluations, fallbacks, kinks, tuple(kinked))


def nodal(spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float) -> tuple[list[FloatArray], Diagnostics]:
    spec.check_differences()
    gradients, (evaluations, fallbacks, kinks, kinked) = _core.nodal(spec, x, t, h)
    return gradients, Diagnostics(evaluations, fallbacks, kinks, tuple(kinked))
