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
    loop,
    loss,
    loss_and_gradient,
    matmul,
    mean_squared_error,
    set_num_threads,
    softmax,
)
from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends.spec import Diagnostics, NetworkSpec

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
    "loss_and_gradient",
    "matmul",
    "mean_squared_error",
    "name",
    "nodal",
    "set_num_threads",
    "softmax",
]

name = "cpp"
algorithms = ("nodal", "incremental", "loop")


def gradient(spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray) -> list[FloatArray]:
    return loss_and_gradient(spec, x, t)[1]


def incremental(
    spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float
) -> tuple[list[FloatArray], Diagnostics]:
    spec.check_differences()
    gradients, (base, evaluations, fallbacks, kinks, kinked) = _core.incremental(spec, x, t, h)
    return gradients, Diagnostics(base, evaluations, fallbacks, kinks, tuple(kinked))


def nodal(spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float) -> tuple[list[FloatArray], Diagnostics]:
    spec.check_differences()
    gradients, (base, evaluations, fallbacks, kinks, kinked) = _core.nodal(spec, x, t, h)
    return gradients, Diagnostics(base, evaluations, fallbacks, kinks, tuple(kinked))
