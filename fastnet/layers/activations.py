"""Activation layers: functions applied to each element."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray
from fastnet.backends import active
from fastnet.backends.spec import Activation
from fastnet.layers.base import Branch, Layer, Widths, as_gradient, quietly

KINKED = (Activation.STEP, Activation.RELU, Activation.LEAKY_RELU)


def branch_of(kind: Activation, right: npt.NDArray[np.bool_], constant: float) -> Branch:
    """The smooth function that an activation is if each element stays on its side: right of 0, or not."""
    if kind == Activation.STEP:
        return lambda _: right.astype(np.float64)
    if kind in KINKED:
        left = constant if kind == Activation.LEAKY_RELU else 0.0
        return lambda x: np.where(right, x, left * x)
    return lambda x: active().activation(kind, x, constant)


class ActivationLayer(Layer):
    """A function applied to each element: what all activations share."""

    kind: ClassVar[Activation]
    constant: float = 0.0  # Of the activations that have one.

    def forward(self, x: npt.ArrayLike) -> Any:
        """Apply the activation to each element.

        Parameters
        ----------
        x : array_like
            Real numbers, any shape.

        Returns
        -------
        ndarray or scalar
            The shape of `x`; float32 or float64.

        Raises
        ------
        TypeError
            If `x` does not contain real numbers.
        """
        array = checks.as_floating(x, "x")
        self._saved = array
        return active().activation(self.kind, array, self.constant)[()]

    def widths(self) -> Widths:
        return "same"

    def branch(self, x: FloatArray) -> Branch | None:
        if self.kind not in KINKED:
            return None
        return branch_of(self.kind, np.asarray(x) > 0, self.constant)

    @quietly
    def backward(self, dout: npt.ArrayLike) -> Any:
        """The derivative with respect to `x`, in its shape and dtype; `dout` has the same shape."""
        x = self._last()
        return (as_gradient(dout, x.shape, x.dtype) * active().activation_derivative(self.kind, x, self.constant))[()]


class Step(ActivationLayer):
    """1 where x is positive, 0 elsewhere. Its derivative is 0, so layers before it do not learn."""

    kind = Activation.STEP


class Sigmoid(ActivationLayer):
    """1 / (1 + exp(−x))."""

    kind = Activation.SIGMOID


class Tanh(ActivationLayer):
    """The hyperbolic tangent."""

    kind = Activation.TANH


class ReLU(ActivationLayer):
    """max(x, 0). The derivative at 0 is 0."""

    kind = Activation.RELU


class LeakyReLU(ActivationLayer):
    """x where it is positive, slope·x elsewhere. The derivative at 0 is the slope.

    Parameters
    ----------
    slope : float, default 0.01
    """

    kind = Activation.LEAKY_RELU

    def __init__(self, slope: float = 0.01) -> None:
        self.constant = checks.as_real(slope, "slope")

    @property
    def slope(self) -> float:
        return self.constant
