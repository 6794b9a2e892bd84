"""`common/multi_layer_net.py` of the book: a network of any number of hidden layers."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import numpy as np

from fastnet import networks
from fastnet._tools import checks
from fastnet.book.common.layers import Affine, BatchNormalization, Dropout, Relu, Sigmoid, SoftmaxWithLoss
from fastnet.book.layered import Key, LayeredNet

__all__ = ["MultiLayerNet"]

ACTIVATIONS: dict[str, type[Relu | Sigmoid]] = {"sigmoid": Sigmoid, "relu": Relu}
GAINS = {"relu": 2.0, "he": 2.0, "sigmoid": 1.0, "xavier": 1.0}  # the variance of the weights is the gain over inputs


class MultiLayerNet(LayeredNet):
    """A network of any number of hidden layers of one kind; its loss is softmax and the cross entropy.

    Parameters
    ----------
    input_size : int
        The number of inputs.
    hidden_size_list : list of int
        The number of units of each hidden layer.
    output_size : int
        The number of classes.
    activation : {"relu", "sigmoid"}
        The activation of the hidden layers.
    weight_init_std : {"relu", "he", "sigmoid", "xavier"} or float, default "relu"
        The standard deviation of the weights, which are drawn with ``np.random.randn``: √(2/n) for ``"relu"`` and
        ``"he"``, √(1/n) for ``"sigmoid"`` and ``"xavier"``, for a layer of n inputs; or a number. Biases start at 0.
    weight_decay_lambda : float, default 0
        λ of the penalty λ/2·ΣW² over all weights, which is part of the loss.

    Attributes
    ----------
    params : dict of str to ndarray
        ``W1`` (input_size, hidden_size_list[0]), ``b1``, …
    layers : OrderedDict
        ``"Affine1"``, ``"Activation_function1"``, ``"Affine2"``, …
    last_layer : SoftmaxWithLoss

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of its range.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size_list: Iterable[int],
        output_size: int,
        activation: str = "relu",
        weight_init_std: str | float = "relu",
        weight_decay_lambda: float = 0,
    ) -> None:
        self._build(input_size, hidden_size_list, output_size, activation, weight_init_std, weight_decay_lambda)

    def _build(
        self,
        input_size: int,
        hidden_size_list: Iterable[int],
        output_size: int,
        activation: str,
        weight_init_std: str | float,
        weight_decay_lambda: float,
        dropout_ratio: float | None = None,
        batchnorm: bool = False,
    ) -> None:
        kind = ACTIVATIONS[checks.as_choice(activation, "activation", tuple(ACTIVATIONS))]
        # It checks the arguments, and computes with the parameters that are drawn below.
        network = networks.MultiLayerNet(
            input_size,
            hidden_size_list,
            output_size,
            activation=activation,
            weight_init_std=weight_init_std,
            weight_decay_lambda=weight_decay_lambda,
            use_batchnorm=batchnorm,
            seed=0,
        )
        hidden = [len(network.params[f"b{n}"]) for n in range(1, len(network.params)) if f"W{n + 1}" in network.params]
        self.input_size, self.hidden_size_list, self.output_size = input_size, hidden, output_size
        self.hidden_layer_num = len(hidden)
        self.weight_decay_lambda = weight_decay_lambda
        self.params = {}
        for number, (inputs, outputs) in enumerate(itertools.pairwise([input_size, *hidden, output_size]), 1):
            scale = weight_init_std
            if isinstance(scale, str):
                scale = float(np.sqrt(GAINS[scale.lower()] / inputs))
            self.params[f"W{number}"] = scale * np.random.randn(inputs, outputs)
            self.params[f"b{number}"] = np.zeros(outputs)
        self.layers: OrderedDict[str, Any] = OrderedDict()
        owners: dict[str, tuple[Key, str]] = {}
        for number, units in enumerate([*hidden, output_size], 1):
            self.layers[f"Affine{number}"] = Affine(self.params[f"W{number}"], self.params[f"b{number}"])
            owners |= {f"{own}{number}": (f"Affine{number}", own) for own in ("W", "b")}
            if number > len(hidden):
                break
            if batchnorm:
                gamma, beta = np.ones(units), np.zeros(units)
                self.params |= {f"gamma{number}": gamma, f"beta{number}": beta}
                self.layers[f"BatchNorm{number}"] = BatchNormalization(gamma, beta)
                owners |= {f"{own}{number}": (f"BatchNorm{number}", own) for own in ("gamma", "beta")}
            self.layers[f"Activation_function{number}"] = kind()
            if dropout_ratio is not None:
                self.layers[f"Dropout{number}"] = Dropout(dropout_ratio)
        self.last_layer = SoftmaxWithLoss()
        # The book's Dropout is not fastnet's, so a network with it runs layer by layer.
        self._adopt(owners, network if dropout_ratio is None else None)
