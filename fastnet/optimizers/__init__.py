"""Optimizers, which update parameters from their gradients, and learning rate schedules.

The formulas are PyTorch's, so the same sequence of gradients leads to the same parameters. All arithmetic is in the
parameter's own dtype. Scalars, such as 1 − beta1, are computed in float64 and then rounded to that dtype. Each
operation rounds once, in the order in which `step` writes them, and no multiply-add is fused, so that other
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
