"""The networks of the book: of many hidden layers, of one, and the smallest that has a gradient."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from fastnet._tools import checks
from fastnet._tools.types import FloatArray
from fastnet.backends import active
from fastnet.backends.spec import Activation, Output
from fastnet.layers import (
    ELU,
    GELU,
    Affine,
    BatchNorm,
    BinaryCrossEntropyWithLogits,
    Dropout,
    HuberLoss,
    IdentityWithLoss,
    L1Loss,
    Layer,
    LeakyReLU,
    LossLayer,
    ReLU,
    Sigmoid,
    SiLU,
    SoftmaxWithLoss,
    Softplus,
    Step,
    Tanh,
)
from fastnet.networks.chain import AffineChain, Chain, ChainLayer
from fastnet.networks.network import Network

ACTIVATIONS: dict[str, list[type[Layer]]] = {
    "relu": [ReLU],
    "leaky_relu": [LeakyReLU],
    "sigmoid": [Sigmoid],
    "tanh": [Tanh],
    "softplus": [Softplus],
    "silu": [SiLU],
    "gelu": [GELU],
    "elu": [ELU],
    "step": [Step],
    "identity": [],
}
# Those that let one side through and little of the other, for which He's initial weights are made.
RECTIFIERS = frozenset({"relu", "leaky_relu", "softplus", "silu", "gelu", "elu"})
LOSSES: dict[str, type[LossLayer]] = {
    "cross_entropy": SoftmaxWithLoss,
    "mean_squared_error": IdentityWithLoss,
    "binary_cross_entropy_with_logits": BinaryCrossEntropyWithLogits,
    "huber_loss": HuberLoss,
    "mean_absolute_error": L1Loss,
}


class MultiLayerNet(Network):
    """A network of any number of hidden layers of one kind.

    Each hidden layer is an affine layer, BatchNorm if asked for, the activation, and Dropout if asked for; then come
    an affine layer and the loss, before which the cross entropy has a softmax. `Network` describes training, inference
    and how it is computed.

    Parameters
    ----------
    input_size : int
        The number of inputs.
    hidden_size_list : list of int
        The number of units of each hidden layer.
    output_size : int
        The number of classes, or of the outputs of a regression.
    activation : {"relu", "leaky_relu", "sigmoid", "tanh", "softplus", "silu", "gelu", "elu", "step", "identity"}
        The activation of the hidden layers.
    weight_init_std : {"he", "xavier"} or float, default "he"
        The standard deviation of the normal distribution that the weights are drawn from: √(2/n) or √(1/n) for a layer
        of n inputs, or a number. ``"relu"`` and ``"sigmoid"`` are the book's other names for the two. Biases start
        at 0.
    weight_decay_lambda : float, default 0
        λ of the penalty λ/2·ΣW² over all weights, which is part of the loss.
    use_batchnorm : bool, default False
    dropout_ratio : float, default 0
        The share of each hidden layer's units that Dropout sets to zero, less than 1; 0 for no Dropout.
    dtype : {"float64", "float32"}
    seed : int, optional
        Seed of the weights and of the masks of Dropout.
    loss : str, default "cross_entropy"
        ``"cross_entropy"`` of the softmax, for classes. Or a loss of the outputs as they are, whose targets have shape
        (batch, output_size): ``"mean_squared_error"``, ``"huber_loss"``, ``"mean_absolute_error"``, or
        ``"binary_cross_entropy_with_logits"`` for targets from 0 to 1.
    running_mean, running_var : list of float or array_like, optional
        Running statistics that BatchNorm goes on from: for each hidden layer, a number for all units, or one for each.

    Attributes
    ----------
    params : dict of str to ndarray
        ``W1`` (input_size, hidden_size_list[0]), ``b1``, …; with BatchNorm also ``gamma1``, ``beta1``, …

    Raises
    ------
    TypeError, ValueError
        If an argument has the wrong type or is out of its range.

    References
    ----------
    K. He et al., Delving Deep into Rectifiers, 2015. X. Glorot, Y. Bengio, Understanding the difficulty of training
    deep feedforward neural networks, 2010; the book takes its form that depends only on the number of inputs.

    Examples
    --------
    >>> import fastnet
    >>> net = fastnet.MultiLayerNet(784, [100, 100], 10, use_batchnorm=True, dropout_ratio=0.2, seed=0)
    >>> list(net.params)
    ['W1', 'b1', 'gamma1', 'beta1', 'W2', 'b2', 'gamma2', 'beta2', 'W3', 'b3']
    """

    def __init__(
        self,
        input_size: int,
        hidden_size_list: Iterable[int],
        output_size: int,
        *,
        activation: str = "relu",
        weight_init_std: str | float = "he",
        weight_decay_lambda: float = 0.0,
        use_batchnorm: bool = False,
        dropout_ratio: float = 0.0,
        dtype: npt.DTypeLike = "float64",
        seed: int | None = None,
        loss: str = "cross_entropy",
        running_mean: Sequence[npt.ArrayLike] | None = None,
        running_var: Sequence[npt.ArrayLike] | None = None,
    ) -> None:
        sizes = [
            checks.as_count(input_size, "input_size"),
            *_hidden_sizes(hidden_size_list),
            checks.as_count(output_size, "output_size"),
        ]
        name = checks.as_choice(activation, "activation", tuple(ACTIVATIONS))
        last = LOSSES[checks.as_choice(loss, "loss", tuple(LOSSES))]
        batchnorm = checks.as_flag(use_batchnorm, "use_batchnorm")
        mean = _running(running_mean, "running_mean", sizes[1:-1], batchnorm)
        variance = _running(running_var, "running_var", sizes[1:-1], batchnorm)
        ratio = checks.as_ratio(dropout_ratio, "dropout_ratio")
        wanted = checks.as_dtype(dtype)
        rng = np.random.default_rng(checks.as_seed(seed))
        affine = []
        for inputs, outputs in itertools.pairwise(sizes):
            weights = weight_std(weight_init_std, inputs) * rng.standard_normal((inputs, outputs))
            affine.append(Affine(weights.astype(wanted), np.zeros(outputs, wanted)))
        layers: list[Layer] = []
        for place, units in enumerate(sizes[1:-1]):
            layers.append(affine[place])
            if batchnorm:
                layers.append(
                    BatchNorm(
                        np.ones(units, wanted),
                        np.zeros(units, wanted),
                        running_mean=mean[place],
                        running_var=variance[place],
                    )
                )
            layers += [kind() for kind in ACTIVATIONS[name]]
            if ratio:
                layers.append(Dropout(ratio, seed=int(rng.integers(2**63))))
        super().__init__([*layers, affine[-1]], last(), weight_decay_lambda)


def _hidden_sizes(sizes: object) -> list[int]:
    if isinstance(sizes, str) or not isinstance(sizes, Iterable):
        raise TypeError(f"hidden_size_list must be a list of numbers, as in [50], not {checks.type_name(sizes)}")
    found = [checks.as_count(size, f"hidden_size_list[{place}]") for place, size in enumerate(sizes)]
    if not found:
        raise ValueError(
            "hidden_size_list is empty: for no hidden layer, use Network([Affine(W, b)], SoftmaxWithLoss())"
        )
    return found


def _running(values: object, name: str, sizes: Sequence[int], batchnorm: bool) -> list[FloatArray | None]:
    """Given running statistics of each hidden layer, or None for each."""
    if values is None:
        return [None] * len(sizes)
    if not batchnorm:
        raise ValueError(f"{name} is given, but use_batchnorm is False")
    if isinstance(values, (str, np.ndarray)) or not isinstance(values, Sequence):
        raise TypeError(f"{name} must be a list with an entry for each hidden layer, not {checks.type_name(values)}")
    if len(values) != len(sizes):
        raise ValueError(f"{name} has {len(values)} entries for {len(sizes)} hidden layer(s)")
    found: list[FloatArray | None] = []
    for place, (value, units) in enumerate(zip(values, sizes, strict=True)):
        array = checks.as_floating(value, f"{name}[{place}]")
        if array.shape not in ((), (units,)):
            raise ValueError(f"{name}[{place}] must be a number or have shape ({units},), not {array.shape}")
        found.append(np.full(units, array) if array.ndim == 0 else array)
    return found


def weight_std(weight_init_std: str | float, inputs: int) -> float:
    """The standard deviation of the weights in a layer with this number of inputs."""
    if not isinstance(weight_init_std, str):
        return checks.as_not_negative(weight_init_std, "weight_init_std")
    name = checks.as_choice(weight_init_std.lower(), "weight_init_std", ("he", "xavier", "relu", "sigmoid"))
    return float(np.sqrt((2 if name in ("he", "relu") else 1) / inputs))


class TwoLayerNet(AffineChain):
    """A network of one hidden layer: affine, sigmoid, affine, softmax; its loss is the cross entropy.

    Parameters
    ----------
    input_size, hidden_size, output_size : int
        The numbers of inputs, hidden units and classes.
    weight_init_std : float, default 0.01
        The standard deviation of the normal distribution that the weights are drawn from; biases start at 0.
    dtype : {"float64", "float32"}
    seed : int, optional
        Seed of the weights.

    Attributes
    ----------
    params : dict of str to ndarray
        ``W1`` (input_size, hidden_size), ``b1`` (hidden_size,), ``W2`` (hidden_size, output_size), ``b2``
        (output_size,). Update them in place or put new arrays of the same shapes.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> net = fastnet.TwoLayerNet(784, 50, 10, seed=0)
    >>> x, t = fastnet.datasets.make_digits(100, seed=0)
    >>> difference = net.numerical_gradient(x, t)["W1"] - net.gradient(x, t)["W1"]
    >>> bool(np.abs(difference).max() < 1e-8)
    True
    """

    _layers = (ChainLayer("W1", "b1", Activation.SIGMOID), ChainLayer("W2", "b2", Activation.IDENTITY))

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        output_size: int,
        weight_init_std: float = 0.01,
        *,
        dtype: npt.DTypeLike = "float64",
        seed: int | None = None,
    ) -> None:
        inputs = checks.as_count(input_size, "input_size")
        hidden = checks.as_count(hidden_size, "hidden_size")
        classes = checks.as_count(output_size, "output_size")
        std = checks.as_real(weight_init_std, "weight_init_std")
        wanted = checks.as_dtype(dtype)
        rng = np.random.default_rng(seed)
        self.params = {
            "W1": (std * rng.standard_normal((inputs, hidden))).astype(wanted),
            "b1": np.zeros(hidden, dtype=wanted),
            "W2": (std * rng.standard_normal((hidden, classes))).astype(wanted),
            "b2": np.zeros(classes, dtype=wanted),
        }


class SimpleNet(AffineChain):
    """One weight matrix W of shape (2, 3): the smallest network that has a gradient.

    Parameters
    ----------
    dtype : {"float64", "float32"}
    seed : int, optional
        Seed of the weights.

    Attributes
    ----------
    W : ndarray
        The weights, shape (2, 3); the same array as ``params["W"]``.

    Examples
    --------
    >>> import numpy as np, fastnet
    >>> net = fastnet.SimpleNet(seed=0)
    >>> x, t = np.array([0.6, 0.9]), np.array([0, 0, 1])
    >>> net.numerical_gradient(x, t)["W"].shape
    (2, 3)
    """

    _layers = (ChainLayer("W", None, Activation.IDENTITY),)

    def __init__(self, *, dtype: npt.DTypeLike = "float64", seed: int | None = None) -> None:
        wanted = checks.as_dtype(dtype)
        self.params = {"W": np.random.default_rng(seed).standard_normal((2, 3)).astype(wanted)}

    @property
    def W(self) -> FloatArray:  # noqa: N802
        return self.params["W"]

    @W.setter
    def W(self, value: FloatArray) -> None:  # noqa: N802
        self.params["W"] = value

    def predict(self, x: npt.ArrayLike) -> FloatArray:
        """The scores x·W, before the softmax that `loss` applies.

        Parameters
        ----------
        x : array_like
            Shape (2,) or (batch, 2).

        Returns
        -------
        ndarray
            Shape (3,) or (batch, 3).

        Raises
        ------
        ValueError, TypeError
            If `x` has the wrong shape or does not hold real numbers.
        """
        chain = self._computation()
        return Chain(replace(chain.spec, output=Output.IDENTITY), chain.names).predict(x)

    def _answers_of(self, predicted: FloatArray) -> FloatArray:
        return active().softmax(predicted)
