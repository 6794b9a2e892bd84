"""Activation layers: functions applied to each element."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray
from fastnet.backends import active
from fastnet.backends.spec import Activation, has_kink
from fastnet.layers.base import Branch, Layer, Widths, as_gradient, quietly


def branch_of(kind: Activation, right: npt.NDArray[np.bool_], constant: float) -> Branch:
    """The smooth function that an activation is if each element stays on its side: right of 0, or not."""
    if kind == Activation.STEP:
        return lambda _: right.astype(np.float64)
    if kind == Activation.ELU:
        return lambda x: np.where(right, x, constant * np.expm1(x))
    if has_kink(kind, constant):
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
        if not has_kink(self.kind, self.constant):
            return None
        return branch_of(self.kind, np.asarray(x) > 0, self.constant)

    @quietly
    def backward(self, dout: npt.ArrayLike) -> Any:
        """The derivative with respect to `x`, in its shape and dtype; `dout` has the same shape."""
        x = self._last()
        return (as_gradient(dout, x.shape, x.dtype) * active().activation_derivative(self.kind, x, self.constant))[()]


class Step(ActivationLayer):
    """1 where x is positive, 0 elsewhere. Its derivative is 0, so layers before it do not learn.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> layer = fastnet.layers.Step()
    >>> layer.forward(np.array([[-1.0, 2.0]])).round(4)
    array([[0., 1.]])
    """

    kind = Activation.STEP


class Sigmoid(ActivationLayer):
    """1 / (1 + exp(−x)).

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> layer = fastnet.layers.Sigmoid()
    >>> layer.forward(np.array([[0.0, 2.0]])).round(4)
    array([[0.5   , 0.8808]])
    """

    kind = Activation.SIGMOID


class Tanh(ActivationLayer):
    """The hyperbolic tangent.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> layer = fastnet.layers.Tanh()
    >>> layer.forward(np.array([[1.0, 2.0]])).round(4)
    array([[0.7616, 0.964 ]])
    """

    kind = Activation.TANH


class ReLU(ActivationLayer):
    """max(x, 0). The derivative at 0 is 0.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> layer = fastnet.layers.ReLU()
    >>> layer.forward(np.array([[-1.0, 2.0]])).round(4)
    array([[0., 2.]])
    """

    kind = Activation.RELU


class LeakyReLU(ActivationLayer):
    """x where it is positive, slope·x elsewhere. The derivative at 0 is the slope.

    Parameters
    ----------
    slope : float, default 0.01

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> layer = fastnet.layers.LeakyReLU()
    >>> layer.forward(np.array([[-1.0, 2.0]])).round(4)
    array([[-0.01,  2.  ]])
    """

    kind = Activation.LEAKY_RELU

    def __init__(self, slope: float = 0.01) -> None:
        self.constant = checks.as_real(slope, "slope")

    @property
    def slope(self) -> float:
        return self.constant


class Softplus(ActivationLayer):
    """log(1 + exp(x)), a smooth ReLU.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> layer = fastnet.layers.Softplus()
    >>> layer.forward(np.array([[0.0, 2.0]])).round(4)
    array([[0.6931, 2.1269]])
    """

    kind = Activation.SOFTPLUS


class SiLU(ActivationLayer):
    """x·sigmoid(x), also called swish.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> layer = fastnet.layers.SiLU()
    >>> layer.forward(np.array([[-1.0, 2.0]])).round(4)
    array([[-0.2689,  1.7616]])
    """

    kind = Activation.SILU


class GELU(ActivationLayer):
    """x·Φ(x), with Φ the normal distribution itself.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> layer = fastnet.layers.GELU()
    >>> layer.forward(np.array([[-1.0, 2.0]])).round(4)
    array([[-0.1587,  1.9545]])
    """

    kind = Activation.GELU


class ELU(ActivationLayer):
    """x where it is positive, α·(exp(x) − 1) elsewhere. The derivative at 0 is α: there is a kink unless α is 1.

    Parameters
    ----------
    alpha : float, default 1

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> layer = fastnet.layers.ELU()
    >>> layer.forward(np.array([[-1.0, 2.0]])).round(4)
    array([[-0.6321,  2.    ]])
    """

    kind = Activation.ELU

    def __init__(self, alpha: float = 1.0) -> None:
        self.constant = checks.as_real(alpha, "alpha")

    @property
    def alpha(self) -> float:
        return self.constant


KINDS = (Step, Sigmoid, Tanh, ReLU, LeakyReLU, Softplus, SiLU, GELU, ELU)  # those that the kernels know
