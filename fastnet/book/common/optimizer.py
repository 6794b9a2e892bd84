"""`common/optimizer.py` of the book: update rules for dicts of arrays or of plain numbers.

They are fastnet's optimizers with the arguments and constants of the book: where fastnet's formulas, which are
PyTorch's, prevent 0/0 by 1e-10 or 1e-8, the book's have 1e-7.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, MutableMapping
from typing import Any

import numpy as np

from fastnet import optimizers
from fastnet._tools import checks
from fastnet._tools.types import FloatArray

__all__ = ["SGD", "AdaGrad", "Adam", "Momentum", "Nesterov", "RMSprop", "np"]

EPSILON = 1e-7  # what the book adds to a root before it divides by it


class _OfNumbers(optimizers.Optimizer):
    """An optimizer that also updates plain numbers, as in chapter 6, where params is {"x": -7.0, "y": 2.0}."""

    def update(self, params: Mapping[str, Any], grads: Mapping[str, Any]) -> None:
        """Update all parameters from their gradients: arrays in place, numbers by new ones in `params`.

        Parameters
        ----------
        params : dict of str to ndarray or float
            The parameters by name.
        grads : dict of str to ndarray or float
            The gradient with respect to each of them; other names are ignored, as in the book.

        Raises
        ------
        TypeError, ValueError
            As `fastnet.optimizers.Optimizer.update`; a gradient of numbers that are no array of the parameter's dtype
            is converted to it. No parameter is changed then.
        """
        if not isinstance(params, MutableMapping) or not isinstance(grads, Mapping):
            wrong, name = (params, "params") if not isinstance(params, MutableMapping) else (grads, "grads")
            raise TypeError(f"{name} must be a dict, not {checks.type_name(wrong)}")
        arrays = {
            name: p if isinstance(p, np.ndarray) else np.array(checks.as_real(p, f"params[{name!r}]"))
            for name, p in params.items()
        }
        gradients = {
            name: checks.as_floating(grads[name], f"grads[{name!r}]", p.dtype if p.dtype.kind == "f" else None)
            for name, p in arrays.items()
            if name in grads
        }
        super().update(arrays, gradients)
        for name, p in arrays.items():
            if p is not params[name]:
                params[name] = float(p)

    def _slot(self, name: str) -> dict[str, FloatArray] | None:
        """An array of `state` for each parameter; None before the first update, as in the book."""
        return self.state.get(name)


class SGD(_OfNumbers, optimizers.SGD):
    """Stochastic gradient descent: p ← p − lr·g. `fastnet.optimizers.SGD`.

    Parameters
    ----------
    lr : float, default 0.01

    Examples
    --------
    >>> from fastnet.book.common.optimizer import SGD
    >>> params = {"x": -7.0, "y": 2.0}
    >>> SGD(lr=0.5).update(params, {"x": -1.0, "y": 4})
    >>> params
    {'x': -6.5, 'y': 0.0}
    """


class Momentum(_OfNumbers, optimizers.Momentum):
    """Momentum: v ← momentum·v − lr·g; p ← p + v. `fastnet.optimizers.Momentum`, whose velocity is −v/lr.

    Parameters
    ----------
    lr : float, default 0.01
    momentum : float, default 0.9
    """

    @property
    def v(self) -> dict[str, FloatArray] | None:
        return _velocity(self)


class Nesterov(_OfNumbers, optimizers.Nesterov):
    """Nesterov's momentum: v ← momentum·v − lr·g; p ← p + momentum·v − lr·g. `fastnet.optimizers.Nesterov`.

    Parameters
    ----------
    lr : float, default 0.01
    momentum : float, default 0.9
    """

    @property
    def v(self) -> dict[str, FloatArray] | None:
        return _velocity(self)


def _velocity(optimizer: optimizers.Momentum) -> dict[str, FloatArray] | None:
    """The book's v; None before the first update."""
    (lr,) = optimizer.coefficients(max(optimizer.iteration - 1, 0))
    velocity = optimizer.state.get("velocity")
    return None if velocity is None else {name: -lr * array for name, array in velocity.items()}


class AdaGrad(_OfNumbers, optimizers.AdaGrad):
    """h ← h + g²; p ← p − lr·g/(√h + 1e-7). `fastnet.optimizers.AdaGrad`.

    Parameters
    ----------
    lr : float, default 0.01
    """

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__(lr, EPSILON)

    @property
    def h(self) -> dict[str, FloatArray] | None:
        return self._slot("sum_of_squares")


class RMSprop(_OfNumbers, optimizers.RMSprop):
    """h ← decay_rate·h + (1 − decay_rate)·g²; p ← p − lr·g/(√h + 1e-7). `fastnet.optimizers.RMSprop`.

    Parameters
    ----------
    lr : float, default 0.01
    decay_rate : float, default 0.99
    """

    def __init__(self, lr: float = 0.01, decay_rate: float = 0.99) -> None:
        super().__init__(lr, decay_rate, EPSILON)

    @property
    def h(self) -> dict[str, FloatArray] | None:
        return self._slot("mean_square")


class Adam(_OfNumbers, optimizers.Adam):
    """m ← m + (1 − beta1)·(g − m); v ← v + (1 − beta2)·(g² − v); p ← p − lrₖ·m/(√v + 1e-7).

    lrₖ is lr·√(1 − beta2ᵏ)/(1 − beta1ᵏ) in the k-th update. It is `fastnet.optimizers.Adam`, but the 1e-7 is added to
    √v, not to the corrected root √v/√(1 − beta2ᵏ).

    Parameters
    ----------
    lr : float, default 0.001
    beta1, beta2 : float, default 0.9 and 0.999
    """

    def __init__(self, lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999) -> None:
        super().__init__(lr, beta1, beta2, EPSILON)

    def step(self, p: FloatArray, g: FloatArray, state: Any, constants: Any, coefficients: Any) -> None:
        b1, b2, eps = constants
        corrected = p.dtype.type(eps / math.sqrt(1 - self.beta2 ** (self.iteration + 1)))
        super().step(p, g, state, (b1, b2, corrected), coefficients)

    @property
    def iter(self) -> int:
        return self.iteration

    @property
    def m(self) -> dict[str, FloatArray] | None:
        return self._slot("first_moment")

    @property
    def v(self) -> dict[str, FloatArray] | None:
        return self._slot("second_moment")
