"""Schedules: learning rates that change from update to update."""

from __future__ import annotations

import abc
import math
from dataclasses import dataclass

from fastnet._tools.checks import as_count, as_positive, as_real


class Schedule(abc.ABC):
    """A learning rate that changes from update to update: any optimizer takes one as its `lr`.

    For your own schedule, derive from this class and write ``__call__``.

    Examples
    --------
    >>> from fastnet.optimizers import SGD, Schedule
    >>> class Hyperbola(Schedule):
    ...     def __call__(self, iteration):
    ...         return 0.1 / (1 + 0.01 * iteration)
    >>> SGD(lr=Hyperbola()).coefficients(100)
    (0.05,)
    """

    @abc.abstractmethod
    def __call__(self, iteration: int) -> float:
        """The learning rate of one update: finite and at least 0.

        Parameters
        ----------
        iteration : int
            The number of updates before it.
        """


@dataclass(frozen=True)
class Constant(Schedule):
    """The same learning rate for every update.

    Parameters
    ----------
    lr : float
        Positive.

    Raises
    ------
    TypeError, ValueError
        If `lr` is not a number, or not positive and finite.

    Examples
    --------
    >>> from fastnet.optimizers import Constant
    >>> Constant(0.1)(1000)
    0.1
    """

    lr: float

    def __post_init__(self) -> None:
        as_positive(self.lr, "lr")

    def __call__(self, iteration: int) -> float:
        return float(self.lr)


@dataclass(frozen=True)
class StepDecay(Schedule):
    """lr·gamma^⌊iteration/step_size⌋: the learning rate is multiplied by `gamma` every `step_size` updates.

    Parameters
    ----------
    lr : float
        The initial learning rate, positive.
    step_size : int
        The number of updates between two changes; at least 1.
    gamma : float, default 0.1
        The factor, more than 0 and at most 1.

    Raises
    ------
    TypeError, ValueError
        If an argument is not a number, or is out of range.

    Examples
    --------
    >>> from fastnet.optimizers import StepDecay
    >>> schedule = StepDecay(0.1, 100, 0.5)
    >>> schedule(0), schedule(100)
    (0.1, 0.05)
    """

    lr: float
    step_size: int
    gamma: float = 0.1

    def __post_init__(self) -> None:
        as_positive(self.lr, "lr")
        as_count(self.step_size, "step_size", 1)
        if as_positive(self.gamma, "gamma") > 1:
            raise ValueError(f"gamma must be at most 1, not {self.gamma}")

    def __call__(self, iteration: int) -> float:
        return float(self.lr) * float(self.gamma) ** (as_count(iteration, "iteration", 0) // int(self.step_size))


@dataclass(frozen=True)
class CosineAnnealing(Schedule):
    """A linear warm-up, if `warmup` is given, then half a period of a cosine downwards.

    Update k (from 0) has the learning rate lr·(k+1)/warmup for k < warmup (P. Goyal et al., *Accurate, large minibatch
    SGD*, 2017), then final + (lr − final)·(1 + cos(π·(k − warmup)/(iterations − warmup)))/2 (I. Loshchilov and
    F. Hutter, *SGDR: stochastic gradient descent with warm restarts*, 2017, equation 5, without restarts), and `final`
    for k ≥ iterations. So the last of `iterations` updates is one step before `final`: with a `final` of 0 its
    learning rate is still positive.

    Parameters
    ----------
    lr : float
        The highest learning rate, positive.
    iterations : int
        The number of updates, including the warm-up; at least 1.
    warmup : int, default 0
        The number of updates in which the learning rate rises; less than `iterations`.
    final : float, default 0.0
        The final learning rate, from 0 to `lr`.

    Raises
    ------
    TypeError, ValueError
        If an argument is not a number, or is out of range.

    Examples
    --------
    >>> from fastnet.optimizers import CosineAnnealing
    >>> schedule = CosineAnnealing(0.1, 100)
    >>> schedule(0), round(schedule(50), 3)
    (0.1, 0.05)
    """

    lr: float
    iterations: int
    warmup: int = 0
    final: float = 0.0

    def __post_init__(self) -> None:
        as_positive(self.lr, "lr")
        as_count(self.iterations, "iterations", 1)
        if as_count(self.warmup, "warmup", 0) >= self.iterations:
            raise ValueError(f"warmup must be less than the {self.iterations} iterations, not {self.warmup}")
        if not 0 <= as_real(self.final, "final") <= self.lr:
            raise ValueError(f"final must be from 0 to the lr of {self.lr}, not {self.final}")

    def __call__(self, iteration: int) -> float:
        k = as_count(iteration, "iteration", 0)
        high, low, warmup, end = float(self.lr), float(self.final), int(self.warmup), int(self.iterations)
        if k < warmup:
            return high * (k + 1) / warmup
        if k >= end:
            return low
        return low + (high - low) * (1 + math.cos(math.pi * (k - warmup) / (end - warmup))) / 2
