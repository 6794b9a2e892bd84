"""`common/multi_layer_net.py` of the book: a network of any number of hidden layers."""

from __future__ import annotations

import itertools
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

import numpy as np

from fastnet import layers
from fastnet._tools import checks
from fastnet.book.common.layers import Affine, BatchNormalization, Dropout, Relu, Sigmoid, SoftmaxWithLoss
from fastnet.book.layered import Key, LayeredNet
from fastnet.layers.dropout import GivenMask
from fastnet.networks import Network

__all__ = ["MultiLayerNet"]

ACTIVATIONS: dict[str, type[Relu | Sigmoid]] = {"sigmoid": Sigmoid, "relu": Relu}
SAME: dict[type[layers.Layer], type[layers.Layer]] = {Sigmoid: layers.Sigmoid, Relu: layers.ReLU}
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
        inputs, hidden = checks.as_count(input_size, "input_size"), _as_counts(hidden_size_list, "hidden_size_list")
        sizes = [inputs, *hidden, checks.as_count(output_size, "output_size")]
        self.input_size, self.hidden_size_list, self.output_size = inputs, hidden, sizes[-1]
        self.hidden_layer_num = len(hidden)
        self.weight_decay_lambda = checks.as_not_negative(weight_decay_lambda, "weight_decay_lambda")
        self.params = {}
        for number, (before, units) in enumerate(itertools.pairwise(sizes), 1):
            self.params[f"W{number}"] = _std(weight_init_std, before) * np.random.randn(before, units)
            self.params[f"b{number}"] = np.zeros(units)
        self.layers: OrderedDict[str, Any] = OrderedDict()
        owners: dict[str, tuple[Key, str]] = {}
        same: list[layers.Layer] = []  # the layers of fastnet that compute the same
        for number, units in enumerate(sizes[1:], 1):
            weight, bias = self.params[f"W{number}"], self.params[f"b{number}"]
            self.layers[f"Affine{number}"] = Affine(weight, bias)
            same.append(layers.Affine(weight, bias))
            owners |= {f"{own}{number}": (f"Affine{number}", own) for own in ("W", "b")}
            if number > len(hidden):
                break
            if batchnorm:
                gamma, beta = np.ones(units), np.zeros(units)
                self.params |= {f"gamma{number}": gamma, f"beta{number}": beta}
                self.layers[f"BatchNorm{number}"] = BatchNormalization(gamma, beta)
                same.append(layers.BatchNorm(gamma, beta, 0.9, np.zeros(units), np.zeros(units)))
                owners |= {f"{own}{number}": (f"BatchNorm{number}", own) for own in ("gamma", "beta")}
            self.layers[f"Activation_function{number}"] = kind()
            same.append(SAME[kind]())
            if dropout_ratio is not None:
                self.layers[f"Dropout{number}"] = Dropout(dropout_ratio)
                same.append(GivenMask(units))
        self.last_layer = SoftmaxWithLoss()
        self._adopt(owners, Network(same, layers.SoftmaxWithLoss()))


def _as_counts(sizes: object, name: str) -> list[int]:
    """The numbers of units of the hidden layers, of which there must be one."""
    if isinstance(sizes, str) or not isinstance(sizes, Iterable):
        raise TypeError(f"{name} must be a list of numbers, as in [50], not {checks.type_name(sizes)}")
    found = [checks.as_count(size, f"{name}[{place}]") for place, size in enumerate(sizes)]
    if not found:
        raise ValueError(f"{name} is empty: it must have the number of units of at least one hidden layer")
    return found


def _std(weight_init_std: str | float, inputs: int) -> float:
    """The standard deviation of the weights of a layer with this number of inputs."""
    if isinstance(weight_init_std, str):
        return float(
            np.sqrt(GAINS[checks.as_choice(weight_init_std.lower(), "weight_init_std", tuple(GAINS))] / inputs)
        )
    return checks.as_not_negative(weight_init_std, "weight_init_std")
