"""`ch07/simple_convnet.py` of the book: the smallest convolutional network."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet import layers
from fastnet._tools import checks
from fastnet.book.common.layers import Affine, Convolution, Pooling, Relu, SoftmaxWithLoss
from fastnet.book.common.util import conv_output_size
from fastnet.book.layered import LayeredNet
from fastnet.networks import Network

__all__ = ["SimpleConvNet"]

FILTERS = {"filter_num": 30, "filter_size": 5, "pad": 0, "stride": 1}


class SimpleConvNet(LayeredNet):
    """Convolution, ReLU, max pooling of 2×2, affine, ReLU, affine; its loss is softmax and the cross entropy.

    Parameters
    ----------
    input_dim : tuple of int, default (1, 28, 28)
        Channels, height and width of the images.
    conv_param : dict, default {"filter_num": 30, "filter_size": 5, "pad": 0, "stride": 1}
    hidden_size : int, default 100
        The number of units between the two affine layers.
    output_size : int, default 10
        The number of classes.
    weight_init_std : float, default 0.01
        The standard deviation of the weights, which are drawn with ``np.random.randn``; biases start at 0.

    Attributes
    ----------
    params : dict of str to ndarray
        ``W1`` (filter_num, channels, filter_size, filter_size), ``b1``, ``W2``, ``b2``, ``W3``, ``b3``.
    layers : OrderedDict
        ``"Conv1"``, ``"Relu1"``, ``"Pool1"``, ``"Affine1"``, ``"Relu2"``, ``"Affine2"``.
    last_layer : SoftmaxWithLoss

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of its range, or no window of the pooling is left.
    """

    takes_images = True

    def __init__(
        self,
        input_dim: tuple[int, int, int] = (1, 28, 28),
        conv_param: Mapping[str, int] = FILTERS,
        hidden_size: int = 100,
        output_size: int = 10,
        weight_init_std: float = 0.01,
    ) -> None:
        channels, *sides = as_image_shape(input_dim)
        filters, size, pad, stride = as_filters(conv_param, "conv_param")
        hidden, classes = checks.as_count(hidden_size, "hidden_size"), checks.as_count(output_size, "output_size")
        scale = checks.as_not_negative(weight_init_std, "weight_init_std")
        pooled = [int(conv_output_size(side, size, stride, pad)) // 2 for side in sides]
        if min(pooled) < 1:
            raise ValueError(f"input_dim {tuple(input_dim)} is too small for conv_param {dict(conv_param)} and pooling")
        self.params = {
            "W1": scale * np.random.randn(filters, channels, size, size),
            "b1": np.zeros(filters),
            "W2": scale * np.random.randn(filters * pooled[0] * pooled[1], hidden),
            "b2": np.zeros(hidden),
            "W3": scale * np.random.randn(hidden, classes),
            "b3": np.zeros(classes),
        }
        first, second, third = ((self.params[f"W{n}"], self.params[f"b{n}"]) for n in (1, 2, 3))
        self.layers: OrderedDict[str, Any] = OrderedDict(
            Conv1=Convolution(*first, stride, pad),
            Relu1=Relu(),
            Pool1=Pooling(pool_h=2, pool_w=2, stride=2),
            Affine1=Affine(*second),
            Relu2=Relu(),
            Affine2=Affine(*third),
        )
        self.last_layer = SoftmaxWithLoss()
        same = [
            layers.Convolution(*first, stride, pad),
            layers.ReLU(),
            layers.MaxPooling(2, 2, 2),
            layers.Flatten(),
            layers.Affine(*second),
            layers.ReLU(),
            layers.Affine(*third),
        ]
        owners = {f"{own}{n}": (key, own) for n, key in enumerate(("Conv1", "Affine1", "Affine2"), 1) for own in "Wb"}
        self._adopt(owners, Network(same, layers.SoftmaxWithLoss()))

    def accuracy(self, x: npt.ArrayLike, t: npt.ArrayLike, batch_size: int | None = 100) -> float:
        """The share of rows whose likeliest class is that of the target; as `LayeredNet.accuracy`, by 100 rows."""
        return super().accuracy(x, t, batch_size)


def as_image_shape(input_dim: tuple[int, int, int]) -> list[int]:
    """Channels, height and width."""
    if not isinstance(input_dim, (tuple, list)) or len(input_dim) != 3:
        raise ValueError(f"input_dim must be (channels, height, width), not {input_dim!r}")
    return [checks.as_count(n, f"input_dim[{place}]") for place, n in enumerate(input_dim)]


def as_filters(given: Mapping[str, int], name: str) -> tuple[int, int, int, int]:
    """The number of filters, their size, the padding and the stride."""
    if not isinstance(given, Mapping) or set(given) != set(FILTERS):
        raise ValueError(f"{name} must be a dict with {', '.join(map(repr, FILTERS))}, not {given!r}")
    filters, size, stride = (
        checks.as_count(given[key], f"{name}[{key!r}]") for key in ("filter_num", "filter_size", "stride")
    )
    return filters, size, checks.as_count(given["pad"], f"{name}['pad']", 0), stride
