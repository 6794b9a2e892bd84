"""`ch08/deep_convnet.py` of the book: a deep convolutional network with dropout."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from fastnet import layers
from fastnet._tools import checks
from fastnet._tools.types import FloatArray
from fastnet.book.ch07.simple_convnet import as_filters, as_image_shape
from fastnet.book.common.layers import Affine, Convolution, Dropout, Pooling, Relu, SoftmaxWithLoss
from fastnet.book.common.util import conv_output_size
from fastnet.book.layered import Key, LayeredNet
from fastnet.layers.dropout import GivenMask
from fastnet.networks import Network

__all__ = ["DeepConvNet"]


def _filters(number: int, pad: int = 1) -> dict[str, int]:
    return {"filter_num": number, "filter_size": 3, "pad": pad, "stride": 1}


class DeepConvNet(LayeredNet):
    """Three times convolution, ReLU, convolution, ReLU, max pooling of 2×2; then affine, ReLU, dropout twice.

    Its loss is softmax and the cross entropy. As in the book, `loss` is that of training, with dropout; `predict` and
    `accuracy` are inference.

    Parameters
    ----------
    input_dim : tuple of int, default (1, 28, 28)
        Channels, height and width of the images. (The book's takes no others than 28×28.)
    conv_param_1, …, conv_param_6 : dict
        Each has ``"filter_num"``, ``"filter_size"``, ``"pad"`` and ``"stride"``; by default 16, 16, 32, 32, 64 and 64
        filters of 3×3 with pad 1, in the fourth 2, and stride 1.
    hidden_size : int, default 50
        The number of units between the two affine layers.
    output_size : int, default 10
        The number of classes.

    Attributes
    ----------
    params : dict of str to ndarray
        ``W1``, ``b1``, …, ``W8``, ``b8``. The weights are drawn with ``np.random.randn``, with the standard deviation
        √(2/n) for n inputs of each unit; biases start at 0.
    layers : list
        In the order of `forward`.
    last_layer : SoftmaxWithLoss

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of its range, or nothing is left for a filter or the pooling.
    """

    takes_images = True

    def __init__(
        self,
        input_dim: tuple[int, int, int] = (1, 28, 28),
        conv_param_1: Mapping[str, int] = _filters(16),
        conv_param_2: Mapping[str, int] = _filters(16),
        conv_param_3: Mapping[str, int] = _filters(32),
        conv_param_4: Mapping[str, int] = _filters(32, pad=2),
        conv_param_5: Mapping[str, int] = _filters(64),
        conv_param_6: Mapping[str, int] = _filters(64),
        hidden_size: int = 50,
        output_size: int = 10,
    ) -> None:
        hidden, classes = checks.as_count(hidden_size, "hidden_size"), checks.as_count(output_size, "output_size")
        channels, *sides = as_image_shape(input_dim)
        given = (conv_param_1, conv_param_2, conv_param_3, conv_param_4, conv_param_5, conv_param_6)
        convolutions = [as_filters(param, f"conv_param_{number}") for number, param in enumerate(given, 1)]
        shapes: list[tuple[int, ...]] = []
        for number, (filters, size, pad, stride) in enumerate(convolutions, 1):
            shapes.append((filters, channels, size, size))
            sides = [int(conv_output_size(side, size, stride, pad)) for side in sides]
            sides = [side // 2 for side in sides] if number % 2 == 0 else sides
            if min(sides) < 1:
                raise ValueError(
                    f"input_dim {tuple(input_dim)} is too small: nothing is left after conv_param_{number}"
                )
            channels = filters
        shapes += [(channels * sides[0] * sides[1], hidden), (hidden, classes)]
        self.params = {}
        for number, shape in enumerate(shapes, 1):
            inputs = int(np.prod(shape[1:])) if len(shape) == 4 else shape[0]
            self.params[f"W{number}"] = np.sqrt(2 / inputs) * np.random.randn(*shape)
            self.params[f"b{number}"] = np.zeros(shape[0] if len(shape) == 4 else shape[1])
        self.layers: list[Any] = []
        same: list[layers.Layer] = []  # the layers of fastnet that compute the same
        owners: dict[str, tuple[Key, str]] = {}
        for number in range(1, 9):
            owners |= {f"{own}{number}": (len(self.layers), own) for own in "Wb"}
            weight, bias = self.params[f"W{number}"], self.params[f"b{number}"]
            if number <= 6:
                _, _, pad, stride = convolutions[number - 1]
                self.layers += [Convolution(weight, bias, stride, pad), Relu()]
                same += [layers.Convolution(weight, bias, stride, pad), layers.ReLU()]
                if number % 2 == 0:
                    self.layers.append(Pooling(pool_h=2, pool_w=2, stride=2))
                    same.append(layers.MaxPooling(2, 2, 2))
            else:
                self.layers += [Affine(weight, bias), *([Relu()] if number == 7 else []), Dropout(0.5)]
                same += [layers.Flatten()] if number == 7 else []
                same += [layers.Affine(weight, bias), *([layers.ReLU()] if number == 7 else []), GivenMask(len(bias))]
        self.last_layer = SoftmaxWithLoss()
        self._adopt(owners, Network(same, layers.SoftmaxWithLoss()))

    def predict(self, x: npt.ArrayLike, train_flg: bool = False) -> FloatArray:
        """The scores, before the softmax that `loss` applies.

        Parameters
        ----------
        x : array_like
            Images, shape (batch, channels, height, width).
        train_flg : bool, default False
            Whether Dropout draws new masks.

        Returns
        -------
        ndarray
            Shape (batch, classes).

        Raises
        ------
        ValueError, TypeError
            If the shape does not fit, or `x` does not hold real numbers.
        """
        self._agree()
        if not checks.as_flag(train_flg, "train_flg"):
            return super().predict(x)
        with self._training_pass():
            scores: FloatArray = self._forward(x, True)
        return scores

    def loss(self, x: npt.ArrayLike, t: npt.ArrayLike) -> float:
        """The loss in training mode, averaged over the batch; as `LayeredNet.loss`, but with dropout."""
        return self._penalised(self.predict(x, True), t)

    def accuracy(self, x: npt.ArrayLike, t: npt.ArrayLike, batch_size: int | None = 100) -> float:
        """The share of rows whose likeliest class is that of the target; as `LayeredNet.accuracy`, by 100 rows."""
        return super().accuracy(x, t, batch_size)
