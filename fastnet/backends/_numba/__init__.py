"""The Numba backend: the fallback without the extension, compiled at first use and cached on disk."""

from fastnet._tools.checks import all_finite
from fastnet.backends._numba.backend import (
    activation,
    activation_derivative,
    add_bias,
    algorithms,
    forward,
    gradient,
    loss,
    loss_and_gradient,
    matmul,
    mean_loss,
    name,
    softmax,
)
from fastnet.backends._numba.differences import incremental, nodal
from fastnet.backends._numba.evaluate import evaluate
from fastnet.backends._numba.loop import loop
from fastnet.backends._numba.stages import (
    stage_backward,
    stage_differences,
    stage_forward,
    stage_loop,
    stage_loss,
    stage_loss_and_gradient,
    stage_units,
)
from fastnet.backends._numba.threads import get_num_threads, set_num_threads
from fastnet.backends._numba.training import Dataset, stage_train, train

__all__ = [
    "Dataset",
    "activation",
    "activation_derivative",
    "add_bias",
    "algorithms",
    "all_finite",
    "evaluate",
    "forward",
    "get_num_threads",
    "gradient",
    "incremental",
    "loop",
    "loss",
    "loss_and_gradient",
    "matmul",
    "mean_loss",
    "name",
    "nodal",
    "set_num_threads",
    "softmax",
    "stage_backward",
    "stage_differences",
    "stage_forward",
    "stage_loop",
    "stage_loss",
    "stage_loss_and_gradient",
    "stage_train",
    "stage_units",
    "train",
]
