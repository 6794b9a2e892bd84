"""The Numba backend: the fallback without the extension, compiled at first use and cached on disk."""

from fastnet._tools.checks import all_finite
from fastnet.backends._numba.backend import (
    algorithms,
    backward,
    checked_matmul,
    forward,
    gradient,
    incremental,
    loop,
    loss,
    loss_and_gradient,
    name,
    nodal,
    units,
)
from fastnet.backends._numba.evaluate import evaluate
from fastnet.backends._numba.functions import (
    activation,
    activation_derivative,
    add_bias,
    matmul,
    mean_loss,
    softmax,
)
from fastnet.backends._numba.threads import get_num_threads, set_num_threads
from fastnet.backends._numba.training import prepare, train

__all__ = [
    "activation",
    "activation_derivative",
    "add_bias",
    "algorithms",
    "all_finite",
    "backward",
    "checked_matmul",
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
    "prepare",
    "set_num_threads",
    "softmax",
    "train",
    "units",
]
