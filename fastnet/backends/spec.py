"""What backends are given: a network as checked, contiguous arrays and enums, and a stretch of training."""

from __future__ import annotations

import enum
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from fastnet._tools.types import FloatArray, IntArray

Scalar = TypeVar("Scalar", bound=np.generic)


class Activation(enum.IntEnum):
    """The function that a layer applies to each of its units; the numbers are those of ``cpp/core/network.hpp``."""

    IDENTITY = 0
    STEP = 1
    SIGMOID = 2
    TANH = 3
    RELU = 4
    LEAKY_RELU = 5


DEFAULT_CONSTANTS = {Activation.LEAKY_RELU: 0.01}  # of the activations that have one


class Output(enum.IntEnum):
    """The function that turns the last layer's units into the network's answer."""

    IDENTITY = 0
    SOFTMAX = 1


class Loss(enum.IntEnum):
    """The distance between answer and target, averaged over the batch."""

    CROSS_ENTROPY = 0
    MEAN_SQUARED_ERROR = 1


class Rule(enum.IntEnum):
    """How an optimizer changes a parameter; the numbers are those of ``cpp/core/training.hpp``."""

    SGD = 0
    MOMENTUM = 1
    NESTEROV = 2
    ADAGRAD = 3
    RMSPROP = 4
    ADAM = 5


class GradientKind(enum.IntEnum):
    """Where a training step's gradient comes from; the numbers are those of ``cpp/core/training.hpp``."""

    BACKPROP = 0
    INCREMENTAL = 1
    NODAL = 2


@dataclass(frozen=True, slots=True)
class Diagnostics:
    """What a finite-difference gradient reports about itself.

    Attributes
    ----------
    loss : float
        The loss at the unchanged parameters.
    evaluations : int
        The number of evaluations, each of the change of one row's loss after one perturbation.
    fallbacks : int
        The number of (row, unit) pairs that ``nodal`` left to ``incremental``, since the interpolation was not accurate
        or the unit met a kink.
    kinks : int
        The number of these pairs that met a kink.
    kinked : tuple of ndarray of bool
        For each layer, shape (outputs,): whether a perturbation of the unit moved any unit across a kink. The central
        differences with respect to the unit's weights and bias then straddle the kink and need not equal a derivative.
    """

    loss: float
    evaluations: int = 0
    fallbacks: int = 0
    kinks: int = 0
    kinked: tuple[npt.NDArray[np.bool_], ...] = ()


@dataclass(frozen=True, slots=True)
class NetworkSpec:
    """A chain of affine layers with activations, an output function and a loss.

    Attributes
    ----------
    weights : tuple of ndarray
        Layer l's weights, shape (inputs, outputs); all of one dtype, float32 or float64, C-contiguous.
    biases : tuple of ndarray or None
        Layer l's biases, shape (outputs,), or None where the layer has none.
    activations : tuple of Activation
        Layer l's activation.
    output : Output
    loss : Loss
    weight_decay : float
        λ of the penalty λ/2·ΣW² over all weights (not biases) that the loss includes; 0 for none.
    constants : tuple of float
        The constant of layer l's activation: the slope of a leaky ReLU; 0 for an activation without one. By default,
        those of `DEFAULT_CONSTANTS`.
    """

    weights: tuple[FloatArray, ...]
    biases: tuple[FloatArray | None, ...]
    activations: tuple[Activation, ...]
    output: Output = Output.SOFTMAX
    loss: Loss = Loss.CROSS_ENTROPY
    weight_decay: float = 0.0
    constants: tuple[float, ...] = ()

    def __post_init__(self) -> None:
        if not self.constants:
            object.__setattr__(self, "constants", tuple(DEFAULT_CONSTANTS.get(a, 0.0) for a in self.activations))

    @property
    def dtype(self) -> np.dtype[np.floating[Any]]:
        return self.weights[0].dtype

    @property
    def inputs(self) -> int:
        inputs: int = self.weights[0].shape[0]
        return inputs

    @property
    def classes(self) -> int:
        classes: int = self.weights[-1].shape[1]
        return classes

    @property
    def layers(self) -> list[tuple[FloatArray, FloatArray | None, Activation, float]]:
        """Each layer's weight, bias, activation, and the activation's constant."""
        return list(zip(self.weights, self.biases, self.activations, self.constants, strict=True))

    @property
    def parameters(self) -> list[FloatArray]:
        """Every parameter array, in the order W1, b1, W2, b2, … of gradients and of flat parameter numbers.

        Inside fastnet, a gradient is a list of arrays in this order. `flatten` makes one flat array of such a list, and
        `split` undoes that.
        """
        return [p for pair in zip(self.weights, self.biases, strict=True) for p in pair if p is not None]

    @staticmethod
    def flatten(arrays: Iterable[npt.NDArray[Scalar]]) -> npt.NDArray[Scalar]:
        """Arrays like `parameters` as one flat array: array after array, each row by row."""
        return np.concatenate([array.ravel() for array in arrays])

    def split(self, flat: npt.NDArray[Scalar]) -> list[npt.NDArray[Scalar]]:
        """A flat array as arrays like `parameters`, which are views of it."""
        parameters = self.parameters
        ends = np.cumsum([p.size for p in parameters])
        return [piece.reshape(p.shape) for piece, p in zip(np.split(flat, ends[:-1]), parameters, strict=True)]

    def with_parameters(self, parameters: Iterable[FloatArray]) -> NetworkSpec:
        """The same network with other parameter arrays, in the order of `parameters`."""
        rest = iter(parameters)
        pairs = [(next(rest), None if bias is None else next(rest)) for bias in self.biases]
        return replace(self, weights=tuple(w for w, _ in pairs), biases=tuple(b for _, b in pairs))

    def copy(self) -> NetworkSpec:
        """The same network with its own copies of the parameter arrays."""
        return self.with_parameters(p.copy() for p in self.parameters)

    @property
    def has_exact_difference(self) -> bool:
        """Whether the loss has an exact difference.

        That of a logarithm needs the new answer to full accuracy. For a softmax it is known; the answer of any other
        layer would have to be carried along.
        """
        return not (self.output == Output.IDENTITY and self.loss == Loss.CROSS_ENTROPY)

    def check_differences(self) -> None:
        """Raise ValueError if the loss has no exact difference."""
        if not self.has_exact_difference:
            raise ValueError(
                "the cross entropy of an answer without softmax has no exact difference: use the algorithm 'loop'"
            )


@dataclass(frozen=True, slots=True)
class Batches:
    """The minibatches of a stretch of training: each `size` rows in turn, the last one maybe fewer.

    Attributes
    ----------
    data : object
        All rows, as the backend's `dataset` has prepared them.
    targets : ndarray
        The targets of all rows: labels (rows,) or shape (rows, classes).
    order : ndarray of int64
        The numbers of the rows to train with, batch after batch.
    size : int
        Rows of a batch.
    """

    data: Any
    targets: FloatArray | IntArray
    order: IntArray
    size: int


@dataclass(frozen=True, slots=True)
class Update:
    """What an optimizer changes the parameters by, as `fastnet.optimizers.Optimizer` describes it.

    Attributes
    ----------
    rule : Rule
    constants : tuple of float
        The scalars that are the same in every step.
    coefficients : ndarray of float64
        Those that change, shape (steps, coefficients).
    slots : tuple of tuple of ndarray
        What the optimizer keeps: for each slot, an array for each parameter, changed in place.
    """

    rule: Rule
    constants: tuple[float, ...]
    coefficients: FloatArray
    slots: tuple[tuple[FloatArray, ...], ...]
