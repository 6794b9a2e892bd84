"""The base of all layers, and the checks that they share."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray

quietly = np.errstate(all="ignore")  # NaN and infinities go through, as in the kernels


class Layer:
    """The base of all layers, also of your own.

    A layer of a network's list has ``forward(x)``, or ``forward(x, train_flg=True)`` if it computes something else in
    training, and ``backward(dout)``. The network's batch is `x`, shape (batch, …), and each row of what `forward`
    gives belongs to the same row of `x`. `backward` takes the derivative of the loss by what `forward` gave last, and
    gives the derivative by `x`. Those of fastnet raise RuntimeError in `backward` if there was no `forward`, and
    ValueError if `dout` has not the shape of what `forward` gave.

    Attributes
    ----------
    params : dict of str to ndarray
        What is trained, by name: set it in ``__init__``, and read it from here in `forward` and `backward`, since a
        network puts its arrays here before each pass.
    grads : dict of str to ndarray
        The derivative of the loss by each of `params`: `backward` puts it here.
    state : dict of str to ndarray
        What is not trained, but kept from one pass in training to the next, such as running statistics, or how far a
        random generator is. Set it in ``__init__`` and read it from here, too.
    decayed : tuple of str
        The names of those `params` that a network's weight decay applies to.

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

    _saved: Any = None  # what the last forward left for backward

    def __new__(cls, *_: Any, **__: Any) -> Layer:  # not __init__, which subclasses need not call
        layer = super().__new__(cls)
        layer.params, layer.grads, layer.state = {}, {}, {}
        return layer

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no forward")

    def backward(self, *args: Any, **kwargs: Any) -> Any:
        raise NotImplementedError(f"{type(self).__name__} has no backward")

    def _last(self) -> Any:
        if self._saved is None:
            raise RuntimeError(f"{type(self).__name__}: backward was called before forward")
        return self._saved


def entry(attribute: str, name: str) -> Any:
    """A layer's array under the attribute that the book gives it; None while there is none."""

    def read(layer: Layer) -> FloatArray | None:
        array: FloatArray | None = getattr(layer, attribute).get(name)
        return array

    def write(layer: Layer, value: FloatArray) -> None:
        getattr(layer, attribute)[name] = value

    return property(read, write)


def as_gradient(dout: npt.ArrayLike, shape: tuple[int, ...], dtype: np.dtype[Any]) -> FloatArray:
    """`dout`, which must have the shape of what forward gave."""
    array = checks.as_floating(dout, "dout", dtype)
    if array.shape != shape:
        raise ValueError(f"dout must have the shape {shape} of what forward gave, not {array.shape}")
    return array


def as_columns(x: npt.ArrayLike, columns: int, dtype: np.dtype[Any], of: str) -> FloatArray:
    """`x`, which must have the shape (batch, columns)."""
    array = checks.as_floating(x, "x", dtype)
    if array.ndim != 2:
        raise ValueError(f"x must have shape (batch, {columns}), not {array.shape}")
    if array.shape[1] != columns:
        raise ValueError(f"x has {array.shape[1]} columns for {of}")
    return array
