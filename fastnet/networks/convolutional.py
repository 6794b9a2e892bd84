"""The convolutional networks of the book's chapters 7 and 8."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet.layers import Affine, Convolution, Dropout, Flatten, Layer, MaxPooling, ReLU, Reshape, SoftmaxWithLoss
from fastnet.layers.patches import as_pair, as_windows
from fastnet.layers.shape import as_shape
from fastnet.networks.network import Network
from fastnet.networks.textbook import weight_std


def _filters(filter_num: int, filter_size: int, pad: int) -> Mapping[str, int]:
    return MappingProxyType({"filter_num": filter_num, "filter_size": filter_size, "pad": pad, "stride": 1})


class _ConvNet(Network):
    """What both networks share: a test set is evaluated in parts, since it takes much memory at once."""

    def accuracy(self, x: npt.ArrayLike, t: npt.ArrayLike, batch_size: int | None = 100) -> float:
        return super().accuracy(x, t, batch_size)

    accuracy.__doc__ = (Network.accuracy.__doc__ or "").replace("all by default", "100 by default, all if None")


class SimpleConvNet(_ConvNet):
    """Convolution, ReLU, max pooling, affine, ReLU, affine, softmax: the network of the book's chapter 7.

    Its loss is the cross entropy. The pooling takes windows of 2×2, side by side. `x` is images, shape (batch,
    channels, height, width), or their pixels as flat rows, as `load_mnist` gives them by default.

    Parameters
    ----------
    input_dim : tuple of int, default (1, 28, 28)
        The channels, height and width of an image.
    conv_param : dict
        The convolution: ``"filter_num"``, how many filters, and ``"filter_size"``, ``"pad"`` and ``"stride"``, each a
        number or a pair (vertical, horizontal). By default 30 filters of 5×5, pad 0 and stride 1.
    hidden_size : int, default 100
        The number of hidden units.
    output_size : int, default 10
        The number of classes.
    weight_init_std : float or {"he", "xavier"}, default 0.01
        The standard deviation of the normal distribution that the weights are drawn from, as for `MultiLayerNet`; the
        inputs of a convolution are the numbers under one filter. Biases start at 0.
    dtype : {"float64", "float32"}
    seed : int, optional
        Seed of the weights.

    Attributes
    ----------
    params : dict of str to ndarray
        ``W1`` (filters, channels, filter height, filter width), ``b1`` (filters,), ``W2`` (numbers after the pooling,
        hidden_size), ``b2``, ``W3`` (hidden_size, output_size), ``b3``.

    Raises
    ------
    TypeError
        If an argument, or an entry of `conv_param`, has the wrong type.
    ValueError
        If an argument is out of its range, `conv_param` lacks an entry or has another one, or the filters or the
        pooling do not fit into what comes to them.

    Examples
    --------
    >>> import fastnet
    >>> net = fastnet.SimpleConvNet(seed=0)
    >>> {name: p.shape for name, p in net.params.items() if name[0] == "W"}
    {'W1': (30, 1, 5, 5), 'W2': (4320, 100), 'W3': (100, 10)}
    >>> x, t = fastnet.datasets.make_digits(20, seed=0)
    >>> net(x).shape, net(x.reshape(20, 1, 28, 28)).shape
    ((20, 10), (20, 10))

    LeNet-5 of today, with ReLU and max pooling, as a list of layers:

    >>> import numpy as np
    >>> from fastnet.layers import Affine, Convolution, Flatten, MaxPooling, ReLU, Reshape, SoftmaxWithLoss
    >>> rng = np.random.default_rng(0)
    >>> def he(*shape):
    ...     inputs = shape[0] if len(shape) == 2 else np.prod(shape[1:])
    ...     return rng.standard_normal(shape) * np.sqrt(2 / inputs)
    >>> lenet = fastnet.Network(
    ...     [
    ...         Reshape((1, 28, 28)),
    ...         Convolution(he(6, 1, 5, 5), np.zeros(6), pad=2), ReLU(), MaxPooling(2, 2, stride=2),
    ...         Convolution(he(16, 6, 5, 5), np.zeros(16)), ReLU(), MaxPooling(2, 2, stride=2),
    ...         Flatten(),
    ...         Affine(he(400, 120), np.zeros(120)), ReLU(),
    ...         Affine(he(120, 84), np.zeros(84)), ReLU(),
    ...         Affine(he(84, 10), np.zeros(10)),
    ...     ],
    ...     SoftmaxWithLoss(),
    ... )
    >>> sum(p.size for p in lenet.params.values())
    61706
    >>> lenet(x).shape
    (20, 10)
    """

    def __init__(
        self,
        input_dim: Sequence[int] = (1, 28, 28),
        conv_param: Mapping[str, Any] = _filters(30, 5, 0),
        hidden_size: int = 100,
        output_size: int = 10,
        weight_init_std: float | str = 0.01,
        *,
        dtype: npt.DTypeLike = "float64",
        seed: int | None = None,
    ) -> None:
        stack = _Stack(input_dim, weight_init_std, dtype, seed)
        stack.convolution(conv_param, "conv_param")
        stack.pooling()
        stack.hidden(checks.as_count(hidden_size, "hidden_size"))
        stack.affine(checks.as_count(output_size, "output_size"))
        super().__init__(stack.layers, SoftmaxWithLoss())


class DeepConvNet(_ConvNet):
    """Three times two convolutions and a max pooling, then two affine layers: the network of the book's chapter 8.

    ReLU follows each convolution and the first affine layer, Dropout with a ratio of 0.5 both affine layers; then comes
    softmax, and the loss is the cross entropy. The poolings take windows of 2×2, side by side. The weights are drawn
    with He's standard deviation, √(2/n) for n inputs of a filter or unit; biases start at 0. `x` is images, shape
    (batch, channels, height, width), or their pixels as flat rows, as `load_mnist` gives them by default.

    Parameters
    ----------
    input_dim : tuple of int, default (1, 28, 28)
        The channels, height and width of an image.
    conv_param_1, …, conv_param_6 : dict
        The convolutions, as for `SimpleConvNet`. By default 16, 16, 32, 32, 64 and 64 filters of 3×3, with pad 1 but
        for the fourth, which has pad 2, and stride 1.
    hidden_size : int, default 50
        The number of hidden units.
    output_size : int, default 10
        The number of classes.
    dtype : {"float64", "float32"}
    seed : int, optional
        Seed of the weights and of the masks of Dropout.

    Attributes
    ----------
    params : dict of str to ndarray
        ``W1``, ``b1``, … ``W6``, ``b6`` of the convolutions, ``W7``, ``b7``, ``W8`` and ``b8`` of the affine layers.

    Raises
    ------
    TypeError, ValueError
        As `SimpleConvNet`.

    Examples
    --------
    >>> import fastnet
    >>> net = fastnet.DeepConvNet(seed=0)
    >>> net.params["W6"].shape, net.params["W7"].shape
    ((64, 64, 3, 3), (1024, 50))
    """

    def __init__(
        self,
        input_dim: Sequence[int] = (1, 28, 28),
        conv_param_1: Mapping[str, Any] = _filters(16, 3, 1),
        conv_param_2: Mapping[str, Any] = _filters(16, 3, 1),
        conv_param_3: Mapping[str, Any] = _filters(32, 3, 1),
        conv_param_4: Mapping[str, Any] = _filters(32, 3, 2),
        conv_param_5: Mapping[str, Any] = _filters(64, 3, 1),
        conv_param_6: Mapping[str, Any] = _filters(64, 3, 1),
        hidden_size: int = 50,
        output_size: int = 10,
        *,
        dtype: npt.DTypeLike = "float64",
        seed: int | None = None,
    ) -> None:
        stack = _Stack(input_dim, "he", dtype, seed)
        convolutions = (conv_param_1, conv_param_2, conv_param_3, conv_param_4, conv_param_5, conv_param_6)
        for number, conv_param in enumerate(convolutions, 1):
            stack.convolution(conv_param, f"conv_param_{number}")
            if number % 2 == 0:
                stack.pooling()
        stack.hidden(checks.as_count(hidden_size, "hidden_size"))
        stack.dropout()
        stack.affine(checks.as_count(output_size, "output_size"))
        stack.dropout()
        super().__init__(stack.layers, SoftmaxWithLoss())


class _Stack:
    """Layers on top of each other, with weights that are drawn for the shape of what comes to them.

    Attributes
    ----------
    layers : list of Layer
    shape : tuple of int
        Of what the last of them gives for one image.
    """

    def __init__(self, input_dim: object, weight_init_std: float | str, dtype: npt.DTypeLike, seed: int | None) -> None:
        self.shape = as_shape(input_dim, "input_dim")
        if len(self.shape) != 3:
            raise ValueError(f"input_dim must be (channels, height, width), not {self.shape}")
        self._std, self._dtype = weight_init_std, checks.as_dtype(dtype)
        self._rng = np.random.default_rng(checks.as_seed(seed))
        self.layers: list[Layer] = [Reshape(self.shape)]

    def convolution(self, conv_param: object, name: str) -> None:
        """A convolution and ReLU."""
        param = _as_conv_param(conv_param, name)
        filters = checks.as_count(param["filter_num"], f"{name}['filter_num']")
        size = as_pair(param["filter_size"], f"{name}['filter_size']")
        stride = as_pair(param["stride"], f"{name}['stride']")
        pad = as_pair(param["pad"], f"{name}['pad']", least=0)
        weights = self._drawn((filters, self.shape[0], *size), self.shape[0] * math.prod(size))
        self.layers += [Convolution(weights, np.zeros(filters, self._dtype), stride, pad), ReLU()]
        self.shape = (filters, *self._places(size, stride, pad, f"a filter of {name}"))

    def pooling(self) -> None:
        """Max pooling in windows of 2×2, side by side."""
        self.layers.append(MaxPooling(2, 2, stride=2))
        self.shape = (self.shape[0], *self._places((2, 2), (2, 2), (0, 0), "the pooling"))

    def affine(self, units: int) -> None:
        """An affine layer."""
        if len(self.shape) > 1:
            self.layers.append(Flatten())
        inputs = math.prod(self.shape)
        self.layers.append(Affine(self._drawn((inputs, units), inputs), np.zeros(units, self._dtype)))
        self.shape = (units,)

    def hidden(self, units: int) -> None:
        """An affine layer and ReLU."""
        self.affine(units)
        self.layers.append(ReLU())

    def dropout(self) -> None:
        self.layers.append(Dropout(0.5, seed=int(self._rng.integers(2**63))))

    def _drawn(self, shape: tuple[int, ...], inputs: int) -> npt.NDArray[Any]:
        return (weight_std(self._std, inputs) * self._rng.standard_normal(shape)).astype(self._dtype)

    def _places(
        self, size: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int], what: str
    ) -> tuple[int, int]:
        """How many windows there are below and beside each other; ValueError if there are none."""
        try:
            return as_windows(size, stride, pad).counts((1, *self.shape))
        except ValueError as error:
            _, height, width = self.shape
            raise ValueError(
                f"input_dim is too small: {what} of {size[0]}×{size[1]} does not fit into {height}×{width} with pad "
                f"{pad}"
            ) from error


def _as_conv_param(value: object, name: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise TypeError(f"{name} must be a dict, not {checks.type_name(value)}")
    wanted = ("filter_num", "filter_size", "pad", "stride")
    for key in wanted:
        if key not in value:
            raise ValueError(f"{name} has no {key!r}")
    for key in value:
        if key not in wanted:
            raise ValueError(f"{name} has {key!r}: it must have {', '.join(map(repr, wanted))} alone")
    return value
