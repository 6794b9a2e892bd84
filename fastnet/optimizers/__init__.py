"""Optimizers, which change parameters by their gradients, and schedules of the learning rate.

The formulas are PyTorch's, so that the same sequence of gradients leads to the same parameters. Everything is computed
in the parameter's own dtype. Scalars (1 − beta1 is one) are computed in float64 and rounded to it first; then there is
one rounding for each operation, in the order in which `step` writes them, and no multiply-add is fused: other
implementations can repeat it bit for bit.
"""

from fastnet.optimizers.base import Optimizer
from fastnet.optimizers.rules import OPTIMIZERS, SGD, AdaGrad, Adam, Momentum, Nesterov, RMSprop
from fastnet.optimizers.schedules import Constant, CosineAnnealing, Schedule, StepDecay

__all__ = [
    "OPTIMIZERS",
    "SGD",
    "AdaGrad",
    "Adam",
    "Constant",
    "CosineAnnealing",
    "Momentum",
    "Nesterov",
    "Optimizer",
    "RMSprop",
    "Schedule",
    "StepDecay",
]
