"""`ch05/two_layer_net.py` of the book: the network of one hidden layer, made of layers."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np

from fastnet import layers
from fastnet._tools import checks
from fastnet.book.common.layers import Affine, Relu, SoftmaxWithLoss
from fastnet.book.layered import LayeredNet
from fastnet.networks import Network

__all__ = ["TwoLayerNet"]


class TwoLayerNet(LayeredNet):
    """A network of one hidden layer: affine, ReLU, affine; its loss is softmax and the cross entropy.

    Parameters
    ----------
    input_size, hidden_size, output_size : int
        The numbers of inputs, hidden units and classes.
    weight_init_std : float, default 0.01
        The standard deviation of the weights, which are drawn with ``np.random.randn``; biases start at 0.

    Attributes
    ----------
    params : dict of str to ndarray
        ``W1`` (input_size, hidden_size), ``b1``, ``W2`` (hidden_size, output_size), ``b2``.
    layers : OrderedDict
        ``"Affine1"``, ``"Relu1"``, ``"Affine2"``.
    lastLayer : SoftmaxWithLoss

    Examples
    --------
    >>> import numpy as np
    >>> from fastnet.book.ch05.two_layer_net import TwoLayerNet
    >>> np.random.seed(0)
    >>> net = TwoLayerNet(input_size=784, hidden_size=50, output_size=10)
    >>> x, t = np.random.rand(3, 784), np.array([5, 0, 4])
    >>> numerical, backprop = net.numerical_gradient(x, t), net.gradient(x, t)
    >>> all(np.abs(backprop[key] - numerical[key]).mean() < 1e-8 for key in numerical)
    True
    """

    last_name = "lastLayer"

    def __init__(self, input_size: int, hidden_size: int, output_size: int, weight_init_std: float = 0.01) -> None:
        self.params = draw_params(input_size, hidden_size, output_size, weight_init_std)
        first, last = (self.params["W1"], self.params["b1"]), (self.params["W2"], self.params["b2"])
        self.layers: OrderedDict[str, Any] = OrderedDict(Affine1=Affine(*first), Relu1=Relu(), Affine2=Affine(*last))
        self.lastLayer = SoftmaxWithLoss()
        network = Network([layers.Affine(*first), layers.ReLU(), layers.Affine(*last)], layers.SoftmaxWithLoss())
        owners = {"W1": ("Affine1", "W"), "b1": ("Affine1", "b"), "W2": ("Affine2", "W"), "b2": ("Affine2", "b")}
        self._adopt(owners, network)


def draw_params(inputs: int, hidden: int, classes: int, std: float) -> dict[str, Any]:
    """Draw the parameters of a network of one hidden layer from NumPy's global generator, in the book's order."""
    inputs, hidden = checks.as_count(inputs, "input_size"), checks.as_count(hidden, "hidden_size")
    classes = checks.as_count(classes, "output_size")
    scale = checks.as_not_negative(std, "weight_init_std")
    return {
        "W1": scale * np.random.randn(inputs, hidden),
        "b1": np.zeros(hidden),
        "W2": scale * np.random.randn(hidden, classes),
        "b2": np.zeros(classes),
    }
