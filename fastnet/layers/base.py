"""The base class of all layers, and the checks that layers share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray

quietly = np.errstate(all="ignore")  # NaN and infinities propagate without a warning, as in the kernels.


# What `Layer.widths` returns: (inputs, outputs), "same" for as many outputs as inputs, or None where unknown.
Widths: TypeAlias = tuple[int, int] | Literal["same"] | None
# What `Layer.branch` returns.
Branch: TypeAlias = Callable[[FloatArray], FloatArray]


class Layer:
    """The base class of all layers, including your own.

    A layer in a network's list has ``forward(x)``, or ``forward(x, train_flg=True)`` if training and inference differ,
    and ``backward(dout)``. `x` is the network's batch, shape (batch, …), and each row of the output of `forward`
    belongs to the same row of `x`. `backward` takes the derivative of the loss with respect to the last output of
    `forward`, and returns the derivative with respect to `x`. The layers of fastnet raise RuntimeError in `backward`
    if `forward` was not called before, and ValueError if `dout` does not have the shape of its output.

    Attributes
    ----------
    params : dict of str to ndarray
        The trained arrays by name. Set it in ``__init__``, and read the arrays from here in `forward` and `backward`,
        since a network puts its arrays here before each pass.
    grads : dict of str to ndarray
        The derivative of the loss with respect to each of `params`, stored by `backward`.
    state : dict of str to ndarray
        Arrays that are not trained but kept from one training pass to the next, such as running statistics or the
        position of a random generator. Set it in ``__init__`` and read the arrays from here, too.
    decayed : tuple of str
        The names of the `params` to which a network's weight decay applies.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> class Scale(fastnet.layers.Layer):
    ...     def __init__(self, factors):
    ...         self.params = {"factors": factors}
    ...     def forward(self, x):
    ...         self.x = x
    ...         return x * self.params["factors"]
    ...     def backward(self, dout):
    ...         self.grads = {"factors": (dout * self.x).sum(axis=0)}
    ...         return dout * self.params["factors"]
    >>> net = fastnet.Network([Scale(np.array([2.0, 3.0]))], fastnet.layers.SoftmaxWithLoss())
    >>> sorted(net.gradient([[1.0, 1.0]], [0]))
    ['factors1']
    """

    params: dict[str, FloatArray]
    grads: dict[str, FloatArray]
    state: dict[str, npt.NDArray[Any]]
    decayed: ClassVar[tuple[str, ...]] = ()

    _saved: Any = None  # Set by forward for backward.

    def __new__(cls, *_: Any, **__: Any) -> Layer:  # __init__ will not do: subclasses need not call it.
        layer = super().__new__(cls)
        layer.params, layer.grads, layer.state = {}, {}, {}
        return layer

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    def widths(self) -> Widths:
        """How many columns the layer takes and gives, for the network's checks of neighbouring layers.

        Returns
        -------
        tuple of int, "same" or None
            (inputs, outputs); ``"same"`` if it takes any number of columns and gives as many; None, the default, if
            unknown, which is never refused. Override it in a layer of your own, and in a subclass whose `forward` has
            other widths than that of its base class.
        """
        return None

    def branch(self, x: FloatArray) -> Branch | None:
        """The smooth function that `forward` is on the same side of every kink as at `x`.

        `check_gradient` and `check_layer` compare with its differences: a step across a kink tells nothing about a
        derivative. Override it in a layer of your own that has kinks.

        Parameters
        ----------
        x : ndarray
            What `forward` takes.

        Returns
        -------
        callable or None
            Takes an array of the shape of `x`, in float64, and returns one; None, the default, if the layer has no
            kinks or does not tell.
        """
        return None

    def _last(self) -> Any:
        if self._saved is None:
            raise RuntimeError(f"{type(self).__name__}: backward was called before forward")
        return self._saved


def entry(attribute: str, name: str) -> Any:
    """A property for one array of a layer, with the book's name; None while there is no such array."""

    def read(layer: Layer) -> FloatArray | None:
        array: FloatArray | None = getattr(layer, attribute).get(name)
        return array

    def write(layer: Layer, value: FloatArray) -> None:
        getattr(layer, attribute)[name] = value

    return property(read, write)


def as_gradient(dout: npt.ArrayLike, shape: tuple[int, ...], dtype: np.dtype[Any]) -> FloatArray:
    """`dout` as an array of `dtype`; it must have `shape`, that of the output of forward."""
    array = checks.as_floating(dout, "dout", dtype)
    if array.shape != shape:
        raise ValueError(f"dout must have the shape of the output of forward, {shape}, not {array.shape}")
    return array


def as_columns(x: npt.ArrayLike, columns: int, dtype: np.dtype[Any], of: str) -> FloatArray:
    """`x` as an array of `dtype`; it must have shape (batch, columns). `of` names the layer in messages."""
    array = checks.as_floating(x, "x", dtype)
    if array.ndim != 2:
        raise ValueError(f"x must have shape (batch, {columns}), not {array.shape}")
    if array.shape[1] != columns:
        raise ValueError(f"x has {array.shape[1]} columns for {of}")
    return array
