"""The compiled backend: the functions of the extension module. No other file imports the extension."""

from __future__ import annotations

from typing import Any

from fastnet import _core
from fastnet._core import (
    activation,
    activation_derivative,
    add_bias,
    all_finite,
    backward,
    evaluate,
    forward,
    get_num_threads,
    loop,
    loss,
    loss_and_gradient,
    matmul,
    mean_loss,
    set_num_threads,
    softmax,
    train,
    units,
)
from fastnet._tools.interrupts import END_KERNEL
from fastnet._tools.types import FloatArray, IntArray
from fastnet.backends.spec import Diagnostics, NetworkSpec

__all__ = [
    "activation",
    "activation_derivative",
    "add_bias",
    "algorithms",
    "all_finite",
    "backward",
    "build_details",
    "checked_matmul",
    "evaluate",
    "forward",
    "get_num_threads",
    "gradient",
    "hessian_diagonal",
    "incremental",
    "loop",
    "loss",
    "loss_and_gradient",
    "matmul",
    "mean_loss",
    "name",
    "nodal",
    "prepare",
    "set_num_threads",
    "softmax",
    "train",
    "units",
]

END_KERNEL.append(_core.end_kernel)

name = "cpp"
algorithms = ("nodal", "incremental", "loop")
checked_matmul = matmul
prepare = _core.Dataset


def gradient(spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray) -> list[FloatArray]:
    return loss_and_gradient(spec, x, t)[1]


def incremental(
    spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float
) -> tuple[list[FloatArray], Diagnostics]:
    return _exact_differences(_core.incremental, spec, x, t, h)


def nodal(spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float) -> tuple[list[FloatArray], Diagnostics]:
    return _exact_differences(_core.nodal, spec, x, t, h)


def hessian_diagonal(
    spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float
) -> tuple[list[FloatArray], Diagnostics]:
    return _exact_differences(_core.hessian_diagonal, spec, x, t, h)


def _exact_differences(
    compute: Any, spec: NetworkSpec, x: FloatArray, t: FloatArray | IntArray, h: float
) -> tuple[list[FloatArray], Diagnostics]:
    spec.check_differences()
    gradients, (base, evaluations, fallbacks, kinks, kinked) = compute(spec, x, t, h)
    return gradients, Diagnostics(base, evaluations, fallbacks, kinks, tuple(kinked))


def build_details() -> dict[str, str]:
    """Return how the extension was built, and the instruction set in use."""
    return {"isa": _core.isa(), "compiler": _core.compiler, "threading": _core.threading}
