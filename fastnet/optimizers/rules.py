"""The update rules of the optimizers; `fastnet.optimizers` describes their rounding."""

from __future__ import annotations

import math

import numpy as np

from fastnet._tools.checks import as_fraction, as_positive
from fastnet._tools.types import FloatArray
from fastnet.optimizers.base import Arrays, Optimizer, Scalars
from fastnet.optimizers.schedules import Schedule


class SGD(Optimizer):
    """Stochastic gradient descent: p ← p − lr·g.

    H. Robbins and S. Monro, *A stochastic approximation method*, 1951.

    Parameters
    ----------
    lr : float or Schedule, default 0.01
        The learning rate: a positive number or a schedule.

    Raises
    ------
    TypeError, ValueError
        If an argument is not a number, or is out of range.

    Examples
    --------
    >>> import fastnet
    >>> net = fastnet.TwoLayerNet(784, 50, 10, seed=0)
    >>> x, t = fastnet.datasets.make_digits(100, seed=0)
    >>> optimizer = fastnet.optimizers.SGD(lr=0.5)
    >>> before = net.loss(x, t)
    >>> for _ in range(10):
    ...     optimizer.update(net.params, net.gradient(x, t))
    >>> net.loss(x, t) < before
    True
    """

    name = "sgd"

    def __init__(self, lr: float | Schedule = 0.01) -> None:
        super().__init__(lr)

    def step(self, p: FloatArray, g: FloatArray, state: Arrays, constants: Scalars, coefficients: Scalars) -> None:
        (lr,) = coefficients
        p -= lr * g


class Momentum(Optimizer):
    """Gradient descent with momentum: v ← momentum·v + g; p ← p − lr·v.

    B. T. Polyak, *Some methods of speeding up the convergence of iteration methods*, 1964. Here the learning rate
    multiplies the velocity, as in PyTorch. Textbooks often include it in the velocity (v ← momentum·v − lr·g;
    p ← p + v), which is equivalent while the learning rate is constant.

    Parameters
    ----------
    lr : float or Schedule, default 0.01
        The learning rate: a positive number or a schedule.
    momentum : float, default 0.9
        The factor of the velocity at each update: at least 0 and less than 1.

    Raises
    ------
    TypeError, ValueError
        If an argument is not a number, or is out of range.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> params = {"w": np.array([1.0])}
    >>> fastnet.optimizers.Momentum(lr=0.1).update(params, {"w": np.array([2.0])})
    >>> params["w"].round(3)
    array([0.8])
    """

    name = "momentum"
    slots = ("velocity",)

    def __init__(self, lr: float | Schedule = 0.01, momentum: float = 0.9) -> None:
        super().__init__(lr)
        self.momentum = as_fraction(momentum, "momentum")

    @property
    def constants(self) -> tuple[float, ...]:
        return (self.momentum,)

    def step(self, p: FloatArray, g: FloatArray, state: Arrays, constants: Scalars, coefficients: Scalars) -> None:
        (v,), (mu,), (lr,) = state, constants, coefficients
        v *= mu
        v += g
        p -= lr * v


class Nesterov(Momentum):
    """Gradient descent with Nesterov's momentum: v ← momentum·v + g; p ← p − lr·(momentum·v + g).

    Y. Nesterov, *A method for solving the convex programming problem with convergence rate O(1/k²)*, 1983; in the form
    of Y. Bengio, N. Boulanger-Lewandowski and R. Pascanu, *Advances in optimizing recurrent networks*, 2012, whose
    parameters are those already moved by the velocity. The arguments are those of `Momentum`.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> params = {"w": np.array([1.0])}
    >>> fastnet.optimizers.Nesterov(lr=0.1).update(params, {"w": np.array([2.0])})
    >>> params["w"].round(3)
    array([0.62])
    """

    name = "nesterov"

    def step(self, p: FloatArray, g: FloatArray, state: Arrays, constants: Scalars, coefficients: Scalars) -> None:
        (v,), (mu,), (lr,) = state, constants, coefficients
        v *= mu
        v += g
        p -= lr * (mu * v + g)


class AdaGrad(Optimizer):
    """Each element has its own rate, which falls as its gradients add up: s ← s + g²; p ← p − lr·g/(√s + eps).

    J. Duchi, E. Hazan and Y. Singer, *Adaptive subgradient methods for online learning and stochastic optimization*,
    2011.

    Parameters
    ----------
    lr : float or Schedule, default 0.01
        The learning rate: a positive number or a schedule.
    eps : float, default 1e-10
        Prevents 0/0 for elements whose gradients are all 0; positive.

    Raises
    ------
    TypeError, ValueError
        If an argument is not a number, or is out of range.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> params = {"w": np.array([1.0])}
    >>> fastnet.optimizers.AdaGrad(lr=0.1).update(params, {"w": np.array([2.0])})
    >>> params["w"].round(3)
    array([0.9])
    """

    name = "adagrad"
    slots = ("sum_of_squares",)

    def __init__(self, lr: float | Schedule = 0.01, eps: float = 1e-10) -> None:
        super().__init__(lr)
        self.eps = as_positive(eps, "eps")

    @property
    def constants(self) -> tuple[float, ...]:
        return (self.eps,)

    def step(self, p: FloatArray, g: FloatArray, state: Arrays, constants: Scalars, coefficients: Scalars) -> None:
        (s,), (eps,), (lr,) = state, constants, coefficients
        s += g * g
        p -= (lr * g) / (np.sqrt(s) + eps)


class RMSprop(Optimizer):
    """AdaGrad with a decaying mean square: s ← a·s + (1 − a)·g²; p ← p − lr·g/(√s + eps), where a is the `decay_rate`.

    T. Tieleman and G. Hinton, *Lecture 6.5: rmsprop* (Coursera, Neural networks for machine learning), 2012.

    Parameters
    ----------
    lr : float or Schedule, default 0.01
        The learning rate: a positive number or a schedule.
    decay_rate : float, default 0.99
        The factor of the mean square at each update: at least 0 and less than 1.
    eps : float, default 1e-8
        Prevents 0/0 for elements whose gradients are all 0; positive.

    Raises
    ------
    TypeError, ValueError
        If an argument is not a number, or is out of range.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> params = {"w": np.array([1.0])}
    >>> fastnet.optimizers.RMSprop(lr=0.1).update(params, {"w": np.array([2.0])})
    >>> params["w"].round(3)
    array([0.])
    """

    name = "rmsprop"
    slots = ("mean_square",)

    def __init__(self, lr: float | Schedule = 0.01, decay_rate: float = 0.99, eps: float = 1e-8) -> None:
        super().__init__(lr)
        self.decay_rate = as_fraction(decay_rate, "decay_rate")
        self.eps = as_positive(eps, "eps")

    @property
    def constants(self) -> tuple[float, ...]:
        return (self.decay_rate, self.eps)

    def step(self, p: FloatArray, g: FloatArray, state: Arrays, constants: Scalars, coefficients: Scalars) -> None:
        (s,), (a, eps), (lr,) = state, constants, coefficients
        rest = p.dtype.type(1 - self.decay_rate)  # 1 − a with the rounded a would have its rounding error.
        s *= a
        s += (rest * g) * g
        p -= (lr * g) / (np.sqrt(s) + eps)


class Adam(Optimizer):
    """Momentum and RMSprop combined, with a correction for their start at 0.

    m ← beta1·m + (1 − beta1)·g; v ← beta2·v + (1 − beta2)·g²; p ← p − lr·m̂/(√v̂ + eps), where m̂ = m/(1 − beta1ᵏ) and
    v̂ = v/(1 − beta2ᵏ) in the k-th update, k from 1. D. P. Kingma and J. Ba, *Adam: a method for stochastic
    optimization*, 2015, algorithm 1.

    Parameters
    ----------
    lr : float or Schedule, default 0.001
        The learning rate: a positive number or a schedule.
    beta1, beta2 : float, default 0.9 and 0.999
        The factors of the mean and of the mean square at each update: at least 0 and less than 1.
    eps : float, default 1e-8
        Prevents 0/0 for elements whose gradients are all 0; positive.

    Raises
    ------
    TypeError, ValueError
        If an argument is not a number, or is out of range.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> params = {"w": np.array([1.0])}
    >>> fastnet.optimizers.Adam(lr=0.1).update(params, {"w": np.array([2.0])})
    >>> params["w"].round(3)
    array([0.9])
    """

    name = "adam"
    slots = ("first_moment", "second_moment")

    def __init__(
        self, lr: float | Schedule = 0.001, beta1: float = 0.9, beta2: float = 0.999, eps: float = 1e-8
    ) -> None:
        super().__init__(lr)
        self.beta1, self.beta2 = as_fraction(beta1, "beta1"), as_fraction(beta2, "beta2")
        self.eps = as_positive(eps, "eps")

    @property
    def constants(self) -> tuple[float, ...]:
        return (self.beta1, self.beta2, self.eps)

    def coefficients(self, iteration: int) -> tuple[float, ...]:
        """lr/(1 − beta1ᵏ) and √(1 − beta2ᵏ), with k = iteration + 1."""
        (lr,) = super().coefficients(iteration)
        k = iteration + 1
        return lr / (1 - self.beta1**k), math.sqrt(1 - self.beta2**k)

    def step(self, p: FloatArray, g: FloatArray, state: Arrays, constants: Scalars, coefficients: Scalars) -> None:
        (m, v), (b1, b2, eps), (c0, c1) = state, constants, coefficients
        rest1, rest2 = p.dtype.type(1 - self.beta1), p.dtype.type(1 - self.beta2)
        m *= b1
        m += rest1 * g
        v *= b2
        v += (rest2 * g) * g
        p -= (c0 * m) / (np.sqrt(v) / c1 + eps)


OPTIMIZERS: dict[str, type[Optimizer]] = {kind.name: kind for kind in (SGD, Momentum, Nesterov, AdaGrad, RMSprop, Adam)}
